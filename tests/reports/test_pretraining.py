"""Reports of pretraining runs: the numbers of the files, intervals over what they say, and every part there is."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

from hf_synth.metrics.intervals import mean_interval, wilson_interval
from hf_synth.reports import write_report
from hf_synth.reports.arms import arms_figure
from hf_synth.reports.figures import legend_columns, limit_shares
from hf_synth.reports.pretraining import (
    curriculum_figure,
    floor_level,
    geometry_figure,
    groups_figure,
    learning_figure,
    stages,
    verdict,
)
from hf_synth.reports.read import read_comparison, read_run
from hf_synth.reports.tables import settings_yaml


def report(folder: Path) -> str:
    write_report(folder)
    return (folder / "report.md").read_text(encoding="utf-8")


def row(text: str, first: str) -> list[str]:
    """The cells after the first of the table row that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first}"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.fixture
def single(tmp_path, made_up):
    made_up.write_pretraining(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.usefixtures("unpainted")
def test_the_result_says_how_far_and_how_sure(single):
    text = report(single)
    assert row(text, "loss on test rows") == ["1.2500", "-"]
    assert row(text, "floor") == ["1.0000", "-"]
    assert row(text, "excess (") == ["0.2500", "0.1250 to 0.3750"]
    wilson = wilson_interval(50, 100)
    assert row(text, "exact-match accuracy |") == ["0.5000", f"{wilson.low:.4f} to {wilson.high:.4f}"]
    assert "over 100 test rows: 0.1250 to 0.3750" in text
    assert "`--seeds` with 8 values" in text
    assert "75.0 % from step 10" in text
    assert "- Training rows: 320, of a set of 64, each seen about 5 times\n- Test rows: 100\n" in text
    assert "recipes/pretrain.py --config" in text


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize(("share", "tells"), [(0.0, True), (1.0, True), (0.75, False)])
def test_equal_accuracies_are_one_only_where_they_can_differ(single, several, share, tells):
    """Rows of several tokens may all be missed or all be right; equal accuracies between say that a row is a token."""
    for folder in (single, *several.glob("*/seed-*")):
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(
            json.dumps(metrics | {"accuracy/test": share, "row_accuracy/test": share})
        )
        log = json.loads((folder / "training_log.json").read_text())
        for entry in log["history"]:
            entry |= {name: share for name in entry if name.endswith("_accuracy")}
        (folder / "training_log.json").write_text(json.dumps(log))
    for folder in (single, several):
        result = report(folder).split("## Result")[1].split("## By group")[0].split("## During")[0]
        assert ("exact-match accuracy" in result) == tells
    assert len(learning_figure(read_run(single)).axes) == (3 if tells else 2)


@pytest.mark.usefixtures("unpainted")
def test_every_part_of_a_run_is_told(single):
    text = report(single)
    sections = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert sections == [
        "What was run", "Result", "Corpus", "The language", "During training", "By group of rows", "Curriculum",
        "Transfer", "Geometry of the embeddings", "Notes",
    ]  # fmt: skip
    known, new = wilson_interval(60, 60), wilson_interval(0, 40)
    assert row(text, "known") == ["60", "1.0000", f"1.000 [{known.low:.3f}, 1.000]"]
    assert row(text, "new_facts") == ["40", "2.0000", f"0.000 [0.000, {new.high:.3f}]"]
    assert row(text, "4 |") == ["20", "0.995"]
    assert row(text, "attention")[0] == "`runs/warm_up`, shuffled"
    assert "Trained: attention, 30.0 % of the parameters" in text
    assert row(text, "explanations") == ["10", "1.0 %", "1"]
    assert row(text, "samples that are valid") == ["0.625"]
    assert row(text, "after_verb") == ["0.875", "0.125", "1.000"]
    assert "A &#124; note" in text


@pytest.mark.usefixtures("unpainted")
def test_a_model_on_the_floor_is_not_called_above_it(tmp_path, made_up):
    made_up.write_pretraining(tmp_path, excess=0.0625)
    assert "contains 0" in report(tmp_path)


@pytest.mark.usefixtures("unpainted")
def test_a_quick_run_says_so_and_a_stage_that_was_missed(tmp_path, made_up):
    made_up.write_pretraining(tmp_path, quick=True, task_args={"length": 6})
    text = report(tmp_path)
    assert "`--quick`" in text
    assert "The last stage, 6, was not reached." in text


@pytest.fixture
def facts(tmp_path, made_up):
    """Three test rows that were trained on and one that is held out."""
    metrics = made_up.write_pretraining(tmp_path / "facts")
    kept = {name: value for name, value in metrics.items() if name.count("/") < 2 and not name.startswith("tokens")}
    for kind, rows, share in (("ood_analogical", 1, 0.0), ("id_compositional", 2, 0.5), ("id_atomic", 1, 1.0)):
        named = {"rows": rows, "row_accuracy": share, "loss": 2 - share, "perplexity": 4.0, "probability": 0.125}
        kept |= {f"{name}/test/{kind}": float(value) for name, value in named.items()}
    made_up.write(tmp_path / "facts" / "metrics.json", kept)
    return tmp_path / "facts"


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize(
    ("share", "says"),
    [
        (0.0, "None of the test rows is among the 640 training rows"),
        (0.25, "25.0 % of the test rows are among the 640 training rows"),
    ],
)
def test_test_rows_that_were_trained_on_are_counted(share, says):
    metrics = {"excess/test": 0.5, "excess/test_rows_low": 0.4, "excess/test_rows_high": 0.6, "rows/test": 32.0}
    assert not any("training rows" in line for line in verdict(metrics))
    assert says in " ".join(verdict({**metrics, "seen/test": share, "rows/compared": 640.0}))


def test_facts_that_were_trained_on_are_told_from_held_out_ones(facts):
    text = report(facts)
    assert "Trained on (groups `id_...`): 3 of 4 rows, exact-match accuracy 66.7 %" in text
    assert "Held out: 1, exact-match accuracy 0.0 %, loss 2.0000" in text
    table = text.split("## By group of rows")[1]
    assert row(table, "ood_analogical")[:4] == ["1", "2.0000", "4", "0.125"]
    assert table.index("| id_atomic") < table.index("| id_compositional") < table.index("| ood_analogical")


@pytest.mark.usefixtures("unpainted")
def test_geometry_says_what_to_hold_it_against(single):
    result = row(report(single), "Parallelogram")
    assert result[1:] == ["1, where the functor is that step", "0", "0.100 (step 10)", "0.400 (step 40)"]


@pytest.mark.usefixtures("unpainted")
def test_natural_text_has_no_interval_and_says_why(single):
    metrics = json.loads((single / "metrics.json").read_text())
    kept = {name: value for name, value in metrics.items() if not name.startswith(("floor", "excess"))}
    (single / "metrics.json").write_text(json.dumps(kept))
    assert "No interval" in report(single)


@pytest.mark.usefixtures("unpainted")
def test_settings_come_back_from_the_report_as_they_were(tmp_path, made_up):
    task_args = {"length": 4, "text": "one\n\n\n\ntwo ``` `x` | <b>"}
    made_up.write_pretraining(tmp_path, task_args=task_args, settings={"task_args": task_args})
    block = report(tmp_path).split("yaml\n")[1].split("\n```")[0]
    assert yaml.safe_load(block) == {"task_args": task_args}


def test_settings_stand_one_a_line():
    assert settings_yaml({"a": 1, "b": None}) == "a: 1\nb: null\n"
    assert settings_yaml({"a": 1, "b": {"c": 2}}) == "a: 1\nb: {c: 2}\n"


@pytest.mark.usefixtures("unpainted")
def test_the_model_is_named_and_so_is_what_its_reader_needs(single, several):
    config = {"architectures": ["OwnForCausalLM"], "num_hidden_layers": 2, "auto_map": {}}
    for folder in (single, *several.glob("*/seed-*")):
        (folder / "config.json").write_text(json.dumps(config))
    assert "Model: `OwnForCausalLM`, 1,234 parameters, layers 2" in report(several)
    assert "after `import hf_synth.models`." in report(single)


@pytest.mark.parametrize(("values", "limits"), [([0.0, 0.0], (-0.04, 1.04)), ([0.5, 1.0], (0.48, 1.02))])
def test_axes_of_shares_end_at_0_and_1(values, limits):
    ax = Figure().subplots()
    ax.fill_between([0, 1], values, [min(1.2, 2 * value) for value in values])
    ax.set_ylabel("fraction of rows")
    limit_shares(ax)
    assert ax.get_ylim() == pytest.approx(limits)


def test_figures_draw_what_was_logged(single):
    run = read_run(single)
    assert floor_level(run) == (1.0, "validation floor")
    loss, tokens, rows = learning_figure(run).axes
    assert list(loss.lines[1].get_ydata()) == pytest.approx([2.0, 1.5, 1 + 1 / 3, 1.25])
    assert [ax.get_ylabel() for ax in (loss, tokens, rows)] == [
        "nats per token",
        "fraction of tokens",
        "fraction of rows",
    ]
    accuracy, _ = groups_figure(run).axes
    assert [line.get_label() for line in accuracy.lines] == ["known", "new facts"]
    (shape,) = geometry_figure(run).axes
    assert list(shape.lines[0].get_xdata()) == [10, 20, 30, 40]
    assert stages(run) == [(2, 0, None), (4, 20.0, 0.995)]
    late = {**run.log, "steps": 20}  # a stage that the run ended before
    ended = dataclasses.replace(
        run, log=late, metrics={**run.metrics, "rows/trained": run.metrics["rows/trained"] * 20 / run.log["steps"]}
    )
    assert stages(ended) == [(2, 0, None)]
    stairs, _ = curriculum_figure(stages(run), run).axes
    assert all(tick % 1 == 0 for tick in stairs.get_yticks())


def test_painted_reports_have_their_pictures(single):
    text = report(single)
    names = {path.name for path in (single / "figures").iterdir()}
    wanted = ("learning_curves", "groups_over_steps", "curriculum", "geometry", "validity_by_length")
    assert names == {f"{name}.png" for name in wanted}
    assert all(f"figures/{name}" in text for name in names)


def test_legends_fit():
    assert legend_columns(["a", "b"]) == 2
    assert legend_columns(["x" * 22] * 6) == 2
    assert legend_columns(["x" * 200]) == 1


EXCESSES = {"plain": [0.5, 0.25, 0.75], "warm": [0.375, 0.25, 0.5]}


@pytest.fixture
def several(tmp_path, made_up):
    made_up.write_arms(tmp_path / "arms", EXCESSES)
    return tmp_path / "arms"


@pytest.mark.usefixtures("unpainted")
def test_arms_in_one_table_with_intervals_over_seeds(several):
    text = report(several)
    for name, values in EXCESSES.items():
        mean, low, high = mean_interval(values)
        assert row(text, f"`{name}` | 3 |")[1:2] == [f"{mean:.3f} [{low:.3f}, {high:.3f}]"]
    _, low, high = mean_interval([-0.125, 0.0, -0.25])
    assert row(text.split("## Differences")[1], "`warm`")[0] == f"-0.125 [{low:.3f}, {high:.3f}]"
    assert "3 seeds are a trial" in text
    assert "1.0000 nats per token on the test rows" in text
    assert text.count("![") == 1
    assert row(text, "`plain` | `learning_rate")[0] == "`learning_rate=0.1`"


@pytest.mark.usefixtures("unpainted")
def test_arms_say_what_was_copied(several):
    for path in (several / "plain").rglob("transfer.json"):
        path.unlink()
    changed = several / "warm" / "seed-2" / "transfer.json"
    changed.write_text(changed.read_text().replace('"change": 1.5', '"change": 1.75'))
    text = report(several).split("### Transferred weights")[1].split("## Result")[0]
    assert row(text, "`plain`") == ["nothing", *["-"] * 5]
    counts = ["4 of 4", "1,000 of 1,000", "-", "1.500 ... 1.750"]
    assert row(text, "`warm`") == ["attention", "`runs/warm_up`, shuffled", *counts]
    assert "mlp" not in text, "a part that stayed fresh"
    assert "- `warm`: Trained: attention, 30.0 %" in text
    assert "- `warm`: A &#124; note" in text
    for path in several.rglob("transfer.json"):
        path.unlink()
    assert "Transferred weights" not in report(several)


@pytest.mark.usefixtures("unpainted")
def test_one_seed_has_no_interval(tmp_path, made_up):
    made_up.write_arms(tmp_path, {"plain": [0.5], "warm": [0.25]})
    text = report(tmp_path)
    assert row(text, "`warm` | 1 |")[1] == "0.250"
    assert "no interval" in text
    assert "[" not in text.split("## Result")[1].split("## By group")[0].replace("![", "")
    assert "## Differences" not in text


@pytest.mark.usefixtures("unpainted")
def test_runs_that_have_not_finished_are_named(several):
    (several / "warm" / "seed-1" / "training_log.json").unlink()
    text = report(several)
    assert "Not finished, so not in this report: `warm/seed-1`." in text
    assert row(text, "`warm` | 2 |")
    assert "Arms have different numbers of seeds" in text
    for path in several.rglob("training_log.json"):
        path.unlink()
    with pytest.raises(ValueError, match="none of 6 runs has finished"):
        write_report(several)


@pytest.mark.usefixtures("unpainted")
def test_a_seed_without_a_finite_value_is_named(several):
    path = several / "warm" / "seed-1" / "metrics.json"
    metrics = {name: value for name, value in json.loads(path.read_text()).items() if not name.startswith("excess")}
    path.write_text(json.dumps(metrics))
    text = report(several)
    mean, low, high = mean_interval([0.375, 0.5])
    assert row(text, "`warm` | 3 |")[1] == f"{mean:.3f} [{low:.3f}, {high:.3f}] (2 of 3 seeds)"
    assert "> - `warm`, seed 1: excess\n" in text
    assert "of 3 seeds" not in "".join(row(text, "`plain` | 3 |"))


def test_the_figure_of_arms(several):
    figure = arms_figure(read_comparison(several), [("excess/test", "Excess", "nats per token")])
    above, loss, accuracy = figure.axes
    diamonds = [line.get_xdata() for line in above.lines if line.get_marker() == "D"]
    assert [float(position[0]) for position in diamonds] == pytest.approx([0.5, 0.375])
    assert [label.get_text() for label in above.get_yticklabels()] == ["plain", "warm"]
    assert list(loss.lines[0].get_ydata()) == pytest.approx([3.0, 2.0, 1 + 2 / 3, 1.5])
    assert len(loss.collections) == 2, "a band for each arm"
    assert accuracy.get_ylabel() == "fraction of tokens"
