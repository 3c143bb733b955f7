"""The command line: what it understands, and what others load without this package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from preference_pairs.command import chosen_sources, main

from hf_synth.preferences import Source

SCRIPT = Path(__file__).resolve().parents[3] / "datasets_scripts" / "preferences.py"


def test_sources_by_name_and_place():
    given = ["hh", "uf=some/folder", "mine=a.jsonl"]
    known = chosen_sources(given, ["hh=test"], ["mine:prompt=q,chosen=g,rejected=b"])
    columns = {"prompt": "q", "chosen": "g", "rejected": "b"}
    assert known == [
        Source("hh", src="hh", split="test"),
        Source("some/folder", src="uf", default_split="train_prefs"),
        Source("a.jsonl", src="mine", columns=columns),
    ]
    assert chosen_sources(["se"], max_rows=5) == [Source("se", src="se", max_rows=5)]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((["hx"],), "sources: got unknown name 'hx'; known: hh, uf, se, or NAME=PLACE"),
        ((["hh", "hh=a"],), "sources: got 'hh=a', wanted different names"),
        ((["=a"],), "sources: got '=a', wanted different names"),
        ((["hh="],), "sources: got 'hh=', wanted different names"),
        ((["../x=a"],), "sources: got the name '../x', wanted letters"),
        ((["a/b c|d=a"],), "sources: got the name"),
        ((["hh"], ["uf=test"]), "splits: got 'uf', which is none of the sources hh"),
        ((["hh"], ["hh"]), "splits: got 'hh', wanted NAME="),
        ((["hh"], [], ["hh:prompt"]), "columns: got hh:prompt, wanted hh:prompt=YOURS"),
        ((["hh"], [], ["hh:promt=q"]), "columns: got unknown name 'promt'; did you mean 'prompt'"),
        ((["hh"], [], [], 0), "max_rows: got 0, wanted at least 1"),
    ],
)
def test_sources_that_are_none(arguments, wanted):
    with pytest.raises(ValueError, match=wanted):
        chosen_sources(*arguments)


def words(places, folder) -> list[str]:
    """The script's command line for these sources."""
    given = [f"{name}={place}" for name, place in places.items()]
    return [str(SCRIPT), "--sources", *given, "--output_dir", str(folder), "--density_k", "4"]


@pytest.mark.processes
def test_the_script_prints_what_became_of_the_sources_and_others_load_it(places, tmp_path, client):
    command = [sys.executable, *words(places, tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].startswith("hh | hh-rlhf | 34 | not JSON: 1, missing field: 1 | 32 | duplicate pair: 1, near-dup")
    assert lines[-1] == str(tmp_path / "made" / "README.md")
    assert "embed 61 prompts, measure density: " in done.stderr
    card = (tmp_path / "made" / "README.md").read_text("utf-8")
    assert "| uf | ultrafeedback | 20 | scores are equal: 1 | 19 | near-duplicate prompt: 1 | 18 | 17 |" in card
    assert "found by `sklearn` with recall 1.000" in card
    loaded = client(
        f"""
        from datasets import load_dataset

        place = {str(tmp_path / "made")!r}
        parts = {{name: load_dataset(place, name, split="train") for name in ("pairs", "prompts", "id_to_prompt")}}
        print([len(part) for part in parts.values()], load_dataset(place, split="train").column_names)
        """
    )
    columns = ["id", "prompt_id", "src", "prompt", "chosen", "rejected", "density", "sampling_weight"]
    assert loaded.stdout == f"[78, 61, 63] {columns}\n"


@pytest.mark.processes
def test_published_and_published_again(places, tmp_path, hub, client):
    publish = f"""
        import runpy, sys

        sys.path.insert(0, {str(SCRIPT.parent)!r})
        sys.argv = {[*words(places, tmp_path / "made"), "--repo_id", "user/pairs"]!r}
        runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
        """
    client(publish, blocked=())
    published = {"README.md", "counts.json"}  # dropped rows may hold what is no part of a pair
    published |= {f"{name}/published.json" for name in ("pairs", "prompts", "id_to_prompt")}
    published |= {f"{name}/train-00000-of-00001.parquet" for name in ("pairs", "prompts", "id_to_prompt")}
    assert set(hub.files("user/pairs")) - {".gitattributes"} == published
    assert not any(str(tmp_path).encode() in content for content in hub.files("user/pairs").values())
    assert json.loads(hub.files("user/pairs")["counts.json"])["weights"]["pairs"]["rows"] == 78
    sent = len(hub.seen("PUT", "/lfs/", 200))
    client(publish, blocked=())
    assert len(hub.seen("PUT", "/lfs/", 200)) == sent, "what is there is not sent again"
    loaded = client(
        """
        from datasets import load_dataset

        prompts = load_dataset("user/pairs", "prompts", split="train", streaming=True)
        print(len(load_dataset("user/pairs", split="train")), len(list(prompts)))
        """
    )
    assert loaded.stdout == "78 61\n"


def refusal(places, folder, capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--sources", f"hh={places['hh']}", "--output_dir", str(folder)])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_folder_in_which_another_command_is_at_work(places, tmp_path, capsys):
    with FileLock(tmp_path / ".lock"):
        assert "is locked by another process" in refusal(places, tmp_path, capsys)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == []


def test_a_file_is_no_folder(places, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert "which is a file; wanted a directory" in refusal(places, tmp_path / "file", capsys)


def test_a_card_of_others_is_not_replaced(places, tmp_path, capsys):
    (tmp_path / "README.md").write_text("My own words.")
    with pytest.raises(SystemExit) as ended:
        main(["--sources", f"hh={places['hh']}", "--output_dir", str(tmp_path)])
    assert ended.value.code == 2
    assert "that was not written by hf_synth" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "My own words."
