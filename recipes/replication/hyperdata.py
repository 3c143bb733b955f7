"""Hyperdata: do explanations among examples help a language to be learned?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hf_synth.metrics.intervals import mean_interval
from hf_synth.reports.figures import COLOURS, STYLE, blank, save
from hf_synth.reports.tables import MISSING, table
from replication.claims import (
    Claim,
    mean_claim,
    over_units,
    sample_size_note,
    seed_by_seed,
    share_over_units,
)
from replication.records import Record, by_arm

_MEASURES = {
    "language/validity": "validity of samples",
    "language/valid_and_new": "valid and not in training",
    "language/perplexity/ratio": "perplexity ratio",
    "language/auroc/same_length": "AUROC at equal length",
    "language/completion": "completion tests passed",
    "loss/test": "loss on natural text",
}
_PUBLISHED = {"examples": "0.323", "explanations-1": "0.341", "explanations-10": "0.294", "explanations-100": "0"}


def hyperdata_section(records: Sequence[Record], config: Mapping[str, Any], folder: Path) -> list[str | list[Claim]]:
    """Show all arms in one table and one figure, and each against examples alone, seed by seed."""
    arms = by_arm(records)
    rows = [[arm, *(_cell(runs, name) for name in _MEASURES), _PUBLISHED.get(arm, "-")] for arm, runs in arms.items()]
    alone = {name: _by_seed(arms["examples"], name) for name in _MEASURES}
    gains = [[arm, *(over_units(seed_by_seed(_by_seed(runs, name), alone[name])) for name in _MEASURES)]
             for arm, runs in arms.items() if arm != "examples"]  # fmt: skip
    save(_figure(arms), folder, "hyperdata")
    return [
        f"**In short.** Of the samples of `{rows[0][0]}`, a fraction of {rows[0][1]} is valid; {rows[0][2]} is valid "
        "and no string of the training data. More explanations leave an arm fewer examples: they take their place.",
        sample_size_note([*map(len, arms.values())]),
        table(["arm", *_MEASURES.values(), "published validity (one seed)"], rows),
        "- A sample is valid if all of it is in the language.\n"
        "- Perplexity ratio: strings with a violation over valid ones; 1 if the model does not separate the two.\n"
        "- AUROC: how often a valid string is likelier per token than an invalid one of its length; 0.5 by chance.\n"
        "- A completion test is passed if the valid next words together are more likely than the invalid ones. Its "
        "chance level is not known; compare with `explanations-100`, which has seen no example.\n"
        "- Loss is in nats per token; lower is better. For all other columns, higher is better.",
        "Difference from examples alone, paired by seed:",
        table(["arm", *_MEASURES.values()], gains),
        _claims(arms),
        "![Validity and perplexity ratio by arm: dots are seeds, diamonds means with 95 % intervals]("
        "reproduction/figures/hyperdata.png)",
    ]


def _cell(runs: Sequence[Record], name: str) -> str:
    values = [run.metrics[name] for run in runs if name in run.metrics]
    if not values:
        return MISSING
    return over_units(values) if name in ("language/perplexity/ratio", "loss/test") else share_over_units(values, 3)


def _by_seed(runs: Sequence[Record], name: str) -> dict[int, float]:
    return {run.seed: run.metrics[name] for run in runs if name in run.metrics}


def _claims(arms: Mapping[str, Sequence[Record]]) -> list[Claim]:
    """Return what was published on the validity of samples."""
    validity = {arm: _by_seed(arms.get(arm, []), "language/validity") for arm in _PUBLISHED}
    invalid = [1 - share for share in validity["explanations-100"].values()]
    claimed = []
    if invalid:
        shows = "fraction of samples that are not valid, above 0.99"
        claimed = [mean_claim("explanations alone give no valid text", shows, invalid, bar=0.99)]
    for claim, first, second in (
        ("10 % explanations lie below examples alone", "examples", "explanations-10"),
        ("1 % explanations lie above examples alone", "explanations-1", "examples"),
        ("1 % explanations lie above 10 %", "explanations-1", "explanations-10"),
    ):
        shows = f"validity, {first} minus {second}"
        claimed.append(mean_claim(claim, shows, seed_by_seed(validity[first], validity[second])))
    return claimed


@matplotlib.rc_context(STYLE)
def _figure(arms: Mapping[str, Sequence[Record]]) -> Figure:
    """Draw each run as a dot, and each arm's mean with its interval beside them."""
    shown = ("language/validity", "language/perplexity/ratio")
    figure, axes = blank(2.6, 1, len(shown))
    for name, ax in zip(shown, axes, strict=True):
        for position, (runs, colour) in enumerate(zip(arms.values(), COLOURS, strict=False)):
            values = [run.metrics[name] for run in runs]
            interval = mean_interval(values)
            jitter = np.linspace(-0.12, 0.12, len(values))
            ax.plot(position + jitter, values, "o", color=colour, markersize=3, alpha=0.5)
            reach = np.nan_to_num([[interval.mean - interval.low], [interval.high - interval.mean]])  # NaN of one run
            ax.errorbar([position + 0.25], [interval.mean], yerr=reach, fmt="D", color=colour, markersize=5, capsize=3)
        ax.set_xticks(range(len(arms)), list(arms), rotation=20)
        ax.set_title(_MEASURES[name], loc="left")
    return figure
