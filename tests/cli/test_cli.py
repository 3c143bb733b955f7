"""The command hf-synth as its users see it: tables, rows, files, closed pipes and one-line errors."""

import gzip
import json
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_synth import __version__, get_task, list_tasks, load_dataset
from hf_synth.cli import main
from hf_synth.cli.show import compared, shortened
from hf_synth.cli.tasks import laid_out
from hf_synth.tasks import task_class

COMMAND = str(Path(sys.executable).with_name("hf-synth"))


@pytest.fixture
def printed(capsys):
    """What a subcommand prints on standard output."""

    def run(*arguments: str) -> str:
        main(arguments)
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys):
    """The one line on standard error of a subcommand that ends in exit code 2, and what it printed before."""

    def run(*arguments: str) -> tuple[str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        printed = capsys.readouterr()
        return printed.err.strip(), printed.out

    return run


# tasks


def test_table_holds_every_task_with_all_presets(printed):
    header, *lines = printed("tasks").splitlines()
    assert header.split()[0] == "task"
    assert [line.split()[0] for line in lines] == list_tasks()
    for line, name in zip(lines, list_tasks(), strict=True):
        assert line.endswith(", ".join(task_class(name).presets))


def test_tasks_as_json_hold_the_whole_config_of_each_preset(printed):
    listed = {entry["name"]: entry for entry in json.loads(printed("tasks", "--json"))}
    assert sorted(listed) == list_tasks()
    entry = listed["sort"]
    assert list(entry) == ["name", "about", "presets", "verifiable", "source"]
    assert entry["presets"]["8"] == json.loads(get_task("sort", "8").config.to_json())
    assert entry["verifiable"] is True
    assert all(list(entry["presets"]) == list(task_class(name).presets) for name, entry in listed.items())


def test_a_narrow_table_has_presets_below():
    table = [("task", "what", "presets"), ("a", "about a", "x, y, z"), ("long", "about long", "x, " * 20 + "x")]
    assert laid_out(table, None) == laid_out(table, 200)
    narrow = laid_out(table, 40)
    assert narrow[2:4] == ["a     about a", "      x, y, z"]
    assert all(len(line) <= 40 for entry in narrow for line in entry.splitlines())
    assert " ".join(narrow).split() == " ".join(" ".join(row) for row in table).split()


# show


def test_show_prints_prompt_target_and_floor(printed):
    text = printed("show", "sort", "--preset", "8", "--size", "1")
    row = load_dataset("sort", "8", split="train", size=1, view="prompt_completion")[0]
    assert f"prompt    <bos> {row['prompt']}\n" in text
    assert f"target   {row['completion']} <eos>\n" in text
    assert "floor     0.0000 nats/token" in text


@pytest.mark.parametrize("name", list_tasks())
def test_what_a_task_is_fits_a_line(name):
    about = (sys.modules[task_class(name).__module__].__doc__ or "").splitlines()[0]
    assert len(about) <= 70
    assert about.endswith(".")
    assert ": " in about


@pytest.mark.parametrize("name", list_tasks())
def test_show_works_for_every_task(name, printed):
    text = printed("show", name, "--size", "2", "--violations")
    assert "row 1" in text
    if task_class(name).verifiable:
        assert all(f"violation {kind} (" in text for kind in get_task(name).violations())


def test_show_gives_the_floor_of_each_row(printed):
    task = get_task("tivari", max_middle=4)
    rows = task.rows(0, 3, split="test", seed=5)
    floors = -task.optimal_log_probs(rows).sum(axis=1) / rows.loss_mask.sum(axis=1)
    arguments = ("--task_args", '{"max_middle": 4}', "--size", "3", "--split", "test", "--seed", "5")
    text = printed("show", "tivari", *arguments)
    assert [line.split()[1] for line in text.splitlines() if line.startswith("  floor")] == [
        f"{f:.4f}" for f in floors
    ]


def test_long_rows_are_shortened_in_the_middle():
    words = [str(number) for number in range(100)]
    assert shortened(words, 20) == " ".join([*words[:10], "… 80 more …", *words[90:]])
    assert shortened(words, 3) == "0 1 … 97 more … 99"
    assert shortened(words, 0) == shortened(words, 100) == " ".join(words)


def test_violation_is_marked_word_by_word():
    def marked(wrong: str, right: str, most: int = 0) -> str:
        return compared(*(np.array(text.split(), object) for text in (wrong, right)), most)

    assert marked("a b x d", "a b c d") == "a b >x< d"
    assert marked("a y c x", "a b c d") == "a >y< c >x<"
    assert marked("a b x c d", "a b c d") == "a b >x< c d"
    assert marked("a d", "a b c d") == "a >< d"
    assert marked("a a", "a a a") == "a a ><"
    assert marked("x", "a b") == ">x<"


def test_violation_stands_in_the_middle_of_what_is_shown():
    right = np.array([str(number) for number in range(100)], object)
    wrong = right.copy()
    wrong[[50, 90]] = "x"
    assert compared(wrong, right, 5) == "48 more … 48 49 >x< 51 52 … 47 more"
    wrong[1] = "x"
    assert compared(wrong, right, 5) == "0 >x< 2 3 4 … 95 more"
    assert compared(right, np.append(right[:98], "y"), 5) == "95 more … 95 96 97 >98< >99<"
    assert compared(right[:99], right, 5) == "95 more … 95 96 97 98 ><"
    assert compared(wrong, right, 0).count(">x<") == 3


def test_show_marks_the_violation_of_a_long_row(printed):
    arguments = ("--preset", "k64-l2048", "--size", "1", "--violations", "--words", "9")
    kinds = printed("show", "dyck", *arguments).split("violation ")[1:]
    assert all(re.search(r">\S*<", text) for text in kinds)


def test_show_names_the_preset_and_begins_every_text_alike(printed):
    text = printed("show", "tivari", "--preset", "long", "--task_args", '{"max_middle": 3}', "--violations")
    assert text.startswith("tivari long max_middle=3 {")
    assert "\n  <bos> <tivari> " in text.split("violation ")[1]
    assert printed("show", "tivari").startswith("tivari default {")


def test_show_draws_trees(printed):
    assert "row 1\n" in printed("show", "rlm", "--preset", "v6-l2-b1", "--size", "2", "--tree")


def test_show_draws_the_token_distribution(printed, tmp_path):
    path = tmp_path / "tokens.png"
    assert printed("show", "tivari3", "--figure", str(path)) == f"{path}\n"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_show_of_a_task_in_a_file_of_ones_own(printed, tmp_path):
    path = tmp_path / "my_tivari.py"
    path.write_text(Path(sys.modules[task_class("tivari").__module__].__file__).read_text().replace("XAQ", "QAX"))
    assert "QAX" in printed("show", str(path), "--size", "1")


# export


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet", "arrow"])
@pytest.mark.parametrize("view", ["tokens", "preference"])
def test_exported_file_holds_the_rows_of_the_dataset(view, ending, printed, tmp_path):
    path = tmp_path / f"rows.{ending}"
    arguments = ("--preset", "8", "--size", "25", "--split", "test", "--seed", "3", "--view", view)
    printed("export", "sort", *arguments, "--output", str(path))
    assert read(path) == load_dataset("sort", "8", size=25, split="test", seed=3, view=view).to_list()


def read(path: Path) -> list[dict]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".arrow":
        return pa.ipc.open_file(path.read_bytes()).read_all().to_pylist()
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.decode().splitlines()]


def test_export_without_a_file_prints_json_lines(printed):
    lines = printed("export", "tivari", "--size", "3").splitlines()
    assert [json.loads(line) for line in lines] == load_dataset("tivari", split="train", size=3, view="text").to_list()


def test_export_joins_its_blocks(printed, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_synth.cli.export._BLOCK_ROWS", 4)
    printed("export", "tivari", "--size", "10", "--output", str(tmp_path / "rows.parquet"))
    assert read(tmp_path / "rows.parquet") == load_dataset("tivari", split="train", size=10, view="text").to_list()


def test_same_export_gives_the_same_bytes(printed, tmp_path):
    for ending in ("jsonl.gz", "parquet", "arrow"):
        paths = [tmp_path / f"{name}.{ending}" for name in ("one", "two")]
        for path in paths:
            printed("export", "tivari", "--size", "10", "--output", str(path))
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_failed_export_leaves_an_earlier_file_and_nothing_else(refused, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("before")
    message = refused("export", "tivari", "--size", "10", "--split", "test", "--overwrite", "--output", str(path),
                      "--task_args", '{"max_middle": 2, "holdout": "content"}')  # fmt: skip
    assert 'holdout="content" leaves the test split empty' in message[0]
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("rows.jsonl", "before")]


def test_a_file_is_replaced_only_where_that_is_asked_for(printed, refused, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("before")
    arguments = ("export", "tivari", "--size", "3", "--output", str(path))
    assert "rows.jsonl is there already; give another name, or replace it" in refused(*arguments)[0]
    assert path.read_text() == "before"
    printed(*arguments, "--overwrite")
    assert len(read(path)) == 3
    assert "is a folder, wanted a file" in refused(*arguments[:-1], str(tmp_path), "--overwrite")[0]


# Errors, pipes and terminals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "sorted"), "got unknown task 'sorted'; did you mean 'sort'?"),
        (("show", "sort", "--preset", "9"), "task sort: got unknown preset '9'"),
        (("show", "sort", "--task_args", "{length: 5}"), "task_args: got '{length: 5}', wanted JSON"),
        (("show", "sort", "--task_args", "[1]"), "task_args: got [1], wanted a mapping"),
        (("show", "sort", "--task_args", '{"len": 1}'), "SequenceConfig: got unknown field 'len'"),
        (("show", "sort", "--size", "0"), "got size=0, words=80; wanted at least 1 row"),
        (("show", "sort", "--words", "-1"), "got size=5, words=-1; wanted at least 1 row and 0 words"),
        (("show", "sort", "--tree"), "task sort: its rows have no tree"),
        (("show", "sort", "--figure", "a.jpg"), "figure: got 'a.jpg', wanted a name that ends in .png"),
        (("show", "nothing", "--figure", "png"), "figure: got 'png', wanted a name that ends in .png"),
        (("show", "sort", "--figure", "no/such/folder/a.png"), "figure: no/such/folder/a.png cannot be written"),
        (("export", "sort"), "task sort never ends: got size=None"),
        (("export", "sort", "--size", "1", "--view", "texts"), "got unknown view 'texts'; did you mean 'text'?"),
        (("export", "sort", "--size", "1", "--output", "a.csv"), "got output 'a.csv', wanted a file name that ends"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(arguments, message, refused):
    line, printed = refused(*arguments)
    assert printed == ""
    assert line.startswith("hf-synth: error: ")
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "sort", "--size", "5", "--output", "a.jsonl"), "interrupted; nothing was written"),
        (("export", "sort", "--size", "5"), "interrupted"),
        (("corpus", "tivari", "--size", "5", "--output", "a"), "interrupted; the same command goes on where it stood"),
        (("corpus", "tivari", "--size", "5", "--output", "-"), "interrupted"),
        (("show", "sort"), "interrupted"),
    ],
)
def test_an_interruption_says_what_became_of_the_output(arguments, message, tmp_path, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(task_class(arguments[1]), "rows", interrupt)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"hf-synth: {message}"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_version_and_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"hf-synth {__version__}\n")
    main([])
    assert "{tasks,show,check,export,compare,explore,corpus,recipes,report}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["tasks", "show", "check", "export", "explore", "corpus", "report"])
def test_help_ends_with_a_command_to_try(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"example: hf-synth {command} ")


@pytest.mark.processes
def test_closed_pipe_ends_quietly():
    command = f"{COMMAND} export sort --size 200000 | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


@pytest.mark.processes
def test_colour_is_for_terminals_alone(printed):
    piped = printed("tasks")
    plain = on_terminal([COMMAND, "tasks"], NO_COLOR="1")
    assert "\x1b" not in piped + plain
    assert plain.replace("\r\n", "\n") == piped
    assert "\x1b[1mtask " in on_terminal([COMMAND, "tasks"], TERM="xterm")


@pytest.mark.processes
def test_progress_bar_is_for_terminals_alone(tmp_path, capsys):
    flags = ["export", "tivari", "--size", "20000", "--overwrite", "--output", str(tmp_path / "a.parquet")]
    main(flags)
    assert capsys.readouterr().err == ""
    assert "tivari: 100%" in on_terminal([COMMAND, *flags])


def on_terminal(command: list[str], **environment: str) -> str:
    """What a command writes where standard output and error are a terminal."""
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, 400))
    # The terminal says its width: workers of xdist have COLUMNS in the environment, which takes precedence.
    inherited = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(command, stdout=terminal, stderr=terminal, env={**inherited, **environment})
    os.close(terminal)
    text = b""
    while True:
        try:
            text += os.read(master, 4096)
        except OSError:  # the other end is closed
            break
    assert process.wait() == 0
    return text.decode()


def test_the_gallery_shows_every_task_as_it_is(printed):
    page = (Path(__file__).parents[2] / "docs" / "gallery.md").read_text(encoding="utf-8")
    assert printed("tasks", "--markdown") == page
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == list(list_tasks())
