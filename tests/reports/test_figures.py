"""Every axis says what it shows, and names of clusters cannot break a figure."""

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from hf_synth.reports.figures import label, save
from hf_synth.reports.grpo import head_against_tail, score_over_steps, shown_groups, training_over_steps
from hf_synth.reports.read import Prompts, read_run
from hf_synth.reports.report import learning_curves
from hf_synth.reports.sampling_weights import density_histogram, prompt_map, weight_against_frequency


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
    for draw in (score_over_steps, training_over_steps, head_against_tail, density_histogram):
        assert_labelled(draw(run))
    assert run.main.prompts is not None
    assert_labelled(prompt_map(run.main.prompts))


def test_all_axes_of_the_others_are_labelled(reward_run: Path, sft_run: Path, grpo_run: Path) -> None:
    for folder in (reward_run, sft_run):
        assert_labelled(learning_curves(read_run(folder)))
    assert_labelled(weight_against_frequency(read_run(grpo_run)))


def test_arms_by_line_style_and_clusters_by_colour(grpo_run: Path) -> None:
    overall, *clusters = score_over_steps(read_run(grpo_run)).axes
    assert [line.get_linestyle() for line in overall.lines] == ["-", ":", "--"]
    assert len({ax.lines[0].get_color() for ax in clusters}) == len(clusters) == 4
    assert list(overall.lines[2].get_ydata()) == [0.125, 0.34375]


def test_balance_is_where_every_cluster_gets_the_same(grpo_run: Path) -> None:
    (ax,) = weight_against_frequency(read_run(grpo_run)).axes
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
    figure = prompt_map(Prompts(["a"] * count, None, ones, ones, np.zeros((count, 2))))
    assert_labelled(figure)


def test_no_state_of_pyplot_is_touched(tmp_path: Path, made_up: ModuleType) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    made_up.write_grpo(tmp_path, {1.0: [0.5] * 4})
    save(score_over_steps(read_run(tmp_path)), tmp_path, "score")
    assert dict(matplotlib.rcParams) == before
