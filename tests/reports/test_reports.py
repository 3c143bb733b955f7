"""Reports say what the files say, whatever that is, and no prompt gets out of its table cell."""

import functools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats
from matplotlib.image import imread

from hf_synth.experiments.statistics import clipped
from hf_synth.metrics.intervals import Interval, wilson_interval
from hf_synth.reports import write_report
from hf_synth.reports.report import report_text
from hf_synth.training.data import note_unread


class Page(HTMLParser):
    """Tags, pictures, and the texts of table cells."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.pictures: list[str] = []
        self.cells: list[str] = []
        self.inside = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")
        if tag in ("td", "th"):
            self.inside = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[-1] += data


@functools.cache
def report(folder: Path) -> str:
    """The report of a run that no test changes, written once."""
    write_report(folder)
    return (folder / "report.md").read_text(encoding="utf-8")


def row(text: str, first: str) -> list[str]:
    """The cells of the first table row that starts so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_repeats_metrics_json(grpo_run: Path) -> None:
    text = report(grpo_run)
    metrics = json.loads((grpo_run / "metrics.json").read_text())
    for label, prefix in (("strength 1", ""), ("strength 0.5", "strength-0.5/"), ("control", "control/")):
        cells = row(text, label)[1:]
        names = [f"{prefix}validity/{moment}{end}" for end in ("", "_head", "_tail") for moment in ("warmup", "final")]
        assert [cell.split(" ± ")[0] for cell in cells] == [f"{metrics[name]:.3f}" for name in names]


def test_standard_errors_are_binomial(grpo_run: Path) -> None:
    cells = row(report(grpo_run), "strength 1")
    groups = np.array([0.5, 0.4375, 0.375, 0.3125])
    errors = np.sqrt(groups * (1 - groups) / 64)
    assert cells[2] == f"{groups.mean():.3f} ± {np.sqrt((errors**2).sum()) / 4:.3f}"
    assert cells[4] == f"0.500 ± {errors[0]:.3f}"
    assert cells[6] == f"0.312 ± {errors[3]:.3f}"


@pytest.mark.parametrize("fixture", ["grpo_run", "natural_run"])
def test_differences_are_paired_by_prompt(fixture: str, request: pytest.FixtureRequest) -> None:
    """Arm minus control with Student's interval over prompts, also where the reward is a model."""
    folder = request.getfixturevalue(fixture)
    groups = ("plain", "rarest") if fixture == "grpo_run" else ("crowded", "rare")
    mine, other = (pq.read_table(path / "samples.parquet").to_pandas() for path in (folder, folder / "control"))
    group = mine.prompt.str.extract("<(.*)>")[0]
    for part, chosen in (("overall", group != ""), ("head", group == groups[0]), ("tail", group == groups[1])):
        values = [frame[chosen].groupby("prompt_row").reward.mean() for frame in (mine, other)]
        test = scipy.stats.ttest_rel(*values)
        interval = (values[0].mean() - values[1].mean(), *test.confidence_interval(0.95))
        cells = row(report(folder), f"{part} | strength 1 minus control")[2:]
        assert cells[0] == str(len(values[0]))
        assert [float(text) for text in re.findall(r"-?[\d.]+", cells[1])] == pytest.approx(interval, abs=0.0006)


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("empty", [False, True])
def test_without_samples_no_order_of_arms_is_stated(empty: bool, natural_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(natural_run, tmp_path / "run"))
    path = folder / "control" / "samples.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path) if empty else path.unlink()
    text = report(folder)
    assert "minus control" not in text
    assert "no difference between arms is given" in text


@pytest.mark.usefixtures("unpainted")
def test_equal_arms_and_loss_of_validity(tmp_path: Path, made_up: ModuleType) -> None:
    made_up.write_grpo(tmp_path, {1.0: [0.0625] * 4, 0.0: [0.0625] * 4})
    text = report(tmp_path)
    assert "strength 1 -0.062" in text


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("finished", 0, 1), ("collapse/self_bleu", 0, 1), ("length", 0, 3), ("reward/all", -2, 3)],
)
def test_intervals_end_where_values_do(name: str, low: float, high: float) -> None:
    assert clipped(Interval(0.5, -2, 3), name) == (0.5, low, high)


def test_clusters_table(grpo_run: Path, made_up: ModuleType) -> None:
    text = report(grpo_run)
    total, share = sum(made_up.SIZES.values()), 0.0
    for cluster, size in made_up.SIZES.items():
        cells = row(text, cluster)
        assert cells[1:3] == [str(size), f"{100 * size / total:.1f} %"]
        mean, mass = float(cells[3]), float(cells[4].split()[0])
        assert mass == pytest.approx(100 * mean * size / total, abs=0.1)
        share += mass
    assert share == pytest.approx(100, abs=0.3)


@pytest.mark.usefixtures("unpainted")
def test_one_arm_has_no_verdict(tmp_path: Path, made_up: ModuleType) -> None:
    made_up.write_grpo(tmp_path, {1.0: [0.5] * 4})
    text = report(tmp_path)
    assert "`sampling_strength`" in text.split("## During training")[0], "how to get a control"
    assert "minus control" not in text


@pytest.mark.usefixtures("unpainted")
def test_control_alone(tmp_path: Path, made_up: ModuleType) -> None:
    made_up.write_grpo(tmp_path, {0.0: [0.5] * 4})
    text = report(tmp_path)
    assert row(text, "control")[-2:] == ["0.125", "0.500 ± 0.062"]
    assert row(text.split("## Sampling weights")[1], "control")[-3:] == ["1", "1", "1"]
    assert "minus control" not in text


@pytest.mark.usefixtures("unpainted")
def test_arm_that_has_not_finished(grpo_run: Path, tmp_path: Path) -> None:
    grpo_run = Path(shutil.copytree(grpo_run, tmp_path / "run"))
    (grpo_run / "control" / "training_log.json").unlink()
    text = report(grpo_run)
    assert "Not finished, so not in this report: `control`" in text
    assert "minus control" not in text


@pytest.mark.usefixtures("unpainted")
def test_without_a_measure_only_the_training_reward(tmp_path: Path, made_up: ModuleType) -> None:
    made_up.write_grpo(tmp_path, {1.0: [0, 0], 0.0: [0, 0]}, measure=None, natural=True)
    assert row(report(tmp_path), "strength 1")[1:] == ["0.200", "0.400"]


def test_natural_prompts(natural_run: Path, made_up: ModuleType) -> None:
    """Reward models have no binomial error; prompts of any text stay in their cells."""
    text = report(natural_run)
    assert row(text, "strength 1")[1:] == ["0.125", "-0.125", "0.125", "-0.500", "0.125", "0.250"]
    page = Page(natural_run / "report.html")
    assert not page.tags & {"script", "a", "strong"}
    assert "<script>alert(1)</script> | a b" in page.cells
    assert "`code` **bold** [link](http://x.y) $x$ \\" in page.cells
    assert "日本語 🙂 \ufffd turned" in page.cells
    assert "![i](javascript:alert(1))" in page.cells
    assert any(re.fullmatch("x{199}…", cell) for cell in page.cells)
    start = page.cells.index("<script>alert(1)</script> | a b")
    assert len(page.cells[start : start + 3 * len(made_up.NATURAL)]) == 3 * len(made_up.NATURAL)
    assert all(re.fullmatch(r"[\d.,]+", cell) for cell in page.cells[start + 1 : start + 15 : 3])


def test_reward_run(reward_run: Path) -> None:
    text = report(reward_run)
    wilson = wilson_interval(150, 240)
    assert f"0.625 [{wilson.low:.3f}, {wilson.high:.3f}] on 240 pairs" in text
    assert "differs from chance" not in text
    assert "| `loss/held_out` | 0.6543 |" in text
    assert "too long: 7" in text
    assert "could not be used: 2" in text
    assert "not | JSON" in Page(reward_run / "report.html").cells
    assert "recipes/reward.py --config" in text


def test_sft_run_with_nothing_optional(sft_run: Path) -> None:
    text = report(sft_run)
    assert "| training loss, last logged | `loss/final` | 0.1000 |" in text
    assert "4,000" in text
    assert "## Sampling weights" not in text


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("name", ["grpo_run", "natural_run", "reward_run"])
def test_a_published_report_names_only_what_is_beside_it(name: str, request: pytest.FixtureRequest) -> None:
    """Of the files that a run leaves, these stay on the machine."""
    folder = Path(shutil.copytree(request.getfixturevalue(name), request.getfixturevalue("tmp_path") / "run"))
    kept = "resolved_config|rejected_rows|training_log|(samples|prompts)[.]parquet|[.][.]/|`control/`|alert|not . JSON"
    assert not re.search(kept, report_text(folder, published=True, quote_texts=False))
    assert re.search(kept, report_text(folder))


@pytest.mark.usefixtures("unpainted")
def test_nan_is_a_dash_and_a_run_that_diverged_is_called_so(sft_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sft_run, tmp_path / "run"))
    log = json.loads((folder / "training_log.json").read_text())
    log["history"][0]["loss"] = float("nan")
    (folder / "training_log.json").write_text(json.dumps(log))
    text = report(folder)
    assert "training diverged" in text
    assert row(text, "training loss, first logged (step 10)")[2] == "-"
    assert "nan" not in text.split("## Notes")[0].replace("`nan`", "")


@pytest.mark.parametrize("name", ["grpo_run", "natural_run", "reward_run", "sft_run"])
def test_pictures_exist_and_show_something(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    report(folder)
    pictures = Page(folder / "report.html").pictures
    assert pictures
    assert {path.name for path in (folder / "figures").iterdir()} == {Path(source).name for source in pictures}
    for source in pictures:
        pixels = imread(folder / source)
        assert pixels.shape[0] > 300
        assert 600 < pixels.shape[1] <= 900
        colours = (255 * pixels[..., :3]).astype(np.int64) @ (1, 256, 65536)
        assert len(np.unique(colours)) > 10


def test_same_run_same_bytes(reward_run: Path) -> None:
    report(reward_run)
    files = [*reward_run.glob("report.*"), *sorted((reward_run / "figures").iterdir())]
    before = [path.read_bytes() for path in files]
    write_report(reward_run)
    assert [path.read_bytes() for path in files] == before


@pytest.mark.usefixtures("unpainted")
def test_missing_table_and_settings(grpo_run: Path, tmp_path: Path) -> None:
    """Without prompts.parquet there is no section on weights, without settings no command with them."""
    grpo_run = Path(shutil.copytree(grpo_run, tmp_path / "run"))
    for path in grpo_run.rglob("prompts.parquet"):
        path.unlink()
    (grpo_run / "resolved_config.yaml").write_text("recipe: grpo\nsampling_strength: [1, 0.5, 0]\n")
    text = report(grpo_run)
    assert "## Sampling weights" not in text
    assert row(text, "control")
    assert "my.yaml" not in text


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("config", [None, "seed: 0\n", "recipe: gpo\n"])
def test_a_run_of_a_recipe_that_is_not_known(config: str | None, grpo_run: Path, tmp_path: Path) -> None:
    """What an older version has left is refused, with the line that it lacks."""
    folder = Path(shutil.copytree(grpo_run, tmp_path / "run"))
    (folder / "resolved_config.yaml").unlink()
    if config:
        (folder / "resolved_config.yaml").write_text(config)
    with pytest.raises(ValueError, match=r"wanted one of grpo, sft, reward, dpo, pretrain; .* recipe: grpo"):
        write_report(folder)


@pytest.mark.usefixtures("unpainted")
def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no run.*recipes/grpo\.py makes one"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="holds no run"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "resolved_config.yaml").write_text("seed: 0\n")
    with pytest.raises(ValueError, match="has not finished"):
        write_report(tmp_path)


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b'{"a": ', b"[]"])
def test_a_torn_file_of_a_run_is_named(content: bytes, natural_run: Path, reward_run: Path, tmp_path: Path) -> None:
    """Whatever of a run's folder is read: a line that names the file, or the run's report without it."""
    torn = []
    for number, folder in enumerate((natural_run, reward_run)):
        run = tmp_path / str(number)
        shutil.copytree(folder, run)
        (run / "config.json").write_text("{}")
        for path in sorted(run.rglob("*")):
            others = ("rejected_rows.jsonl", *(["prompts.parquet"] if path.parent != run else []))  # not read whole
            if path.is_dir() or path.suffix in (".md", ".html", ".png", ".svg") or path.name in others:
                continue
            whole = path.read_bytes()
            path.write_bytes(content)
            with pytest.raises(ValueError, match=rf"{re.escape(path.name)}|a run with a damaged file") as caught:
                report_text(run)
            assert path.name in str(caught.value)
            assert "\n" not in str(caught.value)
            torn.append(path.name)
            path.write_bytes(whole)
    assert {"metrics.json", "prompts.parquet", "samples.parquet", "training_log.json", "config.json"} <= {*torn}


@pytest.mark.usefixtures("unpainted")
def test_how_many_lines_became_how_many_prompts(tmp_path: Path, made_up: ModuleType) -> None:
    """Nothing is said where no prompt is repeated."""
    made_up.write_grpo(tmp_path, {1.0: [0.5] * 4})
    assert "epeated prompts" not in report(tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    metrics |= {"prompts/lines": 100.0, "prompts/distinct": 60.0, "prompts/repeated": 40.0, "prompts/most_lines": 3.0}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics | {"weights/repeated_share": 0.25}))
    text = report_text(tmp_path)
    assert "100 lines have 60 distinct prompts, at most 3 lines one of them. Each prompt is kept once\n" in text
    assert "| draws of repeated prompts |" in text
    assert row(text.split("## Sampling weights")[1], "strength 1")[-1].startswith("25")


@pytest.mark.usefixtures("unpainted")
def test_fields_that_were_not_read_are_in_the_notes(tmp_path: Path, made_up: ModuleType) -> None:
    made_up.write_grpo(tmp_path, {1.0: [0.5] * 4})
    note_unread(tmp_path, ["lang", "name (of messages)"])
    note_unread(tmp_path, ["date"])
    assert "were not read: `date`, `lang` and `name (of messages)`." in report_text(tmp_path)
    published = report_text(tmp_path, quote_texts=False)
    assert "Fields of the source that were not read: 3.\n" in published
    assert not re.search("date|lang|of messages", published), "names of a user's columns are not published"


def test_a_comparison_half_done_says_what_it_is_corrected_for(
    tmp_path: Path, made_up: ModuleType, unpainted: None
) -> None:
    """Three pairs, one with runs; and pretraining weighs no prompts, so no column says how."""
    for arm, excess in {"flat": 0.5, "wide": 0.25}.items():
        for seed in range(8):
            made_up.write_pretraining(tmp_path / arm / f"seed-{seed}", excess=excess + 0.01 * (seed % 3), seed=seed)
    arms = {arm: {"hidden_size": number} for number, arm in enumerate(["flat", "long", "narrow", "wide"])}
    plan = {"recipe": "pretrain", "arms": arms, "seeds": list(range(8)), "primary": "excess/test", "base": {}}
    made_up.write(tmp_path / "comparison.yaml", plan)
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "Holm's correction over all pairs (3, those without an answer included)." in text
    no_answer = "- `narrow` against `flat` has **no answer**: no two seeds have the metric in both arms."
    assert f"{no_answer}\n\nEach pair" in text
    assert "| arm | values | seeds |\n" in text
    assert "ffective fraction" not in text


def test_a_comparison_leaves_no_samples_and_no_figures_of_the_report_before_it(
    tmp_path: Path, made_up: ModuleType, unpainted: None
) -> None:
    folder, page = tmp_path / "compared", tmp_path / "page.md"
    for arm in ("flat", "wide"):
        made_up.write_pretraining(folder / arm / "seed-0")
    plan = {"recipe": "pretrain", "arms": {"flat": {}, "wide": {"hidden_size": 1}}, "seeds": [0], "base": {}}
    made_up.write(folder / "comparison.yaml", plan | {"primary": "excess/test", "page": str(page)})
    (folder / "samples.parquet").write_bytes(b"of runs that kept some")
    (tmp_path / "page").mkdir()
    (folder / "figures").mkdir()
    for name in ("compared_steps.png", "compared_groups.png", "another_steps.png"):
        (tmp_path / "page" / name).write_bytes(b"a picture")
    (folder / "figures" / "primary.png").write_bytes(b"to copy: none is painted")
    write_report(folder)
    assert not (folder / "samples.parquet").exists()
    pictures = {"compared_primary.png", "compared_steps.png", "another_steps.png"}
    assert {path.name for path in (tmp_path / "page").glob("*.png")} == pictures


def test_a_report_leaves_no_figure_that_it_does_not_show(tmp_path: Path, sft_run: Path) -> None:
    """Neither one of a report before it, nor a picture of the user's goes missing."""
    shutil.copytree(sft_run, tmp_path, dirs_exist_ok=True)
    write_report(tmp_path)
    figures = tmp_path / "figures"
    assert {path.name for path in figures.iterdir()} == {"learning_curves.png"}
    (figures / "mine.png").write_bytes(b"a picture")
    log = json.loads((tmp_path / "training_log.json").read_text())
    (tmp_path / "training_log.json").write_text(json.dumps({**log, "history": []}))
    write_report(tmp_path)
    assert "learning_curves.png" not in (tmp_path / "report.md").read_text()
    assert {path.name for path in figures.iterdir()} == {"mine.png"}


@pytest.mark.parametrize(("wanted", "said"), [(64, False), (65, True)])
def test_fewer_held_out_prompts_than_wanted_are_said(
    wanted: int, said: bool, grpo_run: Path, tmp_path: Path, unpainted: None
) -> None:
    shutil.copytree(grpo_run, tmp_path / "run")
    for path in (tmp_path / "run").rglob("resolved_config.yaml"):
        path.write_text(f"{path.read_text()}\neval_prompts: {wanted}\n")
    text = report_text(tmp_path / "run")
    assert "; 256 held out for evaluation" in text
    assert (f", fewer than the {4 * wanted} of `eval_prompts`\n" in text) == said
