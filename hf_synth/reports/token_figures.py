"""How often each token comes: what a task's rows are made of, at a glance."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_synth.reports.figures import ARM_COLOURS, CONTROL_COLOUR, STYLE, blank, label
from hf_synth.tasks import Rows, Task
from hf_synth.tasks.base import FIRST_CONTENT

_NAMED_TOKENS = 24  # more names than these cannot be read under an axis


def token_counts(task: Task, rows: Rows) -> np.ndarray:
    """How often each content token stands in the rows, int64 [vocabulary]."""
    present = np.arange(rows.tokens.shape[1]) < rows.lengths[:, None]
    counts = np.bincount(rows.tokens[present], minlength=FIRST_CONTENT + len(task.vocabulary()))
    return counts[FIRST_CONTENT:]


def entropy(counts: np.ndarray) -> float:
    """Of the tokens taken one by one, in nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum() + 0.0)


@matplotlib.rc_context(STYLE)
def token_distribution(task: Task, rows: Rows, called: str) -> Figure:
    """Shares of the tokens beside what equal shares would be; of a large vocabulary by rank as well.

    called: the task, its preset and whatever else the title should tell.
    """
    counts = token_counts(task, rows)
    named = len(counts) <= _NAMED_TOKENS
    figure, axes = blank(2.9, 1, 1 if named else 2)
    _by_id(axes[0], counts / counts.sum(), [label(word) for word in task.vocabulary()] if named else [])
    if not named:
        _by_rank(axes[1], counts / counts.sum())
    spread = f"entropy {entropy(counts):.2f} of {np.log(len(counts)):.2f} nats"
    title = f"{len(rows):,} rows of {label(called, 60)}: {spread}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=STYLE["axes.titlesize"])
    return figure


def _by_id(ax: Axes, shares: np.ndarray, names: list[str]) -> None:
    ids = np.arange(len(shares))
    ax.bar(ids, shares, width=0.7 if names else 1.0, color=ARM_COLOURS[0])
    ax.axhline(1 / len(shares), color=CONTROL_COLOUR, linestyle="--", linewidth=1)
    ax.set_ylim(top=1.18 * shares.max())
    ax.annotate("dashed: all equally often", (1, 1), xycoords="axes fraction", ha="right", va="top", fontsize=8,
                color=CONTROL_COLOUR)  # fmt: skip
    ax.set(xlabel="" if names else "token, in the vocabulary's order", ylabel="share of tokens")
    if names:
        ax.set_xticks(ids, names, rotation=90)


def _by_rank(ax: Axes, shares: np.ndarray) -> None:
    ranks = 1 + np.arange(len(shares))
    ax.plot(ranks, np.sort(shares)[::-1], color=ARM_COLOURS[0], linewidth=1.6, label="tokens by rank")
    ax.axhline(1 / len(shares), color=CONTROL_COLOUR, linestyle="--", linewidth=1, label="all equally often")
    ax.set(xlabel="rank", ylabel="share of tokens", xscale="log", yscale="log")
    ax.set_ylim(shares[shares > 0].min() / 3, shares.max() * 3)
    ax.legend(loc="lower left")
