"""Corpora as files and folders: what is in them, and that an interruption leaves no trace in the end."""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from hf_synth import get_task
from hf_synth.cli import main
from hf_synth.corpora import StandIn, arm_stream, interleave, write_corpus
from hf_synth.corpora.streams import Numbered, of_kind

SPEC = {"task": "tivari"}


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """A mark after every block, and small shards."""
    monkeypatch.setattr("hf_synth.corpora.writing._MARK_SECONDS", 0)
    monkeypatch.setattr("hf_synth.corpora.writing.SHARD_DOCUMENTS", 5_000)
    monkeypatch.setattr("hf_synth.corpora.writing._BLOCK", 2_000)


@pytest.fixture(params=["arm", "mixture"])
def make(request):
    """A fresh stream of the same documents."""

    def arm():
        return arm_stream(get_task("tivari"), 0.1)

    if request.param == "arm":
        return arm
    return lambda: interleave(Numbered(StandIn(0)), arm(), ratio=0.3, unit="tokens")


class StoppedError(RuntimeError):
    """What stands for a kill."""


def stop_after(documents: int):
    """A progress that stops the writer once so many documents are written."""
    written = [0]

    def progress(count: int) -> None:
        written[0] += count
        if written[0] >= documents:
            raise StoppedError

    return progress


def read_lines(path: Path) -> list[dict]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [json.loads(line) for line in text.split("\n")[:-1]]


def content(path: Path) -> dict[str, bytes]:
    """All files that are no marks, by name."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    return {file.name: file.read_bytes() for file in files if not file.name.startswith(".")}


# What is written


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "deep/er/a.jsonl"])
@pytest.mark.parametrize("columns", [("text",), ("text", "kind")])
def test_a_file_has_a_document_a_line(make, tmp_path, name, columns):
    path = tmp_path / name
    write_corpus(make(), path, size=6_789, spec=SPEC, columns=columns)
    assert read_lines(path) == make().read(6_789).select(columns).to_pylist()
    assert [file.name for file in path.parent.iterdir()] == [path.name], "no part and no mark is left"


def test_a_folder_is_a_dataset(make, tmp_path):
    folder = tmp_path / "corpus-1.0"
    write_corpus(make(), folder, size=14_000, spec=SPEC)
    write_corpus(make(), folder, size=100, spec=SPEC, split="test")
    assert sorted(content(folder)) == [
        "test-00000-of-00001.parquet",
        *(f"train-{shard:05d}-of-00003.parquet" for shard in range(3)),
    ]
    for split, size in (("train", 14_000), ("test", 100)):
        loaded = datasets.load_dataset(str(folder), split=split)
        assert loaded.to_list() == make().read(size).select(["text"]).to_pylist()


def test_any_text_survives(tmp_path):
    texts = ['"', "\\", "a\nb\r\n\tc", "\0\x1f\x7f", "é 🙂 \u2028", "", " ", '{"text": 1}', "%s %d"]

    class Odd:
        size = len(texts)

        def table(self, start: int, count: int) -> pa.Table:
            return of_kind(pa.array(texts[start : start + count]), "canonical")

    path = tmp_path / "a.jsonl"
    write_corpus(Numbered(Odd()), path, size=len(texts), spec=SPEC, columns=("kind", "text"))
    lines = path.read_bytes().decode().split("\n")[:-1]
    assert lines == [json.dumps({"kind": "canonical", "text": text}, ensure_ascii=False) for text in texts]


def test_progress_adds_up(make, tmp_path):
    for name in ("a.jsonl", "folder"):
        reported: list[int] = []
        write_corpus(make(), tmp_path / name, size=12_345, spec=SPEC, progress=reported.append)
        assert sum(reported) == 12_345


# Interruptions


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "folder"])
@pytest.mark.parametrize("stops", [(1,), (8_000,), (12_000, 15_000), (16_000,)])
def test_an_interrupted_corpus_is_gone_on_with_to_the_same_bytes(make, tmp_path, name, stops):
    whole, path = tmp_path / "whole" / name, tmp_path / name
    write_corpus(make(), whole, size=16_000, spec=SPEC)
    for stop in stops:
        with pytest.raises(StoppedError):
            write_corpus(make(), path, size=16_000, spec=SPEC, progress=stop_after(stop))
        assert not path.is_file(), "never a half-written file"
    reported: list[int] = []
    write_corpus(make(), path, size=16_000, spec=SPEC, progress=reported.append)
    assert content(path) == content(whole)
    assert sum(reported) == 16_000


def test_what_was_written_before_is_not_made_again(tmp_path):
    stream = arm_stream(get_task("tivari"), 0.1)
    with pytest.raises(StoppedError):
        write_corpus(stream, tmp_path / "a.jsonl", size=20_000, spec=SPEC, progress=stop_after(14_000))
    made, make = [], stream.documents.table
    stream.documents.table = lambda start, count: (made.append(count), make(start, count))[1]
    write_corpus(stream, tmp_path / "a.jsonl", size=20_000, spec=SPEC)
    assert sum(made) == 8_000, "the mark of the block before the last one holds"


def test_bytes_after_the_mark_are_cut_off(make, tmp_path):
    whole, path = tmp_path / "whole.jsonl", tmp_path / "a.jsonl"
    write_corpus(make(), whole, size=11_000, spec=SPEC)
    with pytest.raises(StoppedError):
        write_corpus(make(), path, size=11_000, spec=SPEC, progress=stop_after(6_000))
    with (tmp_path / ".a.jsonl.part").open("ab") as part:
        part.write(b'{"text": "half a li')
    write_corpus(make(), path, size=11_000, spec=SPEC)
    assert path.read_bytes() == whole.read_bytes()


def test_a_part_that_lost_bytes_is_written_anew(make, tmp_path):
    whole, path = tmp_path / "whole.jsonl", tmp_path / "a.jsonl"
    write_corpus(make(), whole, size=11_000, spec=SPEC)
    with pytest.raises(StoppedError):
        write_corpus(make(), path, size=11_000, spec=SPEC, progress=stop_after(6_000))
    (tmp_path / ".a.jsonl.part").write_bytes(b"")
    write_corpus(make(), path, size=11_000, spec=SPEC)
    assert path.read_bytes() == whole.read_bytes()


def test_a_lost_shard_is_made_again(make, tmp_path):
    write_corpus(make(), tmp_path / "folder", size=11_000, spec=SPEC)
    before = content(tmp_path / "folder")
    (tmp_path / "folder" / "train-00001-of-00003.parquet").unlink()
    write_corpus(make(), tmp_path / "folder", size=11_000, spec=SPEC)
    assert content(tmp_path / "folder") == before


def test_a_corpus_whose_rows_or_explanations_another_version_made_is_said_to_be_one(make, tmp_path):
    spec = {"task": "tivari", "version": 1, "format": 1, "row_format": 1, "explanations": "a"}
    write_corpus(make(), tmp_path, size=5, spec=spec)
    for name in spec.keys() - {"task"}:
        with pytest.raises(ValueError, match=rf"holds this corpus as another version .*\({name}: .* there, 2 now\)"):
            write_corpus(make(), tmp_path, size=5, spec={**spec, name: 2})
    with pytest.raises(ValueError, match=r"holds another corpus \(task: 'tivari' there, 'sort' now; version: 1 there"):
        write_corpus(make(), tmp_path, size=5, spec={**spec, "task": "sort", "version": 2})


@pytest.mark.parametrize("changed", [{"spec": {"task": "sort"}}, {"size": 10_999}, {"columns": ("text", "kind")}])
@pytest.mark.parametrize("name", ["a.jsonl", "folder"])
def test_an_interrupted_corpus_of_another_kind_is_an_error(make, tmp_path, name, changed):
    arguments = {"size": 11_000, "spec": SPEC}
    with pytest.raises(StoppedError):
        write_corpus(make(), tmp_path / name, **arguments, progress=stop_after(6_000))
    (key,) = changed.get("spec", changed)
    with pytest.raises(ValueError, match=f"holds another corpus .*{key}: .* there, .* now"):
        write_corpus(make(), tmp_path / name, **{**arguments, **changed})


@pytest.mark.parametrize("name", ["a.jsonl", "folder"])
def test_states_of_another_form_are_not_gone_on_with(make, tmp_path, name, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("hf_synth.corpora.writing.STATE_FORMAT", 1)
        with pytest.raises(StoppedError):
            write_corpus(make(), tmp_path / name, size=11_000, spec=SPEC, progress=stop_after(6_000))
    with pytest.raises(ValueError, match=r"holds this corpus as another version .*state: 1 there, 2 now.*--overwrite"):
        write_corpus(make(), tmp_path / name, size=11_000, spec=SPEC)
    with pytest.raises(ValueError, match=r"holds another corpus .*size: 11000 there, 10 now; state: 1 there, 2 now"):
        write_corpus(make(), tmp_path / name, size=10, spec=SPEC)


def test_a_finished_corpus_of_an_earlier_version_is_told_from_another_corpus(make, tmp_path):
    write_corpus(make(), tmp_path, size=11_000, spec=SPEC)
    before, mark = content(tmp_path), json.loads((tmp_path / ".train.corpus.json").read_text())
    del mark["spec"]["state"]  # of before there was one
    (tmp_path / ".train.corpus.json").write_text(json.dumps(mark))
    wanted = r"holds this corpus as another version of hf_synth wrote it \(state: None there, 2 now\).*--overwrite"
    with pytest.raises(ValueError, match=wanted):
        write_corpus(make(), tmp_path, size=11_000, spec=SPEC)
    write_corpus(make(), tmp_path, size=11_000, spec=SPEC, overwrite=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("a.parquet", {}, "wanted a name that ends in .jsonl or .jsonl.gz, or a folder"),
        ("a.json", {}, "wanted a name that ends in"),
        ("there", {}, "wanted a name that ends in"),
        ("there.jsonl", {}, "there.jsonl is a folder, wanted a file"),
        ("full", {}, "full holds train-7.parquet, which this command did not write"),
        ("a.jsonl", {"columns": ("texts",)}, r"columns: got \['texts'\], wanted some of text, kind"),
        ("a.jsonl", {"columns": ()}, r"columns: got \[\]"),
        ("a.jsonl", {"size": 0}, "size: got 0, wanted at least 1 document"),
    ],
)
def test_wrong_arguments_are_errors(make, tmp_path, name, changed, message):
    (tmp_path / "there").write_text("")
    (tmp_path / "there.jsonl").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "train-7.parquet").write_text("")
    with pytest.raises(ValueError, match=message):
        write_corpus(make(), tmp_path / name, **{"size": 10, "spec": SPEC, **changed})


@pytest.mark.parametrize("name", ["a.jsonl", "folder"])
@pytest.mark.parametrize("there", [6_789, 1_234, 0])
def test_text_that_is_too_short_is_an_error(counted, tmp_path, name, there):
    with pytest.raises(ValueError, match=f"got 20,000, but there are no more than {there:,} documents.*--repeat"):
        write_corpus(counted(there), tmp_path / name, size=20_000, spec=SPEC)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    shards = [".train.corpus.json", "train-00000-of-00004.parquet"]
    assert sorted(left) == (shards if name == "folder" and there > 5_000 else []), "no part, and no useless record"


# What is there already


@pytest.mark.parametrize("changed", [{}, {"spec": {"task": "sort"}}, {"size": 7_000}])
@pytest.mark.parametrize("name", ["a.jsonl", "folder"])
def test_a_finished_corpus_is_replaced_only_where_that_is_asked_for(make, tmp_path, name, changed):
    arguments = {"size": 11_000, "spec": SPEC}
    write_corpus(make(), tmp_path / name, **arguments)
    write_corpus(make(), tmp_path / name, size=10, spec=SPEC, split="test") if name == "folder" else None
    before = content(tmp_path / name)
    with pytest.raises(ValueError, match=r"(is there already|holds another corpus).*--overwrite"):
        write_corpus(make(), tmp_path / name, **{**arguments, **changed})
    assert content(tmp_path / name) == before
    with pytest.raises(StoppedError):
        write_corpus(make(), tmp_path / name, **{**arguments, **changed}, overwrite=True, progress=stop_after(6_000))
    reported: list[int] = []
    write_corpus(make(), tmp_path / name, **{**arguments, **changed}, overwrite=True, progress=reported.append)
    assert reported[0] >= 4_000, "the interrupted replacement was gone on with"
    write_corpus(make(), tmp_path / "whole" / name, **{**arguments, **changed})
    tests = {file: data for file, data in before.items() if file.startswith("test-")}
    assert content(tmp_path / name) == content(tmp_path / "whole" / name) | tests


def test_an_unfinished_corpus_of_another_kind_is_replaced_where_that_is_asked_for(make, tmp_path):
    for name in ("a.jsonl", "folder"):
        with pytest.raises(StoppedError):
            write_corpus(make(), tmp_path / name, size=11_000, spec=SPEC, progress=stop_after(6_000))
        write_corpus(make(), tmp_path / name, size=6_000, spec={"task": "sort"}, overwrite=True)
        write_corpus(make(), tmp_path / "whole" / name, size=6_000, spec=SPEC)
        assert content(tmp_path / name) == content(tmp_path / "whole" / name)


def test_a_folder_is_not_rid_of_files_that_are_no_shards(make, tmp_path):
    (tmp_path / "train-7.parquet").write_text("mine")
    with pytest.raises(ValueError, match=r"holds train-7\.parquet, which this command did not write"):
        write_corpus(make(), tmp_path, size=10, spec=SPEC, overwrite=True)


def test_the_error_names_what_differs_and_the_record(make, tmp_path):
    spec = {"task": "tivari", "canonical": {"source": "dicts", "repeat": False}}
    write_corpus(make(), tmp_path / "a", size=10, spec=spec)
    with pytest.raises(ValueError, match="corpus") as error:
        write_corpus(make(), tmp_path / "a", size=10, spec={**spec, "canonical": {"source": "dicts", "repeat": True}})
    assert "(canonical.repeat: False there, True now)" in str(error.value)
    assert str(tmp_path / "a" / ".train.corpus.json") in str(error.value)


# The command

COMMAND = ["corpus", "tivari", "--explanation_ratio", "0.1", "--canonical", "stand_in", "--mix_ratio", "0.5"]
EAGER = """
import sys
import hf_synth.corpora.writing as writing
from hf_synth.cli import main
writing._MARK_SECONDS, writing.SHARD_DOCUMENTS, writing._BLOCK = 0, 5_000, 2_000
main(sys.argv[1:])
"""


def killed(arguments: list[str], mark: Path) -> None:
    """Start the command and kill it once it has noted that a part is written."""
    process = subprocess.Popen([sys.executable, "-c", EAGER, *arguments])
    try:
        deadline = time.monotonic() + 60
        while not (mark.exists() and '"shards": 0' not in mark.read_text()):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -9, "it was killed before its end"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("a.jsonl", ".a.jsonl.state.json"),
        ("folder", "folder/.train.corpus.json"),
    ],
)
def test_a_killed_command_is_gone_on_with_to_the_same_bytes(tmp_path, name, mark):
    arguments = [*COMMAND, "--size", "40000", "--output"]
    killed([*arguments, str(tmp_path / name)], tmp_path / mark)
    assert not (tmp_path / name).is_file()
    main([*arguments, str(tmp_path / name)])
    main([*arguments, str(tmp_path / "whole" / name)])
    assert content(tmp_path / name) == content(tmp_path / "whole" / name)


def test_the_command_writes_the_arm(tmp_path, capsys):
    path = tmp_path / "tivari-10.jsonl"
    main(["corpus", "tivari", "--explanation_ratio", "0.1", "--size", "500", "--seed", "3", "--output", str(path)])
    assert capsys.readouterr().out == f"{path}\n"
    assert read_lines(path) == arm_stream(get_task("tivari"), 0.1, seed=3).read(500).select(["text"]).to_pylist()


def test_the_command_mixes_real_text_in(shared_data, tmp_path):
    path = tmp_path / "a.jsonl"
    text = ["--canonical", str(shared_data / "wikitext-2"), "--document", "line", "--mix_unit", "tokens", "--kind"]
    main(["corpus", "tivari3", "--explanation_ratio", "1/3", "--size", "3000", *text, "--output", str(path)])
    rows = read_lines(path)
    words = dict.fromkeys(("canonical", "example", "explanation"), 0)
    for row in rows:
        words[row["kind"]] += len(row["text"].split())
    assert words["canonical"] / sum(words.values()) == pytest.approx(0.9, abs=0.003)
    kinds = [row["kind"] for row in rows]
    assert kinds.count("explanation") * 2 == pytest.approx(kinds.count("example"), abs=2)


def test_the_command_writes_lines_to_standard_output(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["corpus", "tivari", "--explanation_ratio", "0.5", "--size", "4500", "--kind", "--output", "-"])
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == arm_stream(get_task("tivari"), 0.5).read(4_500).to_pylist()
    assert not list(tmp_path.iterdir())


def test_the_mend_that_the_error_names_mends_it(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("one\n\ntwo\n\nthree")
    for name in ("a.jsonl", "folder"):
        text = ["--canonical", str(tmp_path / "text.txt"), "--output", str(tmp_path / name)]
        with pytest.raises(SystemExit):
            main(["corpus", "tivari", "--size", "700", *text])
        assert "--repeat" in capsys.readouterr().err
        main(["corpus", "tivari", "--size", "700", *text, "--repeat"])
        assert (tmp_path / name).exists()


@pytest.mark.processes
def test_the_command_loads_no_library_that_trains(tmp_path):
    program = "import sys; from hf_synth.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    arguments = ["corpus", "tivari", "--canonical", "stand_in", "--size", "9", "--output", str(tmp_path / "a.jsonl")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--explanation_ratio", "2"], "explanation_ratio: got '2', wanted a number from 0 to 1"),
        (["--size", "0"], "got size=0"),
        (["--size", "-3"], "got size=-3"),
        (["--mix_ratio", "0.2"], "mix_ratio: got 0.2 and no --canonical"),
        (["--canonical", "stand_in", "--mix_ratio", "nan"], "mix_ratio: got 'nan'"),
        (["--canonical", "no/such-text"], "got 'no/such-text', which is no file or folder here"),
        (["--canonical", "stand_in", "--document", "page"], "document: got 'page'"),
        (["--tokenizer", "no/such-tokenizer"], "tokenizer: "),
        (["--output", "a.csv"], "output: got 'a.csv'"),
        (["--explanation_ration", "0.1"], "unrecognized arguments"),
        (["--explanation_unit", "words"], "invalid choice"),
        (["--task_args", '{"max_midle": 3}'], "unknown field 'max_midle'"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["corpus", "tivari", "--size", "10", "--output", "a.jsonl", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.rstrip("\n").splitlines()[-1]
    assert error.startswith("hf-synth")
    assert message in error
    assert not list(tmp_path.iterdir())


def test_a_size_must_be_said(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["corpus", "tivari", "--output", str(tmp_path / "a.jsonl")])
    assert "wanted how many documents" in capsys.readouterr().err


def test_a_changed_text_is_not_mixed_with_what_was_written(tmp_path, capsys, monkeypatch):
    text, path = tmp_path / "text.txt", tmp_path / "a.jsonl"
    text.write_text("one\n\ntwo\n\nthree")
    arguments = ["corpus", "tivari", "--canonical", str(text), "--repeat", "--size", "9000", "--output", str(path)]
    with monkeypatch.context() as patched:
        patched.setattr("hf_synth.corpora.writing.write_json", stop_at_second(patched))
        with pytest.raises(StoppedError):
            main(arguments)
    times = text.stat()
    text.write_text("one\n\ntwo\n\nfours")  # of the same size and, as far as its times say, never touched
    os.utime(text, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(SystemExit):
        main(arguments)
    assert "text.txt: '" in capsys.readouterr().err


def stop_at_second(patched):
    """A `write_json` that writes one mark and then stops."""
    import hf_synth.corpora.writing as writing

    write, calls = writing.write_json, []

    def mark(*arguments):
        if calls:
            raise StoppedError
        calls.append(write(*arguments))

    return mark
