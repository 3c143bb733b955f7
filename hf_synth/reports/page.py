"""The report as one HTML page: readable on a phone, on paper, by day and by night."""

import re

from markdown_it import MarkdownIt

_CSS = """
:root { color-scheme: light dark; --text: #1f2328; --back: #ffffff; --line: #d1d9e0; --soft: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --back: #0d1117; --line: #3d444d; --soft: #161b22; }
}
body { margin: 2rem auto 4rem; padding: 0 1rem; max-width: 900px; background: var(--back); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.25; }
h2 { font-size: 1.3rem; margin-top: 2.5rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin-top: 2rem; }
img { display: block; max-width: 100%; height: auto; margin: 1.2rem auto; background: #fff; border-radius: 6px; }
table { display: block; max-width: max-content; overflow-x: auto; border-collapse: collapse; margin: 1rem 0;
  font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .35rem .7rem; border: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
th { background: var(--soft); overflow-wrap: normal; }
td:first-child { min-width: 7rem; }
td[style*="right"] { white-space: nowrap; }
code { font: .88em/1.45 ui-monospace, "DejaVu Sans Mono", monospace; background: var(--soft); padding: .1em .3em; }
pre { background: var(--soft); border: 1px solid var(--line); padding: .8rem 1rem; overflow-x: auto; }
pre code { padding: 0; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: 4px solid #0072b2; background: var(--soft); }
@media print { h2 { break-after: avoid; } img, table { break-inside: avoid; } }
""".strip()


def html_page(markdown: str) -> str:
    """A whole HTML page from Markdown with tables; HTML inside the Markdown is shown, never obeyed."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    heading = re.search(r"<h1>(.*?)</h1>", body)
    title = re.sub("<[^>]*>", "", heading[1]) if heading else "Report"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_CSS}\n</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
