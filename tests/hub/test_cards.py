"""The dataset card: metadata that loads, figures that are right, and text that is shown as it is meant."""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping

import datasets
import numpy as np
import pyarrow as pa
import pytest
from datasets import Features, Value
from huggingface_hub import DatasetCard

from hf_synth import get_task, list_tasks, load_dataset
from hf_synth.hub.cards import card, floor_tables, size_category
from hf_synth.hub.command import publish
from hf_synth.hub.corpora import offered_corpora
from hf_synth.hub.facts import floor, split_shares
from hf_synth.hub.publication import Choices, Publication, offered_tasks
from hf_synth.hub.repository import is_ours, manifest_text, read_manifests
from hf_synth.tasks import task_class
from hf_synth.tasks.base import words_of
from hf_synth.views import VIEW_FEATURES

ROWS = {"train": 300, "validation": 40, "test": 50}
NAMES = ("sort-8", "tivari-default", "tivari3-short", "analogy-e10", "rlm-v6-l2-b2")
TRIAL = Publication(
    name="trial",
    title="Trial tasks",
    about="Some tasks, for a test.",
    offers=lambda: {
        **offered_tasks("sort", "tivari", "tivari3", "rlm"),
        **offered_tasks("analogy", overlap="by design"),
    },
    citation="@misc{trial}",
    columns={"answers": "how many answers there are"},
)


def configs(*names: str, **choices):
    return [TRIAL.offers()[name](Choices(**{"rows": ROWS, **choices})) for name in names]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A publication as it lies on disk."""
    path = tmp_path_factory.mktemp("published")
    publish(TRIAL, configs(*NAMES), path, None, private=False)
    return path


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "README.md").read_text("utf-8")


def table(text: str, title: str) -> dict[str, dict[str, str]]:
    """The lines of the first table after a heading, by their first cell."""
    lines = re.search(rf"^## {title}$.*?^((?:\|[^\n]*\n)+)", text, re.M | re.S)[1].splitlines()
    names, _, *rows = [line.strip("| ").split(" | ") for line in lines]
    return {row[0].strip("`"): dict(zip(names, row, strict=False)) for row in rows}


# Metadata


def test_metadata_is_what_the_hub_wants(text):
    data = DatasetCard(text).data.to_dict()
    assert data["language"] == ["zxx"]
    assert data["license"] == "apache-2.0"
    assert data["task_categories"] == ["text-generation"]
    assert data["pretty_name"] == "Trial tasks"
    assert {"synthetic", "hf_synth"} <= set(data["tags"])
    assert data["size_categories"] == ["1K<n<10K"]
    assert [config["config_name"] for config in data["configs"]] == [*NAMES[:3], "rlm-v6-l2-b2", "analogy-e10"]
    assert [config.get("default", False) for config in data["configs"]] == [True, False, False, False, False]
    assert data["configs"][0]["data_files"] == [
        {"split": split, "path": f"sort-8/{split}-*-of-00001.parquet"} for split in ROWS
    ]


def test_sizes_in_the_metadata_are_those_of_the_files(text, folder):
    for info in DatasetCard(text).data.to_dict()["dataset_info"]:
        name = info["config_name"]
        assert info["download_size"] == sum(file.stat().st_size for file in (folder / name).glob("*.parquet"))
        assert info["dataset_size"] == sum(split["num_bytes"] for split in info["splits"])
        if name not in ("analogy-e10", "tivari-default"):
            assert {split["name"]: split["num_examples"] for split in info["splits"]} == ROWS


@pytest.mark.parametrize("name", NAMES)
def test_folder_loads_by_its_card(name, folder, tmp_path):
    config = configs(name)[0]
    loaded = datasets.load_dataset(str(folder), name, cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in loaded.items()} == config.splits
    for split, rows in loaded.items():
        assert rows.features == config.features
        assert rows[:] == config.table(split, 0, config.splits[split]).to_pydict()


def test_one_config_is_the_default_and_its_info_complete(tmp_path):
    publish(TRIAL, configs("sort-8"), tmp_path / "one", None, private=False)
    loaded = datasets.load_dataset(str(tmp_path / "one"), split="test", cache_dir=str(tmp_path))
    assert loaded.features == configs("sort-8")[0].features
    assert loaded.info.splits["train"].num_examples == 300


@pytest.mark.parametrize(
    ("rows", "category"),
    [
        *((1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (9999, "1K<n<10K"), (10_000, "10K<n<100K")),
        *((120_000, "100K<n<1M"), (10**6, "1M<n<10M"), (10**11, "100B<n<1T"), (10**12, "n>1T")),
    ],
)
def test_size_categories(rows, category):
    assert size_category(rows) == category


# Figures


def test_floor_is_the_mean_over_loss_bearing_tokens():
    task = get_task("tivari3", "short")
    rows = task.rows(0, 500, split="test")
    chances = task.optimal_log_probs(rows)
    loss = [-chances[row, 1 : rows.lengths[row]].sum() for row in range(500)]
    tokens = [int(rows.lengths[row]) - 1 for row in range(500)]
    result = floor(task, "test", 500, 0)
    assert result["nats_per_token"] == pytest.approx(sum(loss) / sum(tokens), rel=1e-12)
    assert (result["rows"], result["tokens_per_row"]) == (500, pytest.approx(np.mean(tokens)))


def test_standard_error_is_the_spread_of_the_floor_over_samples():
    task = get_task("tivari3", "short")
    means = [floor(task, "test", 200, seed)["nats_per_token"] for seed in range(200)]
    errors = [floor(task, "test", 200, seed)["standard_error"] for seed in range(20)]
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.2)


def test_floor_is_measured_in_blocks_as_in_one(monkeypatch):
    task = get_task("tivari3")
    whole = floor(task, "test", 300, 0)
    monkeypatch.setattr("hf_synth.hub.facts._BLOCK_TOKENS", 100)
    assert floor(task, "test", 300, 0) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(("name", "preset"), [("tivari", "default"), ("tivari3", "short"), ("rlm", "v6-l2-b2")])
def test_shares_are_the_mass_of_each_split_s_contents(name, preset):
    """The probabilities of all different rows of a split, summed."""
    config = {"loss": "all"} if name == "rlm" else {}
    task = get_task(name, preset, holdout="content", **config)
    shares = split_shares(task, ["train", "validation", "test"], seed=0)
    for split, share in shares.items():
        rows = task.rows(0, 30_000, split=split)
        _, first = np.unique(rows.tokens, axis=0, return_index=True)
        distinct = rows.select(first)
        mass = np.exp(task.optimal_log_probs(distinct).sum(axis=1)).sum()
        assert share == pytest.approx(mass, abs=4 * np.sqrt(mass * (1 - mass) / 10_000) + 0.003)


def test_floor_and_bound_are_in_the_card(text):
    floors = table(text, "The entropy floor")
    task = get_task("tivari3", "short", holdout="content")
    for split in ("train", "test"):
        cell = floors["tivari3-short"][f"floor on {split} rows, nats per token"]
        result = floor(task, split, ROWS[split], 0)
        assert cell == f"{result['nats_per_token']:.4f} ± {result['standard_error']:.4f} ({ROWS[split]} rows)"
    assert floors["sort-8"]["floor on test rows, nats per token"] == "0.0000 ± 0.0000 (50 rows)"
    bounds = re.search(r"^\| `tivari-default` \| (0\.\d+), (\d\.\d+) \| 0\.1\d\d, 2\.\d+ \|$", text, re.M)
    assert float(bounds[2]) == pytest.approx(-np.log(float(bounds[1])), abs=0.01)
    assert not re.search(r"^\| `sort-8` \| 0\.\d+, ", text, re.M), "nobody loses less than nothing"
    section = text.split("## The entropy floor")[1].split("\n|")[0]
    assert "P is the generator's before contents were given to splits" in section, "said before the figures"


@pytest.mark.parametrize(("nats", "most"), [(0.5, 1.0), (2.0, 2.3)])
def test_bound_is_never_above_the_floor(nats, most):
    floors = {"test": {"nats_per_token": nats, "standard_error": 0.0, "rows": 9, "tokens_per_row": 2.0}}
    _, bounds = floor_tables([{"name": "a", "facts": {"floor": floors, "shares": {"test": np.exp(-2.3)}}}])
    assert bounds.endswith(f"| `a` | 0.100, {most:.2f} |")


def test_floors_of_nothing_have_no_bounds(tmp_path):
    publish(TRIAL, configs("sort-8"), tmp_path, None, private=False)
    section = (tmp_path / "README.md").read_text("utf-8").split("## The entropy floor")[1].split("\n## ")[0]
    assert "share" not in section
    assert "lose less" not in section


def test_splits_kept_apart_have_no_overlap(text):
    rows = table(text, "Overlap between splits")
    for name in ("sort-8", "tivari-default", "tivari3-short"):
        assert [rows[name][f"rows of {pair}"] for pair in ("validation in train", "test in train")] == ["0", "0"]
        assert rows[name]["why"] == "kept apart by content"
        assert table(text, "Configs")[name]["test in train"] == "0"
    assert rows["tivari-default"]["different rows"] == "train 8, validation 1, test 1"


def test_splits_of_a_task_without_wrong_texts_keep_their_distribution(text):
    row = table(text, "Overlap between splits")["rlm-v6-l2-b2"]
    assert row["why"] == "drawn independently, kept apart by nothing"
    assert row["rows of test in train"] != "0"


def test_overlap_by_design_is_counted_and_explained(text):
    rows = {
        split: configs("analogy-e10")[0].table(split, 0, size)["text"].to_pylist()
        for split, size in configs("analogy-e10")[0].splits.items()
    }
    shared = sum(row in set(rows["train"]) for row in rows["test"])
    line = table(text, "Overlap between splits")["analogy-e10"]
    assert line["rows of test in train"] == f"{shared} ({100 * shared / len(rows['test']):.1f} %)"
    assert shared > 0
    assert line["why"] == "by design"


def test_overlap_without_holdout_is_counted(tmp_path):
    publish(TRIAL, configs("tivari-default", holdout="none"), tmp_path, None, private=False)
    line = table((tmp_path / "README.md").read_text("utf-8"), "Overlap between splits")["tivari-default"]
    assert line["rows of test in train"] == "10 (100.0 %)", "each content once"
    assert line["why"] == "drawn independently, kept apart by nothing"


def test_violations_are_counted_as_in_the_labelled_view(text):
    task = get_task("tivari3", "short")
    labelled = load_dataset("tivari3", "short", split="test", size=50, view="labelled", holdout="content")
    counts = Counter(labelled["violation"])
    lines = [line for line in text.splitlines() if re.match(r"\| `tivari3-short` \| `\w+` \| (yes|no) \|", line)]
    cells = [line.strip("| ").split(" | ") for line in lines]
    assert {cell[1].strip("`"): (cell[2], int(cell[3])) for cell in cells} == {
        kind: ("yes" if violation.keeps_length else "no", counts[kind])
        for kind, violation in task.violations().items()
    }
    assert sum(counts[kind] for kind in task.violations()) == 25
    assert not re.search(r"\| `rlm-v6-l2-b2` \| `\w+` \| (yes|no) \|", text), "no text of rlm is wrong"


# Text


def test_card_says_what_a_row_is_and_how_to_load_it(text, folder):
    sections = re.findall(r"^## (.*)$", text, re.M)
    assert sections[:7] == [
        *("Load it", "A row", "How the rows are made", "Configs", "The entropy floor"),
        *("Overlap between splits", "Violations"),
    ]
    assert sections[7:] == ["sort", "tivari", "tivari3", "rlm", "analogy", "Citation", "Licence"]
    row = configs("sort-8")[0].table("train", 0, 1).to_pylist()[0]
    assert f"input_ids:  {' '.join(map(str, row['input_ids']))}\n" in text
    assert f"text:       {row['text']}\n" in text
    assert re.search(r"^input: +<bos>( \d+){8} <sep>\ntarget: +(\d+ ){8}<eos>$", text, re.M)
    assert f'rows = load_dataset("{folder.as_posix()}", "sort-8", split="train")' in text, "nothing is on the Hub yet"
    assert "`pip install hf_synth`" in text.split("## How the rows are made")[1].split("## Configs")[0]
    assert "`answers` | int32 | how many answers there are |" in text
    assert "@misc{trial}" in text
    assert "@software{hf_synth," in text


def test_words_in_angle_brackets_are_shown(text):
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text.split("---\n", 2)[2], flags=re.S)
    assert "The numbers after &lt;sep> are" in text
    assert not re.search(r"<\w", prose)


def test_papers_are_linked_so_that_the_hub_lists_the_card_under_them(text):
    for name in ("rlm", "analogy"):
        paper = task_class(name).source.split("arXiv ")[1]
        assert f"(https://arxiv.org/abs/{paper})" in text.split(f"\n## {name}\n")[1].split("\n## ")[0]


def test_types_of_every_view_are_in_the_card(tmp_path):
    offers = offered_tasks("start_mid_end")
    for view in VIEW_FEATURES:
        made = [offers["start_mid_end-default"](Choices(view=view))]
        publish(dataclasses.replace(TRIAL, offers=lambda: offers), made, tmp_path, None, private=False)
    columns = table((tmp_path / "README.md").read_text("utf-8"), "A row")
    assert {name: row["type"] for name, row in columns.items()} == {
        **{"input_ids": "list of int32", "labels": "list of int32", "valid": "bool"},
        **dict.fromkeys(("text", "violation", "prompt", "completion"), "string"),
        **dict.fromkeys(("task", "chosen", "rejected"), "string"),
        "distribution": "list of list of float32",
    }
    rows = datasets.load_dataset(str(tmp_path), "start_mid_end-default-distribution", split="test")
    assert rows.features == VIEW_FEATURES["distribution"]


def test_long_rows_are_shortened(tmp_path):
    publish(TRIAL, configs("sort-64", rows={"train": 5, "validation": 5, "test": 5}), tmp_path, None, private=False)
    labels = " ".join(["-100"] * 48)
    assert f"labels:     {labels} ... 83 more\n" in (tmp_path / "README.md").read_text("utf-8")


def test_card_from_manifests_that_were_read_back_is_the_same(text, folder):
    assert card(TRIAL, folder.as_posix(), read_manifests(folder)) == text
    published = card(TRIAL, "user/repo", read_manifests(folder))
    assert published == text.replace(folder.as_posix(), "user/repo")
    again = {name: (folder / name / "published.json").read_text("utf-8") for name in NAMES}
    assert {name: manifest_text(content) for name, content in read_manifests(folder).items()} == again


def test_configs_made_later_join_the_card(folder, text, tmp_path):
    for names in (NAMES[2:], NAMES[:2]):
        publish(TRIAL, configs(*names), tmp_path, None, private=False)
    assert (tmp_path / "README.md").read_text("utf-8") == text.replace(folder.as_posix(), tmp_path.as_posix())


def test_rule_in_words_stands_under_the_configs_it_is_true_of(tmp_path):
    offers = offered_tasks("dyck", "tivari")
    names = ("dyck-k2-l16", "dyck-k4-l32", "tivari-default")
    made = [offers[name](Choices(rows={"train": 5, "test": 5})) for name in names]
    publish(Publication("brackets", "Brackets", "Of types.", lambda: offers), made, tmp_path, None, private=False)
    text = (tmp_path / "README.md").read_text("utf-8")
    rules = dict(re.findall(r"^The rule of `([\w-]+)`:\n\n> (.*)$", text, re.M))
    assert rules == {config.name: config.task.explanations()[0] for config in made[:2]}
    assert len(set(rules.values())) == 2
    assert f"> {made[2].task.explanations()[0]}\n" in text


def test_rule_that_configs_share_is_written_once(tmp_path):
    offers = offered_corpora("tivari3")
    names = ("tivari3-examples", "tivari3-explanations-10")
    made = [offers[name](Choices(rows=ROWS)) for name in names]
    publish(Publication("corpora", "Corpora", "Of it.", lambda: offers), made, tmp_path, None, private=False)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert [text.count(f"> {rule}\n") for rule in made[0].task.explanations()] == [1] * 6
    assert "The rule of" not in text
    lines = table(text, "tivari3 corpora")
    assert lines[names[1]]["`explanation_form`"] == "source"
    assert lines[names[1]]["`explanation_ratio`"] == "0.1"
    assert lines[names[1]]["`max_half`"] == "8"


def test_parameters_are_a_table_with_what_each_takes(text):
    lines = table(text, "rlm")
    assert lines["*takes*"]["`vocab_size`"] == "2 to 512"
    assert lines["*takes*"]["`loss`"] == "last, all"
    config = configs("rlm-v6-l2-b2")[0].task.config
    assert {name.strip("`"): value for name, value in lines["rlm-v6-l2-b2"].items() if name != "config"} == {
        field.name: str(list(value) if isinstance(value := getattr(config, field.name), tuple) else value)
        for field in dataclasses.fields(config)
    }


@pytest.mark.parametrize("name", list_tasks())
def test_prose_of_docstrings_tells_nobody_to_see_code(name):
    task = task_class(name)
    for words in (words_of(task), words_of(task.config_class)):
        assert words.endswith((".", ":"))
        assert "\n" not in words
        assert not re.search(r"\bsee\b|\w\(\)", words, re.I)


def test_words_of_a_class_are_its_first_paragraph():
    class One:
        """Types and `lengths` of
        rows; see BracketConfig. At most two.

        More, see below.
        """

    class Two:
        """A thing. See `hf_synth.views`.

        >>> 1
        1
        """

    assert words_of(One) == "Types and `lengths` of rows. At most two."
    assert words_of(Two) == "A thing."


@pytest.mark.parametrize(
    ("readme", "ours"),
    [
        ("", True),
        ("---\nlicense: mit\n---\n", True),
        ("---\ntags:\n- hf_synth\n---\n\n# Words\n", True),
        ("---\nlicense: mit\n---\n\n# My own words\n", False),
        ("# My own words\n", False),
        ("# My own words about hf_synth\n---\ntags: [hf_synth]\n---\n", False),
        ("---\n: : :\n---\nwords", False),
    ],
)
def test_readmes_of_others_are_told_apart(readme, ours):
    assert is_ours(readme) is ours


def test_readme_of_others_is_not_overwritten(tmp_path):
    (tmp_path / "README.md").write_text("# My project\n")
    with pytest.raises(ValueError, match=r"has a README.md that was not written by hf_synth"):
        publish(TRIAL, configs("sort-8"), tmp_path, None, private=False)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_corpora_say_what_their_splits_share(tmp_path):
    corpora = Publication("corpora", "Corpora", "Of a language.", lambda: offered_corpora("tivari3"))
    names = ("tivari3-examples", "tivari3-explanations-10", "tivari3-explanations-100")
    made = [corpora.offers()[name](Choices(rows=ROWS)) for name in names]
    publish(corpora, made, tmp_path, None, private=False)
    text = (tmp_path / "README.md").read_text("utf-8")
    shared = {name: line["test in train"] for name, line in table(text, "Configs").items()}
    assert shared == dict(zip(names, ("0", "5 (10.0 %)", "50 (100.0 %)"), strict=True))
    assert "explanations are the same statements in every split; examples are kept apart" in text
    loaded = datasets.load_dataset(str(tmp_path), names[1], split="train", cache_dir=str(tmp_path / "cache"))
    assert Counter(loaded["kind"]) == {"example": 270, "explanation": 30}
    examples = [row["text"] for row in loaded if row["kind"] == "example"]
    assert examples == load_dataset("tivari3", split="train", size=270, view="text", holdout="content")["text"][:]


# Anything that has names, splits and tables can be published


@dataclasses.dataclass(frozen=True)
class Letters:
    """Texts that are no task's, some of them in both splits."""

    name: str = "letters"
    group: str = "letters"
    content: str = "text"
    splits: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"train": 26, "test": 4})
    features: Features = dataclasses.field(default_factory=lambda: Features({"text": Value("string")}))

    def table(self, split: str, start: int, count: int) -> pa.Table:
        letters = "abcdefghijklmnopqrstuvwxyz" if split == "train" else "a1b2"
        return pa.table({"text": list(letters[start : start + count])}, schema=self.features.arrow_schema)

    def spec(self, split: str) -> dict:
        return {"letters": 1, "split": split}

    def facts(self) -> dict:
        row = self.table("train", 0, 1).to_pylist()[0]
        return {
            "seed": 0,
            "about": "Letters.",
            "config": {},
            "holdout": "none",
            "source": "the alphabet",
            "version": 1,
            "example": {"split": "train", "row": row},
        }


def test_what_is_no_task_is_published_too(tmp_path):
    alphabet = Publication("letters", "Letters", "Of the alphabet.", lambda: {"letters": lambda choices: Letters()})
    publish(alphabet, [Letters()], tmp_path, None, private=False)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert table(text, "Overlap between splits")["letters"]["rows of test in train"] == "2 (50.0 %)"
    assert "## The entropy floor" not in text
    loaded = datasets.load_dataset(str(tmp_path), "letters", split="test", cache_dir=str(tmp_path / "cache"))
    assert loaded["text"][:] == list("a1b2")
