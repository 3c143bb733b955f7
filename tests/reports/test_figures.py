"""Every axis says what it shows, and names of clusters cannot break a figure."""

import itertools
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_synth.reports.figures import (
    Line,
    Panel,
    arm_style,
    curves,
    density_histogram,
    grouped_bars,
    label,
    prompt_map,
    save,
    weight_against_frequency,
)
from hf_synth.reports.read import read_run
from hf_synth.reports.report import (
    head_against_tail,
    learning_curves,
    score_over_steps,
    shown_groups,
    training_over_steps,
)


def assert_labelled(figure: Figure | None) -> None:
    assert figure is not None
    for ax in figure.axes:
        if ax.get_label() != "<colorbar>":
            assert ax.get_xlabel(), "an axis without a label"
        assert ax.get_ylabel(), "an axis without a label"


def test_an_arm_of_strength_0_that_weighs_by_another_kind_too_is_drawn(natural_run: Path, tmp_path: Path) -> None:
    shutil.copytree(natural_run, tmp_path / "run")
    for path in (tmp_path / "run").rglob("resolved_config.yaml"):
        config = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**config, "sampling_by": ["density", "pass_rate"]}))
    run = read_run(tmp_path / "run")
    assert [arm.label for arm in run.arms][1] == "weights by density and pass_rate, strength 0"
    for draw in (score_over_steps, training_over_steps, head_against_tail):
        assert_labelled(draw(run))


@pytest.mark.parametrize("name", ["grpo_run", "natural_run"])
def test_all_axes_of_grpo_are_labelled(name: str, request: pytest.FixtureRequest) -> None:
    run = read_run(request.getfixturevalue(name))
    for draw in (score_over_steps, training_over_steps, head_against_tail):
        assert_labelled(draw(run))
    prompts = (run.weighted or run.arms)[0].prompts
    assert prompts is not None
    assert_labelled(density_histogram(prompts["density"], {}, "unit"))
    position, weights = prompts[["x", "y"]].to_numpy(), prompts["sampling_weight"].to_numpy()
    assert_labelled(prompt_map(position, weights, "weight", prompts.get("cluster")))


def test_all_axes_of_the_others_are_labelled(reward_run: Path, sft_run: Path, grpo_run: Path) -> None:
    for folder in (reward_run, sft_run):
        assert_labelled(learning_curves(read_run(folder)))


def test_arms_differ_in_colour_or_style_however_many(grpo_run: Path) -> None:
    overall, *clusters = score_over_steps(read_run(grpo_run)).axes
    assert len(clusters) == 4
    assert list(overall.lines[2].get_ydata()) == [0.125, 0.34375]
    assert len({arm_style(index) for index in range(12)}) == 12


def test_balance_is_where_every_cluster_gets_the_same(made_up: ModuleType) -> None:
    (ax,) = weight_against_frequency(made_up.SIZES, [("arm", "black", [0.5, 1, 2, 4])]).axes
    balance = next(line for line in ax.lines if "perfect balance" in str(line.get_label()))
    assert np.asarray(balance.get_xdata()) * np.asarray(balance.get_ydata()) == pytest.approx(1 / 4)


def test_of_many_groups_the_ends_are_shown(grpo_run: Path) -> None:
    run = read_run(grpo_run)
    assert shown_groups(run) == ["plain", "second", "odd_one", "rarest"]
    assert shown_groups(run, most=2) == ["plain", "rarest"]


def test_names_are_no_mathematics_and_not_hidden(tmp_path: Path) -> None:
    assert label("_a $x_") == r" _a \$x_"
    assert label("a\nb" * 20).endswith("…")
    figure = Figure()
    figure.text(0.5, 0.5, label("$\\frac{"))
    save(figure, tmp_path, "name")


@pytest.mark.parametrize("count", [1, 3])
def test_equal_densities_and_places(count: int) -> None:
    ones = np.ones(count)
    assert_labelled(prompt_map(np.zeros((count, 2)), ones, "weight", None))
    assert_labelled(density_histogram(ones, {}, "unit"))


@pytest.mark.parametrize(
    ("heights", "texts"),
    [
        ([-0.8721, -0.8715], ["-0.87210", "-0.87150"]),
        ([0.25, 0.5], ["0.25", "0.50"]),
        ([0.5, 0.5], ["0.50", "0.50"]),
        ([0.5, np.nan], ["0.50", ""]),
    ],
)
def test_bars_that_differ_are_labelled_differently(heights: list[float], texts: list[str]) -> None:
    figure = grouped_bars(["all"], [("arm", "red", [height], [np.nan]) for height in heights])
    assert [text.get_text() for text in figure.axes[0].texts] == texts


def test_no_title_is_clipped_and_no_tick_has_an_offset() -> None:
    """Long titles over three columns, small differences around a large mean."""
    line = Line("a", [0, 1, 2], [1e5 + 1e-3, 1e5 + 2e-3, 1e5 + 3e-3])
    figure = curves([Panel("Exact-match accuracy of everything there is", "nats", [line])] * 3)
    figure.canvas.draw()
    for ax in figure.axes:
        assert ax.yaxis.get_offset_text().get_text() == ""
        assert ax.title.get_window_extent().x1 <= figure.bbox.x1
        assert ax._left_title.get_window_extent().x1 <= figure.bbox.x1


def test_no_state_of_pyplot_is_touched(tmp_path: Path, made_up: ModuleType) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    made_up.write_grpo(tmp_path, {1.0: [0.5] * 4})
    save(score_over_steps(read_run(tmp_path)), tmp_path, "score")
    assert dict(matplotlib.rcParams) == before


def ticks(ax: Axes) -> list[str]:
    """The texts below an axis that are within what it shows."""
    low, high = ax.get_xlim()
    return [text.get_text() for text in ax.get_xticklabels() if low <= text.get_position()[0] <= high]


def test_what_was_logged_once_is_said_to_be_and_each_dot_is_seen() -> None:
    once = [Line(name, [150], [1.25], colour) for name, colour in (("training", "red"), ("validation", "blue"))]
    (ax,) = curves([Panel("Loss", "nats", once)]).axes
    assert ax.get_xlabel() == "training step\n(logged once)"
    assert ticks(ax) == ["150"]
    first, second = ax.lines
    assert first.get_marker() == second.get_marker() == "o"
    assert first.get_markersize() > second.get_markersize() + 1, "the second lies on the first"
    (several,) = curves([Panel("Loss", "nats", [Line("a", [100, 150], [1.0, 2.0])])]).axes
    assert several.get_xlabel() == "training step"
    (still,) = curves([Panel("Reward", "mean", [Line("a", [0.0, 0.0], [1.0, 2.0])], x_label="KL")]).axes
    assert still.get_xlabel() == "KL", "twice, of a policy that has not moved"
    assert several.lines[0].get_marker() == "None"


@pytest.mark.parametrize(
    ("steps", "columns", "shown"),
    [
        (range(0, 201, 10), 1, ["0", "50", "100", "150", "200"]),
        (range(10, 201, 10), 3, ["100", "200"]),
        (range(1, 33), 1, ["10", "20", "32"]),
        (range(0, 501, 20), 1, ["0", "200", "400", "500"]),
        ([8, 10, 12, 16, 64, 256], 1, ["16", "64", "256"]),
        ([8, 16, 24, 32], 2, ["8", "16", "24", "32"]),
        ([*range(47, 2304, 47), 2330], 3, ["1000", "2330"]),
        (range(2_000, 126_001, 2_000), 3, ["50000", "126000"]),
        (range(2_000, 118_001, 2_000), 2, ["50000", "118000"]),
    ],
)
def test_ticks_end_where_the_run_ends_and_have_room(steps: range, columns: int, shown: list[str]) -> None:
    line = Line("a", list(steps), [float(step) for step in steps])
    figure = curves([Panel("Loss", "nats", [line])] * columns)
    figure.canvas.draw()
    for ax in figure.axes:
        assert sorted(ticks(ax), key=int) == shown
        boxes = sorted((text.get_window_extent() for text in ax.get_xticklabels()), key=lambda box: box.x0)
        assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


@pytest.mark.parametrize(("largest", "has_exponents"), [(1.9e-6, True), (0.02, False), (3e9, True)])
def test_very_small_and_very_large_numbers_have_exponents(largest: float, has_exponents: bool) -> None:
    values = [0.0, largest / 2, largest]
    figure = curves([Panel("KL", "nats", [Line("a", values, values)], x_label="KL")])
    figure.canvas.draw()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        texts = [text.get_text() for text in axis.get_ticklabels()]
        assert any("e" in text for text in texts) == has_exponents
        assert max(map(len, texts)) <= 8


def test_names_on_the_map_of_prompts_cover_no_prompt() -> None:
    """Four clusters with room between them; by their centres, names would cover some of each."""
    random = np.random.default_rng(0)
    centres = np.array([[-0.3, 0.0], [0.5, 0.2], [0.3, -0.6], [0.25, -0.2]])
    cluster = np.repeat([f"dialect_{number}" for number in range(4)], 50)
    position = np.repeat(centres, 50, axis=0) + 0.03 * random.normal(size=(200, 2))
    figure = prompt_map(position, random.uniform(1, 9, 200), "weight", cluster)
    figure.canvas.draw()
    ax = figure.axes[0]
    names = [text for text in ax.texts if text.get_visible()]
    assert sorted(text.get_text().strip() for text in names) == sorted(set(cluster))
    dots = ax.transData.transform(position)
    assert not any(text.get_window_extent().count_contains(dots) for text in names)
    boxes = [text.get_window_extent() for text in names]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 for box in boxes)
