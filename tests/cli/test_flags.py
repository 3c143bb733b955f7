"""Every flag of every subcommand changes what it prints or writes; those of others have tests that are named."""

import argparse
import hashlib
import importlib.util
import json
import re
import runpy
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from hf_synth import corpora
from hf_synth.cli import _parser, main

SHOW = "show sort --preset 8 --size 2"
EXPORT = "export sort --preset 8 --size 3"
CORPUS = "corpus tivari --size 20 --output - --kind"
MIXED = f"{CORPUS} --canonical text.txt --mix_ratio 0.5"
ARMS = "compare arms"
COUNTED = f"{MIXED} --tokenizer policy --mix_unit tokens"
CASES = {
    "tasks": {"json": ("tasks", "--json")},
    "show": {
        "task": (SHOW, SHOW.replace("sort", "delete")),
        "preset": (SHOW, "--preset 16"),
        "task_args": (SHOW, '--task_args {"length":5}'),
        "split": (SHOW, "--split test"),
        "seed": (SHOW, "--seed 1"),
        "size": (SHOW, "--size 3"),
        "words": (SHOW, "--words 3"),
        "violations": (SHOW, "--violations"),
        "tree": ("show dyck --preset k2-l16 --size 1", "--tree"),
    },
    "export": {
        "task": (EXPORT, EXPORT.replace("sort", "delete")),
        "preset": (EXPORT, "--preset 16"),
        "task_args": (EXPORT, '--task_args {"length":5}'),
        "split": (EXPORT, "--split test"),
        "seed": (EXPORT, "--seed 1"),
        "size": (EXPORT, "--size 4"),
        "view": (EXPORT, "--view prompt"),
        "output": (EXPORT, "--output rows.jsonl"),
    },
    "corpus": {
        "task": (CORPUS, CORPUS.replace("tivari", "agreement")),
        "preset": (CORPUS, "--preset long"),
        "task_args": ("corpus sort --size 3 --output -", '--task_args {"length":5}'),
        "split": (CORPUS, "--split test"),
        "seed": (CORPUS, "--seed 1"),
        "size": (CORPUS, "--size 21"),
        "output": (CORPUS, "--output corpus.jsonl"),
        "kind": (CORPUS.removesuffix(" --kind"), "--kind"),
        "explanation_ratio": (CORPUS, "--explanation_ratio 0.5"),
        "explanation_form": (f"{CORPUS} --explanation_ratio 0.5", "--explanation_form block"),
        "explanation_unit": (
            f"{CORPUS} --explanation_ratio 0.3 --explanation_form block",
            "--explanation_unit tokens",
        ),
        "canonical": (CORPUS, "--canonical text.txt"),
        "mix_ratio": (MIXED, "--mix_ratio 0.2"),
        "mix_unit": (MIXED, "--mix_unit tokens"),
        "document": (MIXED, "--document line"),
        "text_column": (MIXED.replace("text.txt", "table.jsonl"), "--text_column other"),
        "repeat": (MIXED.replace("--size 20", "--size 900"), "--repeat"),
        "tokenizer": (COUNTED.replace("--tokenizer policy ", ""), "--tokenizer policy"),
    },
    "compare": {
        "folder": (ARMS, ARMS.replace("arms", "more")),
        "primary": (ARMS, "--primary loss"),
        "better": (f"{ARMS} --primary loss", "--better higher"),
        "smallest_effect": (f"{ARMS} --primary accuracy", "--smallest_effect 0.5"),
        "against": (ARMS, "--against b"),
        "varied": (ARMS.replace("arms", "other"), "--varied width"),
        "common_seeds": (ARMS.replace("arms", "uneven"), "--common_seeds"),
    },
}
NAMED = {
    "tasks": {"markdown": "test_the_gallery_shows_every_task_as_it_is"},
    "show": {"figure": "test_show_draws_the_token_distribution"},
    "export": {"overwrite": "test_a_file_is_replaced_only_where_that_is_asked_for"},
    "corpus": {
        "overwrite": "test_a_finished_corpus_is_replaced_only_where_that_is_asked_for",
        **dict.fromkeys(
            ("canonical_config", "canonical_split", "canonical_revision"), "test_text_of_the_hub_is_asked_for"
        ),
    },
    "compare": {"config": "test_the_records_beside_a_page_say_what_the_page_says"},
    "check": dict.fromkeys(("task", "preset"), "test_installed_task_is_checked_by_name"),
    "explore": dict.fromkeys(("runs", "host", "port"), "test_the_page_is_served_where_it_is_asked_for"),
    "recipes": {"folder": "test_recipes_are_copied_to_the_folder_named"},
    "report": {"folder": "test_the_lines_of_a_slurm_array_make_the_comparison"},
}


def test_every_flag_has_a_test():
    (commands,) = (each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction))
    flags = {name: {each.dest for each in parser._actions} - {"help"} for name, parser in commands.choices.items()}
    assert {name: CASES.get(name, {}).keys() | NAMED.get(name, {}).keys() for name in flags} == flags
    sources = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("*.py"))
    assert [test for named in NAMED.values() for test in named.values() if f"\ndef {test}(" not in sources] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the flags name."""
    folder = tmp_path_factory.mktemp("flags")
    texts = [f"Line {row} is number {row * row}.\nIt is followed by {row + 1}." for row in range(200)]
    (folder / "text.txt").write_text("\n\n".join(texts))
    rows = [json.dumps({"text": text, "other": f"Other {text}"}) for text in texts]
    (folder / "table.jsonl").write_text("\n".join(rows))
    tokenizer = Tokenizer(WordLevel({"<unk>": 0, "Line": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder / "policy")
    for place, seeds, width, shift in (("arms", 8, 1, 0), ("more", 8, 1, 1), ("other", 8, 2, 0), ("uneven", 9, 1, 0)):
        for arm in "ab":
            for seed in range(seeds if arm == "b" else 8):
                run = folder / place / arm / f"seed-{seed}"
                run.mkdir(parents=True)
                metrics = {
                    "loss": ord(arm) * (1 + shift) + (seed * ord(arm) % 7) / 100,
                    "accuracy": seed / 9 + (seed * ord(arm) % 5) / 1000,
                }
                (run / "metrics.json").write_text(json.dumps(metrics))
                (run / "config.yaml").write_text(json.dumps({"width": width if arm == "b" else 1}))
    return folder


@pytest.mark.parametrize(
    ("command", "flag"), [(command, flag) for command, flags in CASES.items() for flag in flags], ids=str
)
def test_a_flag_changes_what_the_command_does(command, flag, folder, tmp_path, capsys, monkeypatch):
    base, change = CASES[command][flag]
    monkeypatch.chdir(tmp_path)

    def done(line):
        for path in tmp_path.iterdir():
            path.unlink()
        for path in folder.iterdir():
            Path(path.name).symlink_to(path)
        code = 0
        try:
            main(line.split())
        except SystemExit as ended:
            code = ended.code
        files = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir() if path.is_file()
        }
        return code, *capsys.readouterr(), files

    first = done(base)
    assert done(base) == first
    changed = done(change if change.startswith(command) else f"{base} {change}")
    assert changed != first
    assert changed[0] == 0


@pytest.mark.parametrize(
    "flag", ["mix_ratio 0.5", "mix_unit tokens", "document line", "text_column a", "repeat", "canonical_split test"]
)
def test_what_is_said_of_canonical_text_wants_some(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        main(f"corpus tivari --size 5 --output - --{flag}".split())
    assert ended.value.code == 2
    assert re.search(rf"error: {flag.split()[0]}: got \S+ and no --canonical, wanted", capsys.readouterr().err)


def test_text_of_the_hub_is_asked_for(monkeypatch, tmp_path):
    asked = {}

    def canonical_text(source, **options):
        asked.update(options, source=source)
        raise ValueError("enough")

    monkeypatch.setattr(corpora, "canonical_text", canonical_text)
    flags = "--canonical a/b --canonical_config c --canonical_split s --canonical_revision r"
    with pytest.raises(SystemExit):
        main(f"corpus tivari --size 5 --output {tmp_path / 'out.jsonl'} {flags}".split())
    assert {"source": "a/b", "config": "c", "split": "s", "revision": "r"}.items() <= asked.items()


def test_a_finished_corpus_is_replaced_only_where_that_is_asked_for(tmp_path, capsys):
    flags = ["corpus", "tivari", "--size", "5", "--output", str(tmp_path / "out.jsonl")]
    main(flags)
    before = (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(SystemExit):
        main([*flags, "--seed", "1"])
    assert (tmp_path / "out.jsonl").read_bytes() == before
    main([*flags, "--seed", "1", "--overwrite"])
    assert (tmp_path / "out.jsonl").read_bytes() != before


def test_the_page_is_served_where_it_is_asked_for(monkeypatch):
    served = []

    class Page:
        def __init__(self, runs):
            served.append(runs)

        def launch(self, **options):
            served.append(options)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(runpy, "run_path", lambda path: {"app": Page})
    main(["explore", "my_runs", "--host", "0.0.0.0", "--port", "1"])
    assert served == [Path("my_runs"), {"server_name": "0.0.0.0", "server_port": 1}]


def test_recipes_are_copied_to_the_folder_named(tmp_path):
    main(["recipes", str(tmp_path / "mine")])
    assert (tmp_path / "mine" / "grpo.py").is_file()
    assert (tmp_path / "mine" / "configs" / "density" / "quickstart.yaml").is_file()
