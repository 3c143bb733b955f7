"""HTML to Markdown text, code blocks kept."""


def html_to_text(html: str) -> str:
    """A fragment of HTML as Markdown: code blocks fenced and their text untouched, entities decoded, ends stripped.

    Text that holds no markup comes back as it is, but for its line ends. Scripts, forms and navigation are dropped.
    """
    try:
        from html_to_markdown import convert
    except ImportError:
        raise ValueError(
            'html_to_text: html-to-markdown is not installed; run pip install "hf_synth[preferences]"'
        ) from None
    return (convert(html).content or "").strip()
