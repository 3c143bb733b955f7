"""The section on sampling weights: which prompts are drawn how often."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from hf_synth.reports.figures import CLUSTER_COLOURS, STYLE, blank, label, save
from hf_synth.reports.grpo import arm_styles
from hf_synth.reports.page import render
from hf_synth.reports.read import Prompts, Run
from hf_synth.reports.tables import escaped, number, percent, table

_EXAMPLES = 5
_CHANGING = ("strength_schedule", "density_refresh")


def weights_section(run: Run, *, quote_texts: bool = True) -> str:
    """Tables and figures of the weights; empty where the run has no table of them.

    quote_texts: whether the prompts of the lowest and of the highest density are quoted.
    """
    prompts = run.main.prompts
    if prompts is None or not len(prompts.text):
        return ""
    if len(run.sizes) > 1:
        save(weight_against_frequency(run), run.folder, "weight_against_frequency")
    save(density_histogram(run), run.folder, "density_histogram")
    save(prompt_map(prompts), run.folder, "prompt_map")
    changing = [name for name in _CHANGING if run.config.get(name) not in (None, "constant")]
    return render(
        "weights",
        run=run,
        changing=changing if changing or {"pass_rate", "curriculum"} & set(run.kinds) else None,
        facts=_facts(run),
        clusters=_clusters(run) if len(run.sizes) > 1 else "",
        colour="density" if prompts.uniform else "weight",
        examples=_examples(prompts) if quote_texts and not run.sizes else {},
    )


def _facts(run: Run) -> str:
    rows = []
    for arm in run.arms:
        metric = arm.metrics.get
        share = metric("weights/effective_share")
        size = number(metric("weights/effective_sample_size")) + (f" ({percent(share)})" if share is not None else "")
        names = ("weights/intrinsic_dimension", "weights/smallest", "weights/largest")
        rows.append([arm.label, size, *(number(metric(name)) for name in names)])
    header = ["arm", "effective sample size", "intrinsic dimension", "smallest weight", "largest weight"]
    return table(header, rows)


def _clusters(run: Run) -> str:
    """Each cluster's size, mean weight and fraction of the draws."""
    weighted = [arm for arm in run.weighted if arm.prompts is not None] or [run.arms[0]]
    header = ["cluster", "prompts", "fraction of prompts"]
    for arm in weighted:
        of_arm = f", {arm.label}" if len(weighted) > 1 else ""
        header += [f"mean weight{of_arm}", f"fraction of draws{of_arm}"]
    total = sum(run.sizes.values())
    rows = []
    for cluster, size in run.sizes.items():
        cells = [escaped(cluster, 60), number(size), percent(size / total)]
        for arm in weighted:
            mean, mass = cluster_weight(arm, cluster)
            cells += [f"{mean:.3f}", percent(mass)]
        rows.append(cells)
    return table(header, rows)


def cluster_weight(arm: Run, cluster: str) -> tuple[float, float]:
    """The mean weight of a cluster's prompts, and its fraction of the draws."""
    prompts = arm.prompts
    assert prompts is not None
    assert prompts.cluster is not None
    members = prompts.weight[prompts.cluster == cluster]
    return float(members.mean()), float(members.sum() / prompts.weight.sum())


def _examples(prompts: Prompts) -> dict[str, list[list[str]]]:
    """The prompts of the lowest and of the highest density, each text once, as rows of a table by its title."""
    order = np.argsort(prompts.density, kind="stable")
    tables = {}
    for title, rows in (("Prompts of the lowest density", order), ("Prompts of the highest density", order[::-1])):
        chosen: dict[str, int] = {}
        for row in rows.tolist():
            chosen.setdefault(prompts.text[row], row)
            if len(chosen) == _EXAMPLES:
                break
        tables[title] = [
            [escaped(text), number(prompts.density[row]), number(prompts.weight[row])] for text, row in chosen.items()
        ]
    return tables


_MOST_CLUSTERS = 6
_MOST_POINTS = 40_000
_MARKERS = "osD^"
# Plasma without its pale yellow: the rare prompts are few and must show on white.
_COLOURS = ListedColormap(matplotlib.colormaps["plasma"](np.linspace(0, 0.86, 256)))
_BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}


@matplotlib.rc_context(STYLE)
def weight_against_frequency(run: Run) -> Figure:
    """Mean weight of each cluster against its share of the prompts, both axes logarithmic, with perfect balance."""
    figure, (ax,) = blank(3.5)
    total, count = sum(run.sizes.values()), len(run.sizes)
    shares = np.array([size / total for size in run.sizes.values()])
    ends = np.array([shares.min() / 1.4, min(1.0, shares.max() * 1.4)])
    ax.plot(ends, 1 / (count * ends), color="#222222", linewidth=1.2, label="perfect balance: weight ~ 1 / share")
    ax.axhline(1, color="#777777", linewidth=1.2, linestyle="--", label="no weights: all prompts equal")
    arms = [arm for arm in run.weighted if arm.prompts is not None] or [run.arms[0]]
    for index, arm in enumerate(arms):
        means = [float(arm.prompts.weight[arm.prompts.cluster == name].mean()) for name in run.sizes if arm.prompts]
        ax.plot(shares, means, _MARKERS[index % 4], color=arm_styles(run)[arm.label][1], markersize=6, label=arm.label)
        if index == 0:
            _name_points(ax, list(run.sizes), shares, means)
    ax.set_xscale("log")
    ax.set_yscale("log")
    _plain_logs(ax, percent_x=True)
    ax.margins(x=0.1, y=0.15)
    ax.set_xlim(right=1.05)
    ax.set_xlabel("prompts in the cluster (% of all prompts)")
    ax.set_ylabel("mean weight (1 = average)")
    ax.legend()
    return figure


def _name_points(ax: Axes, names: list[str], x: np.ndarray, y: list[float]) -> None:
    """Names beside the points: all of a few, and of many the largest and the smallest."""
    chosen = range(len(names)) if len(names) <= _MOST_CLUSTERS else (0, len(names) - 1)
    for index in chosen:
        above = x[index] * y[index] * len(names) > 1  # the name goes to the side that is away from the line
        ax.annotate(label(names[index], 18), (x[index], y[index]), xytext=(7, 4) if above else (-7, -10),
                    ha="left" if above else "right", textcoords="offset points", fontsize=8,
                    bbox=_BEHIND_TEXT)  # fmt: skip


def _plain_logs(ax: Axes, percent_x: bool = False) -> None:
    """Numbers instead of powers of ten, at 1, 2 and 5 of each decade."""
    for axis, factor in ((ax.xaxis, 100 if percent_x else 1), (ax.yaxis, 1)):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _, factor=factor: f"{value * factor:g}"))
        axis.set_minor_locator(NullLocator())


@matplotlib.rc_context(STYLE)
def density_histogram(run: Run) -> Figure:
    """How many prompts have which density; with a few clusters each in its own colour, as shares of the cluster."""
    prompts = run.main.prompts
    assert prompts is not None
    figure, (ax,) = blank(2.9)
    bins = _log_bins(prompts.density)
    clusters = list(run.sizes) if 1 < len(run.sizes) <= _MOST_CLUSTERS else []
    for index, name in enumerate(clusters):
        members = prompts.density[prompts.cluster == name]
        shares, edges = np.histogram(members, bins, weights=np.full(len(members), 100 / len(members)))
        ax.stairs(shares, edges, fill=True, alpha=0.18, color=CLUSTER_COLOURS[index])
        text = f"{label(name)} ({len(members):,})"
        ax.stairs(shares, edges, linewidth=1.6, color=CLUSTER_COLOURS[index], label=text)
    if clusters:
        ax.legend(title="cluster (prompts)")
    else:
        ax.stairs(*np.histogram(prompts.density, bins), fill=True, color=CLUSTER_COLOURS[0])
    ax.set_xscale("log")
    ax.set_xlabel(f"density ({_unit(run)}; right = more similar prompts near)")
    ax.set_ylabel("prompts (% of the cluster)" if clusters else "prompts")
    return figure


def _unit(run: Run) -> str:
    estimator = run.config.get("density_estimator", "volume")
    return "prompts per unit of volume" if estimator == "volume" else "1 / mean distance to neighbours"


def _log_bins(density: np.ndarray) -> np.ndarray:
    low, high = float(density.min()), float(density.max())
    if high <= low * 1.001:
        low, high = low / 2, high * 2
    return np.geomspace(low, high, 41)


@matplotlib.rc_context(STYLE)
def prompt_map(prompts: Prompts) -> Figure:
    """Prompts by the first two principal components, coloured by weight, or by density where all weigh the same."""
    figure, (ax,) = blank(4.2)
    values = prompts.density if prompts.uniform else prompts.weight
    name = "density (larger = more similar prompts near)" if prompts.uniform else "weight (1 = average)"
    rows = _shown_rows(values)
    low, high = float(values.min()), float(values.max())
    norm = LogNorm(low, high) if high > low * 1.001 else LogNorm(low / 2, high * 2)
    size = float(np.clip(16000 / max(1, len(rows)), 3, 28))
    x, y = prompts.place[rows].T
    points = ax.scatter(x, y, c=values[rows], norm=norm, cmap=_COLOURS, s=size, linewidths=0)
    bar = figure.colorbar(points, ax=ax, label=name)
    if not prompts.uniform:
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.ax.yaxis.set_minor_locator(NullLocator())
    _name_clusters(ax, prompts)
    if len(rows) < len(values):
        ax.set_title(f"{len(rows):,} of {len(values):,} prompts", loc="left")
    ax.set_xlabel("first principal component (no unit)")
    ax.set_ylabel("second principal component (no unit)")
    return figure


def _name_clusters(ax: Axes, prompts: Prompts) -> None:
    """Names of a few clusters, each at the median place of its prompts."""
    names = list(prompts.sizes())
    for name in names if 1 < len(names) <= _MOST_CLUSTERS else []:
        x, y = np.median(prompts.place[prompts.cluster == name], axis=0)
        ax.annotate(label(name, 18), (x, y), ha="center", va="center", fontsize=8, bbox=_BEHIND_TEXT)


def _shown_rows(values: np.ndarray) -> np.ndarray:
    """Rows to draw, evenly taken where there are very many; the rare ones last, on top."""
    rows = np.arange(0, len(values), -(-len(values) // _MOST_POINTS))
    return rows[np.argsort(values[rows], kind="stable")]
