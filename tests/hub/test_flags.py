"""Every flag of every command of datasets_scripts changes what it prints or writes; or a test of it is named."""

import argparse
import hashlib
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hf_synth.hub import command

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "datasets_scripts"))
TASK = """
from hf_synth.tasks.sort import Sort


class Mine(Sort):
    name = "mine"
"""
ROWS = "--rows train=5 validation=5 test=5"
BASES = {
    "procedural": f"{ROWS} --configs sort-8",
    "grammars": f"{ROWS} --configs tivari-default",
    "rlm": f"{ROWS} --configs rlm-v6-l2-b1",
    "analogy": "--configs analogy-e10",
    "publish": f"mine.py {ROWS} --configs mine-8",
    "preferences": "--density_k 3 --sources a=a.jsonl b=b.jsonl",
}
PAIRS = BASES["preferences"]
PUBLISHED = {
    "output_dir": "--output_dir other",
    "rows": "--rows train=6 validation=5 test=5",
    "seed": "--seed 1",
    "view": "--view text",
    "list": "--list",
}
CASES = {name: {flag: (BASES[name], change) for flag, change in PUBLISHED.items()} for name in BASES} | {
    "preferences": {
        "sources": (PAIRS, "c=c.jsonl"),
        "splits": (f"{PAIRS} c=folder", "--splits c=test"),
        "columns": (f"{PAIRS} c=named.jsonl", "--columns c:prompt=asked,chosen=good,rejected=other"),
        "max_rows": (PAIRS, "--max_rows 5"),
        "output_dir": (PAIRS, "--output_dir other"),
        "jsonl": (PAIRS, "--jsonl"),
        "near_duplicates": (PAIRS, "--near_duplicates keep"),
        "similarity": (PAIRS, "--similarity 0.99"),
        "density_k": (PAIRS, "--density_k 4"),
        "density_estimator": (PAIRS, "--density_estimator mean_distance"),
        "density_smoothing": (PAIRS, "--density_smoothing 1"),
        "sampling_strength": (PAIRS, "--sampling_strength 0.5"),
        "max_ratio": (PAIRS, "--max_ratio 1.01"),
    }
}
# Of analogy: finite sets, which have all their rows.
del CASES["analogy"]["rows"]
for name, other in {"procedural": "reverse-8", "grammars": "agreement-default", "rlm": "rlm-v6-l2-b2"}.items():
    CASES[name]["configs"] = (BASES[name], other)
CASES["analogy"] |= {
    "configs": (BASES["analogy"], "analogy-e10-inverse"),
    "holdout": (BASES["analogy"], "--holdout content"),
}
CASES["publish"] |= {"configs": (BASES["publish"], "mine-16"), "tasks": ("--list mine.py", "yours.py")}
CASES["procedural"]["holdout"] = (BASES["procedural"], "--holdout none")
CASES["grammars"]["holdout"] = (BASES["grammars"], "--holdout none")
CASES["rlm"]["holdout"] = (BASES["rlm"], "--holdout content")
CASES["publish"]["holdout"] = (BASES["publish"], "--holdout none")
UPLOADS = {
    "repo_id": "test_tasks_and_pairs_in_one_repository",
    "private": "test_a_new_repository_is_private_where_that_is_asked_for",
    "overwrite_card": "test_a_card_of_others_is_replaced_only_when_asked_for",
}
FINITE = {"rows": "test_what_a_command_would_not_act_on_is_refused"}
NAMED = dict.fromkeys(BASES, UPLOADS) | {"preferences": {**UPLOADS, "embedder": "test_prompts_are_embedded_as_asked"}}
NAMED["analogy"] = {**UPLOADS, **FINITE}


def script(name):
    return importlib.import_module("preference_pairs.command" if name == "preferences" else name)


def run(name, argv):
    """The command; each script of published tasks hands its own publication on."""
    main = command.main if hasattr(script(name), "offers") else script(name).main
    main(script(name).PUBLICATION, argv) if main is command.main else main(argv)


@pytest.mark.parametrize("name", BASES)
def test_every_flag_has_a_test(name, monkeypatch):
    flags = set()

    def parse(parser, argv):
        flags.update(action.dest for action in parser._actions)
        raise KeyboardInterrupt

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises(KeyboardInterrupt):
        run(name, [])
    assert CASES[name].keys() | NAMED[name].keys() == flags - {"help"}
    sources = "".join(path.read_text() for path in Path(__file__).parent.rglob("*.py"))
    assert [test for test in NAMED[name].values() if f"\ndef {test}(" not in sources] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the flags name."""
    folder = tmp_path_factory.mktemp("flags")
    (folder / "mine.py").write_text(TASK)
    (folder / "yours.py").write_text(TASK.replace("mine", "yours"))
    (folder / "folder").mkdir()

    def write(path, first, names=("prompt", "chosen", "rejected")):
        rows = [(f"Say the number {row} and {row * row}", f"{row}", f"{row + 1}") for row in range(first, first + 12)]
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        lines.append(
            json.dumps(dict(zip(names, (rows[0][0] + "!", "0", "1"), strict=True)))
        )  # nearly repeats the first
        (folder / path).write_text("\n".join(lines))

    for number, path in enumerate(("a.jsonl", "b.jsonl", "c.jsonl", "folder/train.jsonl", "folder/test.jsonl")):
        write(path, 20 * number)
    write("named.jsonl", 200, ("asked", "good", "other"))
    return folder


@pytest.mark.parametrize(("name", "flag"), [(name, flag) for name, flags in CASES.items() for flag in flags], ids=str)
def test_a_flag_changes_what_the_command_does(name, flag, folder, tmp_path, capsys, monkeypatch):
    base, change = CASES[name][flag]
    monkeypatch.chdir(tmp_path)

    def done(number, argv):
        (tmp_path / str(number)).mkdir()
        monkeypatch.chdir(tmp_path / str(number))
        for path in folder.iterdir():
            Path(path.name).symlink_to(path)
        code = 0
        try:
            run(name, argv.split())
        except SystemExit as ended:
            code = ended.code
        files = {
            str(path.relative_to(Path.cwd())): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in Path.cwd().rglob("*")
            if path.is_file() and not path.is_symlink() and path.name != ".lock"
        }
        return code, capsys.readouterr().out, files

    first = done(0, base)
    assert done(1, base) == first
    changed = done(2, f"{base} {change}")
    assert changed != first
    assert changed[0] == 0, capsys.readouterr()


def test_prompts_are_embedded_as_asked(folder, tmp_path, monkeypatch):
    weighing, asked = importlib.import_module("preference_pairs.weighing"), []

    def embed(texts, embedder, cache):
        asked.append((embedder, cache.name))
        return np.arange(len(texts) * 2.0).reshape(-1, 2) ** 2

    monkeypatch.setattr(weighing, "embed_texts", embed)
    flags = ["--sources", f"a={folder / 'a.jsonl'}", "--density_k", "3", "--output_dir", str(tmp_path / "made")]
    run("preferences", [*flags, "--embedder", "a/model"])
    assert asked == [("a/model", "embeddings")]


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("procedural", "--configs sort-8 --private", "repo_id: got None, wanted user/name"),
        ("preferences", "--sources a=a.jsonl --private", "repo_id: got None, wanted user/name"),
        ("analogy", "--configs analogy-e10 --rows train=5 --list", "rows: got train=5 of finite sets, wanted none"),
    ],
)
def test_what_a_command_would_not_act_on_is_refused(name, flags, message, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        run(name, [*flags.split(), "--output_dir", str(tmp_path / "made")])
    assert ended.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
