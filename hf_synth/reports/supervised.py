"""The sections of a run that learns from given answers: its numbers, and loss and accuracy over steps."""

import math

from matplotlib.figure import Figure

from hf_synth.reports.figures import CLUSTER_COLOURS, Line, Panel, curves, save
from hf_synth.reports.run import Run
from hf_synth.reports.words import MISSING, code, number, picture, score, table

_PANELS = (  # title, label with unit, (logged name, what it is measured on)
    ("Loss", "loss", (("loss", "training"), ("eval_loss", "held out"))),
    ("Accuracy", "share of pairs", (("accuracy", "training"), ("eval_accuracy", "held out"))),
    ("Accuracy", "share of pairs", (("rewards/accuracies", "training"), ("eval_rewards/accuracies", "held out"))),
    ("Margin", "score difference", (("margin", "training"), ("eval_margin", "held out"))),
    (
        "Margin",
        "difference of implied rewards",
        (("rewards/margins", "training"), ("eval_rewards/margins", "held out")),
    ),
    (
        "Token accuracy",
        "share of tokens",
        (("mean_token_accuracy", "training"), ("eval_mean_token_accuracy", "held out")),
    ),
)
_MEANINGS = {
    "loss/final": "training loss, last logged",
    "loss/held_out": "loss on held-out data",
    "accuracy/held_out": "held-out pairs ordered rightly",
    "accuracy/standard_error": "standard error of that share",
    "margin/held_out": "implied reward of chosen less rejected, held out",
}
_APART = ("seconds/", "weights/", "pairs/", "prompts/", "rows")  # said elsewhere in the report


def learning_sections(run: Run) -> list[str]:
    """The result in a table and in words, and curves over the steps."""
    found = ["## Result", *_table(run), *_accuracy(run)]
    if (figure := learning_curves(run)) is not None:
        save(figure, run.folder, "learning_curves")
        found += ["## Over the steps", picture("learning_curves", "loss and other quantities over training steps")]
    return found


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
    return {"Loss": (math.log(2), "a coin"), "Accuracy": (0.5, "a coin")}.get(title)


def _table(run: Run) -> list[str]:
    rows = [
        [_MEANINGS.get(name, ""), code(name), f"{value:.4f}"]
        for name, value in sorted(run.arms[0].metrics.items())
        if not name.startswith(_APART)
    ]
    steps, losses = run.arms[0].series("loss")
    if losses:
        rows.insert(0, [f"training loss, first logged (step {number(steps[0])})", MISSING, f"{losses[0]:.4f}"])
    if not rows:
        return ["The run left no numbers."]
    return [table(["what", "name in metrics.json", f"value ({_loss_unit(run)} where a loss)"], rows, text_columns=2)]


def _accuracy(run: Run) -> list[str]:
    metrics = run.arms[0].metrics
    accuracy = metrics.get("accuracy/held_out")
    if accuracy is None:
        values = run.arms[0].series("eval_accuracy")[1]
        accuracy = values[-1] if values else None
    if accuracy is None or not math.isfinite(accuracy):
        return []
    error, count = metrics.get("accuracy/standard_error"), metrics.get("pairs/held_out")
    if error is None and count:
        error = math.sqrt(accuracy * (1 - accuracy) / count)
    on = f" of {number(count)} held-out pairs" if count else " of held-out pairs"
    text = f"The model orders {score(accuracy, error)}{on} rightly."
    if error:
        above = (accuracy - 0.5) / error
        chance = f"{abs(above):.1f} standard errors {'above' if above > 0 else 'below'} a coin's 0.5"
        text += f" That is {chance}." + ("" if above >= 2 else " It has not been shown to be better than a coin.")
    return [text, "> One seed is one seed: to compare two such models, train each with several seeds."]
