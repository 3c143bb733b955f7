"""Markdown as the Hub shows it."""

from collections.abc import Iterable, Sequence


def prose(text: str) -> str:
    """Text outside of backticks with `<` written so that it is shown; a line break only between paragraphs."""
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def table(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown themselves."""
    rows = [titles, ["---"] * len(titles), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
