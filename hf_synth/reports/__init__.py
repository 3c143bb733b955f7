"""A run directory as a page to read: report.md, report.html and figures as PNG."""

from pathlib import Path

from hf_synth.experiments.plan import COMPARISON
from hf_synth.reports.arms import comparison_sections
from hf_synth.reports.comparison import write_comparison
from hf_synth.reports.grpo import answer_sections
from hf_synth.reports.pretraining import pretraining_sections
from hf_synth.reports.read import Run, holds_arms, read_comparison, read_run
from hf_synth.reports.report import html_page, learning_sections, note_sections, opening_sections
from hf_synth.reports.sampling_weights import weight_sections

__all__ = ["write_report"]


def write_report(folder: str | Path) -> Path:
    """Write report.md, report.html and figures/*.png into a finished run's folder; returns the path of report.html.

    The same files in the folder give the same bytes. Raises ValueError where the folder holds no finished run.
    """
    folder = Path(folder)
    if (folder / COMPARISON).exists():
        return write_comparison(folder)
    sections = comparison_sections(read_comparison(folder)) if holds_arms(folder) else _of_one(read_run(folder))
    text = "\n\n".join(sections) + "\n"
    (folder / "report.md").write_text(text, encoding="utf-8", newline="\n")
    path = folder / "report.html"
    path.write_text(html_page(text), encoding="utf-8", newline="\n")
    return path


def _of_one(run: Run) -> list[str]:
    body = {"grpo": answer_sections, "pretrain": pretraining_sections}.get(run.recipe, learning_sections)
    return [*opening_sections(run), *body(run), *weight_sections(run), *note_sections(run)]
