"""Prompts of a user's own files, read row by row: a file of any size, of which bad rows are counted and kept."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hf_synth.preferences.files import SUFFIXES, read_rows
from hf_synth.sampling import prompt_text
from hf_synth.training.runs import REJECTED_ROWS

logger = logging.getLogger(__name__)


def prompt_files(path: Path) -> list[Path]:
    """The file itself, or all data files of a folder, by name; ValueError where there is none."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    found = [file for file in files if file.name.endswith(SUFFIXES)]
    if not found:
        raise ValueError(
            f"prompts: got {str(path)!r}, where there is no data file; wanted one that ends in {', '.join(SUFFIXES)}, "
            "or a folder of them"
        )
    return found


def usable_prompts(files: Sequence[Path], folder: Path) -> Iterator[Any]:
    """The column `prompt` of each row; rows without a usable one are left out, and kept in rejected_rows.jsonl.

    Raises ValueError, with the counts, where no row is usable.
    """
    rows = bad = 0
    with (folder / REJECTED_ROWS).open("w", encoding="utf-8") as rejected:
        for file in files:
            for row in read_rows(file):
                prompt = row.fields.get("prompt") if row.fields else None
                rows += 1
                if reason := row.reason or _problem(prompt):
                    bad += 1
                    kept = {"file": row.file, "line": row.line, "reason": reason, "row": str(row.raw)[:500]}
                    rejected.write(json.dumps(kept) + "\n")
                else:
                    yield prompt
    if bad == rows:
        raise ValueError(f"prompts: got {rows} rows, all of them unusable; see {folder / REJECTED_ROWS}")
    if bad:
        logger.warning("%d of %d rows left out, see %s", bad, rows, folder / REJECTED_ROWS)


def _problem(prompt: Any) -> str:
    """Why a prompt cannot be used; empty where it can."""
    if not isinstance(prompt, str | list):
        return "there is no `prompt`" if prompt is None else "the prompt is neither text nor a list of messages"
    try:
        text = prompt_text(prompt)
        text.encode("utf-8")  # JSON can spell half of a surrogate pair, which Arrow cannot hold
    except UnicodeEncodeError:
        return "not valid Unicode"
    except ValueError as error:
        return str(error)
    return "" if text.strip() else "the prompt is empty"
