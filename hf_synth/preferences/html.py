"""HTML to Markdown text, code blocks kept."""

from html_to_markdown import convert


def html_to_text(html: str) -> str:
    """A fragment of HTML as Markdown: code blocks fenced and their text untouched, entities decoded, ends stripped.

    Text that holds no markup comes back as it is, but for its line ends. Scripts, forms and navigation are dropped.
    """
    return (convert(html).content or "").strip()
