"""The report of a folder: write report.md, report.html and figures/*.png for whichever kind of run it holds."""

import json
import math
from collections import Counter
from pathlib import Path

from matplotlib.figure import Figure

from hf_synth.experiments.arms import COMPARISON
from hf_synth.reports.arms import arms_report
from hf_synth.reports.comparison import write_comparison
from hf_synth.reports.figures import CLUSTER_COLOURS, Line, Panel, curves, save
from hf_synth.reports.grpo import grpo_section
from hf_synth.reports.page import html_page, model_facts, render
from hf_synth.reports.pretraining import pretraining_section
from hf_synth.reports.read import Run, holds_arms, read_comparison, read_run
from hf_synth.reports.sampling_weights import weights_section
from hf_synth.reports.tables import MISSING, code, escaped, number
from hf_synth.training.run_directory import REJECTED_ROWS


def write_report(folder: str | Path) -> Path:
    """Write report.md, report.html and figures/*.png into a finished run's folder; returns the path of report.html.

    The same files in the folder give the same bytes. Raises ValueError where the folder holds no finished run.
    """
    folder = Path(folder)
    if (folder / COMPARISON).exists():
        return write_comparison(folder)
    text = report_text(folder)
    (folder / "report.md").write_text(text, encoding="utf-8", newline="\n")
    path = folder / "report.html"
    path.write_text(html_page(text), encoding="utf-8", newline="\n")
    return path


def report_text(folder: Path, *, quote_texts: bool = True) -> str:
    """Write the figures of a finished run and return its report as Markdown.

    quote_texts: whether it may quote prompts, answers and what was wrong with rows of the user's files.
    """
    if holds_arms(folder):
        return arms_report(read_comparison(folder)) + "\n"
    run = read_run(folder)
    body = {"grpo": grpo_section, "pretrain": pretraining_section}.get(run.recipe, supervised_section)
    rejected = _rejected(run)
    control = "control (strength 0: all prompts are drawn equally often)"
    text = render(
        "run",
        run=run,
        metrics=run.metrics if run.recipe == "pretrain" else run.arms[0].metrics,
        config=run.config,
        log=run.arms[0].log,
        model=model_facts(run.folder, run.metrics),
        seconds=run.metrics.get("seconds/total", run.arms[0].log.get("seconds")),
        arms=[control if arm.strength == 0 else arm.label for arm in run.arms],
        missing=[code(name) for name in run.missing],
        body=body(run),
        weights=weights_section(run, quote_texts=quote_texts),
        rejected=rejected,
        reasons=[[escaped(reason), number(count)] for reason, count in rejected.most_common(10)]
        if rejected and quote_texts
        else [],
        settings=run.settings,
        own_code=_has_own_code(run.folder),
    )
    return text + "\n"


def _rejected(run: Run) -> Counter[str] | None:
    """How many rows could not be used for which reason; None where none was kept."""
    path = run.folder / REJECTED_ROWS
    if not path.exists():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    return Counter(str(json.loads(line).get("reason")) for line in lines if line.strip())


def _has_own_code(folder: Path) -> bool:
    """Whether the model is of this package, so that transformers must be told of it."""
    path = folder / "config.json"
    return path.exists() and "auto_map" in json.loads(path.read_text(encoding="utf-8"))


_PANELS = (  # title, label with unit, (logged name, what it is measured on)
    ("Loss", "loss", (("loss", "training"), ("eval_loss", "held out"))),
    ("Accuracy", "fraction of pairs", (("accuracy", "training"), ("eval_accuracy", "held out"))),
    ("Accuracy", "fraction of pairs", (("rewards/accuracies", "training"), ("eval_rewards/accuracies", "held out"))),
    ("Margin", "score difference", (("margin", "training"), ("eval_margin", "held out"))),
    (
        "Margin",
        "difference of implied rewards",
        (("rewards/margins", "training"), ("eval_rewards/margins", "held out")),
    ),
    (
        "Token accuracy",
        "fraction of tokens",
        (("mean_token_accuracy", "training"), ("eval_mean_token_accuracy", "held out")),
    ),
)
_MEANINGS = {
    "loss/final": "training loss, last logged",
    "loss/held_out": "loss on held-out data",
    "accuracy/held_out": "accuracy on held-out pairs",
    "accuracy/standard_error": "standard error of the accuracy",
    "margin/held_out": "implied reward, chosen minus rejected, held out",
}
_APART = ("seconds/", "weights/", "pairs/", "prompts/", "rows")  # said elsewhere in the report


def supervised_section(run: Run) -> str:
    """The result of sft, reward or dpo in a table and in words, and curves over the steps."""
    arm = run.arms[0]
    rows = [
        [_MEANINGS.get(name, ""), code(name), f"{value:.4f}"]
        for name, value in sorted(arm.metrics.items())
        if not name.startswith(_APART)
    ]
    steps, losses = arm.series("loss")
    if losses:
        rows.insert(0, [f"training loss, first logged (step {number(steps[0])})", MISSING, f"{losses[0]:.4f}"])
    evaluated = arm.series("eval_accuracy")[1]
    accuracy = arm.metrics.get("accuracy/held_out", evaluated[-1] if evaluated else None)
    if accuracy is not None and not math.isfinite(accuracy):
        accuracy = None
    error, pairs = arm.metrics.get("accuracy/standard_error"), arm.metrics.get("pairs/held_out")
    if error is None and pairs and accuracy is not None:
        error = math.sqrt(accuracy * (1 - accuracy) / pairs)
    figure = learning_curves(run)
    if figure is not None:
        save(figure, run.folder, "learning_curves")
    return render(
        "supervised",
        rows=rows,
        unit=_loss_unit(run),
        accuracy=accuracy,
        error=error,
        pairs=pairs,
        above=(accuracy - 0.5) / error if accuracy is not None and error else None,
        curves=figure is not None,
    )


def learning_curves(run: Run) -> Figure | None:
    """Loss and accuracy over steps, on training data and on held-out data where logged; None where nothing was."""
    panels = []
    for title, unit, names in _PANELS:
        lines = [
            Line(kind, *run.arms[0].series(name), CLUSTER_COLOURS[index], ("-", "--")[index])
            for index, (name, kind) in enumerate(names)
            if name in run.arms[0].names()
        ]
        if lines:
            panels.append(
                Panel(title, f"{unit}, {_loss_unit(run)}" if title == "Loss" else unit, lines, _level(run, title))
            )
    return curves(panels) if panels else None


def _loss_unit(run: Run) -> str:
    return "nats per token" if run.recipe == "sft" else "nats per pair"


def _level(run: Run, title: str) -> tuple[float, str] | None:
    if run.recipe == "sft":
        return None
    return {"Loss": (math.log(2), "chance"), "Accuracy": (0.5, "chance")}.get(title)
