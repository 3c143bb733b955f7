"""Publishing: what arrives on the Hub loads without this package, nothing is sent twice, and errors are one line."""

import subprocess
from collections import Counter
from collections.abc import Callable

import pytest

from hf_synth import get_task

pytestmark = pytest.mark.processes

# A publication of two tasks in shards of 40 rows, and the shared command line over it, run with each list of flags.
SCRIPT = """
import os, sys
from pathlib import Path
from hf_synth.hub import command, repository, shards
from hf_synth.hub.publication import Publication, offered_tasks

shards.SHARD_ROWS = 40
repository._SHARDS_A_COMMIT = 2
repository._PAUSES = (0.05, 0.05)
trial = Publication("trial", "Trial tasks", "For a test.", lambda: offered_tasks("sort", "tivari3"), "@misc{{trial}}")
sys.argv = ["trial.py"]
for flags in {runs}:
    command.main(trial, [flag.replace("RANK", os.environ.get("RANK", "")) for flag in flags])
"""
ROWS = ("--rows", "train=100", "validation=20", "test=20")
SORT = ("--repo_id", "user/repo", *ROWS, "--configs", "sort-8")
BOTH = (*SORT, "tivari3-short")
SHARDS = {f"train-0000{number}-of-00003" for number in range(3)} | {
    f"{split}-00000-of-00001" for split in ("validation", "test")
}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def publish(client, tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Run the command line against the stand-in in one process, once for each tuple of flags, in the test's folder."""

    def run(*runs: tuple[str, ...], check: bool = True, **env: str) -> subprocess.CompletedProcess:
        flags = [["--output_dir", str(tmp_path / "out"), *run] for run in runs]
        return client(SCRIPT.format(runs=flags), blocked=(), check=check, OMP_NUM_THREADS="1", **env)

    return run


@pytest.fixture
def publish_by_two(client) -> Callable[..., subprocess.CompletedProcess]:
    """Run the command line as two processes."""

    def run(*flags: str) -> subprocess.CompletedProcess:
        code = SCRIPT.format(runs=[list(flags)])
        return client(code, blocked=(), check=False, processes=2, OMP_NUM_THREADS="1")

    return run


def sent(hub) -> Counter:
    """How often each large file arrived."""
    return Counter(request.path for request in hub.seen("PUT", "/lfs/", 200))


def error_of(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_published_configs_load_without_this_package(hub, client, publish):
    done = publish(BOTH)
    assert done.stdout == f"{hub.url}/datasets/user/repo\n", "where the data went, not where most data go"
    files = set(hub.files("user/repo", repo_type="dataset"))
    assert files == {".gitattributes", "README.md", *TOKENIZER} | {
        f"{name}/{file}"
        for name in ("sort-8", "tivari3-short")
        for file in {f"{shard}.parquet" for shard in SHARDS} | {"published.json", *TOKENIZER}
    }
    rows = get_task("sort", "8", holdout="content").rows(0, 100)
    test = get_task("tivari3", "short", holdout="content").rows(0, 20, split="test")
    client(
        f"""
        import json
        from datasets import get_dataset_config_names, load_dataset, load_dataset_builder
        from huggingface_hub import DatasetCard, hf_hub_download

        assert get_dataset_config_names("user/repo") == ["sort-8", "tivari3-short"]
        sort = load_dataset("user/repo", "sort-8")
        assert {{name: len(rows) for name, rows in sort.items()}} == {{"train": 100, "validation": 20, "test": 20}}
        assert sort["train"]["input_ids"][:] == {rows.tokens.tolist()}
        assert sort["train"]["labels"][0] == [-100] * 10 + sort["train"]["input_ids"][0][10:]
        assert load_dataset("user/repo", split="train")[:] == sort["train"][:], "the first config is the default"
        stream = load_dataset("user/repo", "sort-8", split="train", streaming=True)
        assert list(stream) == sort["train"].to_list() and stream.num_shards == 3
        assert list(load_dataset("user/repo", "sort-8", streaming=True)["test"]) == sort["test"].to_list()
        language = load_dataset("user/repo", "tivari3-short", split="test")
        ids = {[row[:length].tolist() for row, length in zip(test.tokens, test.lengths, strict=True)]}
        assert language["input_ids"][:] == ids
        words = json.load(open(hf_hub_download("user/repo", "tivari3-short/published.json", repo_type="dataset")))
        words = words["facts"]["words"]
        assert [" ".join(words[token] for token in row[1:-1]) for row in ids] == language["text"][:]
        info = load_dataset_builder("user/repo", "tivari3-short").info
        assert info.splits["test"].num_examples == 20 and info.features == language.features
        card = DatasetCard.load("user/repo", repo_type="dataset")
        card.validate(repo_type="dataset")
        assert card.data.license == "apache-2.0"
        """
    )
    assert not hub.seen(status=501)


def test_what_is_there_is_not_sent_again(hub, publish):
    """Neither by the same command, nor by one that has lost its folder and makes all shards again."""
    publish(BOTH, BOTH, (*BOTH, "--output_dir", "elsewhere"))
    assert [commit.title for commit in hub.commits("user/repo", repo_type="dataset")] == [
        "Card of 2 configs",
        "tivari3-short/validation-00000-of-00001.parquet and 1 more",
        "tivari3-short/train-00001-of-00003.parquet and 1 more",
        "sort-8/test-00000-of-00001.parquet and 1 more",
        "sort-8/train-00002-of-00003.parquet and 1 more",
        "sort-8/train-00000-of-00003.parquet and 1 more",
        "initial commit",
    ]
    assert len(sent(hub)) == 10
    assert set(sent(hub).values()) == {1}


@pytest.mark.parametrize(("method", "path", "after"), [("PUT", "/lfs/", 3), ("POST", "/commit/", 2)])
def test_killed_while_it_uploads_it_goes_on(method, path, after, hub, publish):
    hub.kill_next(method, path=path, after=after)
    assert publish(BOTH, check=False).returncode == -9
    assert "README.md" not in hub.files("user/repo", repo_type="dataset")
    publish(BOTH)
    assert len(hub.files("user/repo", repo_type="dataset")) == 20
    assert set(sent(hub).values()) == {1}, "what had arrived was not sent again"


def test_commit_that_meets_a_busy_hub_is_tried_again(hub, publish):
    for after, status in enumerate((409, 412, 429, 503)):
        hub.fail_next("POST", path="/commit/", status=status, after=after)
    hub.fail_next("POST", path="/commit/", status=0, after=4, done=True)
    publish(BOTH)
    assert len(hub.files("user/repo", repo_type="dataset")) == 20
    assert len(hub.commits("user/repo", repo_type="dataset")) == 7, "a commit whose answer was lost was not made twice"
    assert set(sent(hub).values()) == {1}


def test_hub_that_stays_busy_is_one_line(hub, publish):
    hub.fail_next("POST", path="/commit/", status=503, times=3)
    assert "503" in error_of(publish(SORT, check=False))


def test_upload_that_the_hub_turns_down_is_one_line(hub, publish):
    hub.fail_next("PUT", path="/lfs/", status=403, times=2)
    message = error_of(publish(SORT, check=False))
    assert message.startswith("trial.py: error: repo_id: the Hub did not take user/repo: ")
    assert "403" in message
    publish(SORT)
    assert len(hub.files("user/repo", repo_type="dataset")) == 12


def test_wrong_token_is_one_line_before_anything_is_made(publish, tmp_path):
    message = error_of(publish(SORT, check=False, HF_TOKEN="hf_wrong"))
    assert message.count("401 Unauthorized") == 1
    assert "HF_TOKEN or `hf auth login` says who you are" in message
    assert not (tmp_path / "out").exists()


def test_configs_published_later_join_the_card(hub, client, publish):
    publish((*SORT, "--private"), (*SORT[:-1], "tivari3-short"))
    assert len(hub.files("user/repo", repo_type="dataset")) == 20
    assert all(hub.repository("user/repo", kind).private for kind in ("dataset", "model"))
    assert hub.commits("user/repo", repo_type="dataset")[0].title == "Card of 2 configs"
    client(
        """
        from datasets import load_dataset

        assert len(load_dataset("user/repo", "sort-8", split="train")) == 100
        assert len(load_dataset("user/repo", "tivari3-short", split="train")) == 100
        """
    )


def test_other_sizes_replace_the_shards_of_before(hub, client, publish):
    publish(SORT, (*SORT, "--rows", "train=60", "validation=20", "test=20", "--output_dir", "elsewhere"))
    names = {path for path in hub.files("user/repo", repo_type="dataset") if path.startswith("sort-8/train")}
    assert names == {"sort-8/train-00000-of-00002.parquet", "sort-8/train-00001-of-00002.parquet"}
    client("from datasets import load_dataset\nassert len(load_dataset('user/repo', 'sort-8', split='train')) == 60")


def test_repository_of_others_is_left_alone(hub, publish):
    hub.put("user/repo", {"README.md": "# My own words\n", "sort-8/train-00000-of-00001.parquet": b"PAR1"})
    before = hub.files("user/repo", repo_type="dataset")
    message = error_of(publish(SORT, check=False))
    assert "user/repo has a README.md that was not written by hf_synth" in message
    assert hub.files("user/repo", repo_type="dataset") == before


def test_two_machines_without_a_shared_disk_publish_what_one_does(hub, publish, publish_by_two, tmp_path):
    """Each process writes into a folder of its own; the main one makes the card of what both have measured."""
    publish(BOTH)
    done = publish_by_two(*BOTH, "--repo_id", "user/two", "--output_dir", f"{tmp_path}/rankRANK")
    assert done.returncode == 0, done.stderr
    one, two = hub.files("user/repo", repo_type="dataset"), hub.files("user/two", repo_type="dataset")
    assert {path: text.replace(b"user/two", b"user/repo") for path, text in two.items()} == one
    made = [{path.name for path in (tmp_path / f"rank{rank}").rglob("*.parquet")} for rank in (0, 1)]
    assert [len(names) for names in made] == [5, 5], "no shard was made twice"


def test_two_machines_without_a_shared_disk_and_without_the_hub_are_told(publish_by_two, tmp_path):
    done = publish_by_two(*ROWS, "--configs", "sort-8", "--output_dir", f"{tmp_path}/rankRANK")
    assert done.returncode != 0
    assert "are on other machines; wanted a folder that all processes share, or --repo_id" in done.stderr
    assert not list(tmp_path.rglob("README.md"))
