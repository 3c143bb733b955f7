"""A run directory as a page to read: report.md, report.html and figures as PNG."""

from pathlib import Path

from hf_synth.reports.answers import answer_sections
from hf_synth.reports.notes import note_sections
from hf_synth.reports.opening import opening_sections
from hf_synth.reports.page import html_page
from hf_synth.reports.run import read_run
from hf_synth.reports.supervised import learning_sections
from hf_synth.reports.weights import weight_sections

__all__ = ["write_report"]


def write_report(folder: str | Path) -> Path:
    """Write report.md, report.html and figures/*.png into a finished run's folder; returns the path of report.html.

    The same files in the folder give the same bytes. Raises ValueError where the folder holds no finished run.
    """
    folder = Path(folder)
    run = read_run(folder)
    body = answer_sections(run) if run.recipe == "grpo" else learning_sections(run)
    sections = [*opening_sections(run), *body, *weight_sections(run), *note_sections(run)]
    text = "\n\n".join(sections) + "\n"
    (folder / "report.md").write_text(text, encoding="utf-8", newline="\n")
    path = folder / "report.html"
    path.write_text(html_page(text), encoding="utf-8", newline="\n")
    return path
