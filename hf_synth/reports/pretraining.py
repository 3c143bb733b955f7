"""The sections of a pretraining run: what was learned, how far from the exact floor, and how sure that is."""

from collections.abc import Mapping, Sequence

from hf_synth.metrics.intervals import Interval, share_interval
from hf_synth.reports.dynamics_figures import groups_figure, groups_of, learned_share, learning_figure
from hf_synth.reports.figures import save
from hf_synth.reports.headlines import in_order
from hf_synth.reports.language import language_sections
from hf_synth.reports.run import Run, one_token
from hf_synth.reports.stages import curriculum_sections, geometry_sections, transfer_sections
from hf_synth.reports.words import MISSING, escaped, number, percent, picture, spread, table
from hf_synth.tasks.families.knowledge_graph import KINDS

Metrics = Mapping[str, float]
ENOUGH_SEEDS = 8  # a claim about a way of training takes as many


def pretraining_sections(run: Run) -> list[str]:
    """Everything that the run measured, in the order in which a reader asks."""
    return [
        "## Result",
        result_table(run.metrics),
        *_verdict(run),
        *language_sections(run),
        *_curves(run),
        *_groups(run),
        *curriculum_sections(run),
        *transfer_sections(run),
        *geometry_sections(run),
    ]


def result_table(metrics: Metrics) -> str:
    """Loss, floor, excess and accuracies on the test rows, with intervals over those rows."""
    natural = _natural(metrics)
    held_out = "held-out natural text" if natural else "test rows"
    rows = [[f"loss on {held_out}, nats per token", _value(metrics, "loss/test"), MISSING]]
    if "floor/test" in metrics:
        rows += [
            ["floor, the least that any predictor can lose, nats per token", _value(metrics, "floor/test"), MISSING],
            ["excess, loss above the floor, nats per token", _value(metrics, "excess/test"), _bounds(excess(metrics))],
        ]
    if "excess/test_share" in metrics:
        rows.append(["excess as a share of the floor", percent(metrics["excess/test_share"]), MISSING])
    what = {"accuracy/test": "tokens foretold", "row_accuracy/test": "rows with all tokens foretold"}
    for name in list(what)[: 1 if one_token(*([metrics.get(name)] for name in what)) else 2]:
        if name in metrics:
            bounds = MISSING if natural else _bounds(share_of_rows(metrics, name))
            rows.append([f"{what[name]}, share", _value(metrics, name), bounds])
    return table(["measure", "value", "95 % over rows"], rows)


def _natural(metrics: Metrics) -> bool:
    """Whether the test rows are natural text."""
    return "tokens/canonical" in metrics and "floor/test" not in metrics


def excess(metrics: Metrics) -> Interval | None:
    """The loss above the floor with its interval over test rows."""
    names = ("excess/test", "excess/test_rows_low", "excess/test_rows_high")
    return Interval(*(metrics[name] for name in names)) if set(names) <= set(metrics) else None


def share_of_rows(metrics: Metrics, name: str) -> Interval | None:
    """A share with Wilson's interval over the test rows that it was taken from: all, or those of a group.

    Tokens of a row are no independent trials: a share of tokens gets the interval of one trial a row, the widest.
    """
    group = name.partition("/test/")[2]
    rows, share = metrics.get(f"rows/test/{group}" if group else "rows/test"), metrics.get(name)
    if not rows or share is None or not 0 <= share <= 1:
        return None
    return share_interval(share, round(rows))


def _value(metrics: Metrics, name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else MISSING


def _bounds(interval: Interval | None) -> str:
    return MISSING if interval is None else f"{interval.low:.4f} to {interval.high:.4f}"


def verdict(metrics: Metrics) -> list[str]:
    """How far from the floor, on what sort of rows, and what the intervals are over."""
    found = excess(metrics)
    if found is None:
        return [_NO_ROWS] if _natural(metrics) else []
    rows = number(metrics.get("rows/test"))
    text = f"The model loses {found.mean:.4f} nats per token more than the floor"
    text += f" (95 % interval over {rows} test rows: {found.low:.4f} to {found.high:.4f})."
    if found.low <= 0:
        text += " That interval holds 0: on these rows the model cannot be told from the best predictor."
    return [
        *(_held_out(metrics) or _seen(metrics)),
        text + " The floor is exact: the loss of a predictor that knows how the rows are made.",
        "The intervals are over test rows of this one model. They say how well its score is known, and nothing of "
        "how another seed would end. For tokens a row counts as one trial, which makes their interval a wide one.",
    ]


_NO_ROWS = (
    "No interval: the blocks of natural text follow one another in the same documents, and are no independent rows."
)


def _held_out(metrics: Metrics) -> list[str]:
    """Of facts, which share of the test rows was trained on, and how either sort was foretold."""
    facts = [name.removeprefix("rows/test/") for name in metrics if name.startswith("rows/test/")]
    if not set(facts) <= set(KINDS):
        return []
    parts = [[name for name in facts if name.startswith("id_") == trained] for trained in (True, False)]
    if not all(parts):
        return []
    (known, trained), (new, held_out) = (_of_groups(metrics, part) for part in parts)
    return [
        f"The table mixes facts that were trained on with others. Of the {number(known + new)} test rows, "
        f"{number(known)} are of the groups `id_...`, which training had: {trained}. The other {number(new)} are held "
        f"out: {held_out}."
    ]


def _seen(metrics: Metrics) -> list[str]:
    """How many of the test rows were trained on, where that was looked for."""
    if "seen/test" not in metrics:
        return []
    compared = f"the {number(metrics['rows/compared'])} training rows that were compared with them"
    if metrics["seen/test"] == 0:
        return [f"None of the test rows is among {compared}."]
    return [
        f"{percent(metrics['seen/test'])} of the test rows are among {compared}: two splits may have equal rows by "
        "chance, which `holdout: content` in `task_args` rules out for the tasks that have it."
    ]


def _of_groups(metrics: Metrics, groups: Sequence[str]) -> tuple[float, str]:
    """How many test rows groups have together, and in words how they were foretold."""
    rows = {name: metrics[f"rows/test/{name}"] for name in groups}
    total = sum(rows.values())
    share, loss = (
        sum(metrics[f"{key}/test/{name}"] * count for name, count in rows.items()) / total
        for key in ("row_accuracy", "loss")
    )
    return total, f"{percent(share)} of rows foretold, loss {loss:.4f} nats per token"


def _verdict(run: Run) -> list[str]:
    lines = verdict(run.metrics)
    if (learned := learned_share(run.arms[0])) is not None:
        step, share = learned
        gone = f"Of the excess on validation rows at step {number(step)}, {percent(share)} was gone at the end."
        worse = f"The excess on validation rows is higher than it was at step {number(step)}."
        lines.insert(len(lines) - 1, gone if share >= 0 else worse)
    found = ["\n".join(f"- {line}" for line in lines)] if lines else []
    return [*found, f"> {trial(run.config)}"]


def trial(config: Mapping[str, object], seeds: int = 1) -> str:
    """What may be concluded from so many seeds."""
    quick = "This was a quick run (`--quick`), which shows that all works. " if config.get("quick") else ""
    if seeds == 1:
        return (
            f"{quick}One seed is a trial: it says what this model does, not what this way of training does. "
            f"Run it with `--seeds` and {ENOUGH_SEEDS} values before believing a difference."
        )
    if seeds < ENOUGH_SEEDS:
        return f"{quick}{seeds} seeds are a trial: they show that it runs. A claim takes at least {ENOUGH_SEEDS}."
    return f"{quick}The intervals are over {seeds} training seeds."


def _curves(run: Run) -> list[str]:
    if (figure := learning_figure(run)) is None:
        return []
    save(figure, run.folder, "learning_curves")
    return [
        "## Over the steps",
        _curves_words(run.config),
        picture("learning_curves", "loss and accuracy over training steps"),
    ]


def _curves_words(config: Mapping[str, object]) -> str:
    """What the two sets of the curves are."""
    train = "Training rows are the first rows of the training set"
    if config.get("curriculum_field"):
        train += " at the curriculum's last stage, whatever stage is trained on"
    validation = "validation rows are of another split"
    if config.get("task") == "analogy":
        validation = "validation rows are all facts of the graph, those of the groups `id_...` trained on"
    if config.get("canonical"):
        validation = "validation rows are natural text that is never trained on"
    return f"{train}; {validation}. `dynamics.csv` has the numbers."


_OF_FACTS = {"perplexity": "perplexity", "probability": "P of the right token"}


def _groups(run: Run) -> list[str]:
    metrics = run.metrics
    names = in_order(name.removeprefix("loss/test/") for name in metrics if name.startswith("loss/test/"))
    if not names:
        return []
    more = {key: words for key, words in _OF_FACTS.items() if f"{key}/test/{names[0]}" in metrics}
    rows = [
        [
            escaped(name),
            number(metrics.get(f"rows/test/{name}")),
            _value(metrics, f"loss/test/{name}"),
            *(number(metrics.get(f"{key}/test/{name}")) for key in more),
            spread(share_of_rows(metrics, f"row_accuracy/test/{name}"), metrics.get(f"row_accuracy/test/{name}")),
        ]
        for name in names
    ]
    found = [
        "## By group of rows",
        table(["group", "test rows", "loss, nats per token", *more.values(), "rows foretold, share [95 %]"], rows),
    ]
    if groups_of(run.arms[0]) and (figure := groups_figure(run)) is not None:
        save(figure, run.folder, "groups_over_steps")
        found.append(picture("groups_over_steps", "accuracy and loss of each group of rows over training steps"))
    return found
