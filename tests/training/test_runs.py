"""Run directories: one config each, no secrets on disk; errors and interruptions as users see them."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys

import pytest
import yaml
from datasets import Dataset
from trl import GRPOConfig, SFTConfig

from hf_synth.errors import user_errors
from hf_synth.hub.publish import PublishArguments
from hf_synth.io import directory_lock, is_main_process
from hf_synth.training import run_directory as runs
from hf_synth.training.arguments import DataArguments, PolicyArguments, WeightArguments
from hf_synth.training.checkpoints import read_training_log
from hf_synth.training.run_directory import (
    METRICS,
    RESOLVED_CONFIG,
    check_run,
    open_run,
    read_metrics,
    read_trained_on,
    record_data_fingerprint,
    write_metrics,
)


def arguments(folder, **changes):
    """The dataclasses of recipes/grpo.py with some of their values changed."""
    values = {"output_dir": str(folder), "use_cpu": True, "bf16": False, "report_to": "none", "task": "sort"}
    values |= {"task_args": {"length": 8}, "sampling_strength": [1.0, 0.0], "learning_rate": 1e-5} | changes
    parts = (DataArguments, WeightArguments, PolicyArguments, GRPOConfig)
    names = [{field.name for field in dataclasses.fields(part)} for part in parts]
    return [
        part(**{name: value for name, value in values.items() if name in known})
        for part, known in zip(parts, names, strict=True)
    ]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "deep" / "run"
    assert open_run(str(folder), *arguments(folder)) == folder
    (folder / "checkpoint-1").mkdir()
    return folder


def test_the_config_is_kept_as_it_was_resolved(run):
    result = yaml.safe_load((run / RESOLVED_CONFIG).read_text())
    assert result["task"] == "sort"
    assert result["task_args"] == {"length": 8}
    assert result["sampling_strength"] == [1.0, 0.0]
    assert result["learning_rate"] == 1e-5
    assert result["num_generations"] == 8, "defaults are written out"
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint-1", RESOLVED_CONFIG]


def test_the_same_config_comes_back_to_its_run(run):
    before = (run / RESOLVED_CONFIG).read_bytes()
    assert open_run(str(run), *arguments(run)) == run
    assert (run / RESOLVED_CONFIG).read_bytes() == before


def test_a_directory_with_other_things_in_it_is_fine(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    open_run(str(tmp_path), *arguments(tmp_path))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_where_a_run_writes_and_reports_is_free(run):
    open_run(str(run), *arguments(run, run_name="again", disable_tqdm=True, push_to_hub=False))


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("num_generations", "num_generations: 8\n"),
        ("sampling_by", "sampling_by:\n- density\n"),  # a list
        ("new_model", "new_model: {}\n"),  # null is read as no values
        ("dataloader_pin_memory", "dataloader_pin_memory: false\n"),  # Trainer's own choice on a CPU
    ],
)
def test_a_field_that_the_version_of_the_run_did_not_have_was_at_its_default(field, line, run):
    path, given = run / RESOLVED_CONFIG, {"task": "sort", "learning_rate": 1e-5}
    open_run(str(run), *arguments(run), recipe="grpo", settings=given)
    before = path.read_text()
    assert f"\n{line}" in before
    path.write_text(before.replace(f"\n{line}", "\n"))
    with pytest.raises(ValueError, match=rf"config \({field}: None there, .* now\)"):
        check_run(str(run), *arguments(run), settings={**given, field: "another"})
    open_run(str(run), *arguments(run), recipe="grpo", settings=given)
    assert path.read_text() == before, "the field is kept from then on, so that runs can be compared"


def test_a_run_comes_back_with_what_says_where_it_is_uploaded(tmp_path):
    """PublishArguments has fields of its own making, which no config holds."""
    parts = [*arguments(tmp_path), PublishArguments()]
    open_run(str(tmp_path), *parts)
    (tmp_path / "checkpoint-1").mkdir()
    open_run(str(tmp_path), *parts)


def test_another_config_is_refused_and_the_differing_values_are_named(run):
    before = (run / RESOLVED_CONFIG).read_bytes()
    with pytest.raises(ValueError, match="holds the run of another config") as caught:
        open_run(str(run), *arguments(run, learning_rate=2e-5, task_args={"length": 9}))
    message = str(caught.value)
    assert "learning_rate: 1e-05 there, 2e-05 now" in message
    assert "task_args.length: 8 there, 9 now" in message
    assert "seed" not in message
    assert "\n" not in message
    assert (run / RESOLVED_CONFIG).read_bytes() == before


def test_of_many_differing_values_five_are_named(run):
    changes = {
        "seed": 1,
        "beta": 0.5,
        "num_rows": 5,
        "max_steps": 3,
        "save_steps": 7,
        "warmup_steps": 1,
        "density_k": 3,
    }
    with pytest.raises(ValueError, match="and 2 more"):
        open_run(str(run), *arguments(run, **changes))


@pytest.mark.parametrize("name", ["tokenizer_vocab_size", "max_prompt_tokens"])
def test_values_about_tokens_are_no_secrets(name, run):
    assert name in yaml.safe_load((run / RESOLVED_CONFIG).read_text())
    with pytest.raises(ValueError, match=f"{name}: .* there, 4000 now"):
        open_run(str(run), *arguments(run, **{name: 4000}))


def test_secrets_are_not_written_and_do_not_matter(tmp_path):
    open_run(str(tmp_path), *arguments(tmp_path, hub_token="hf_do_not_tell"))
    text = (tmp_path / RESOLVED_CONFIG).read_text()
    assert "hf_do_not_tell" not in text
    assert "hub_token" not in text
    open_run(str(tmp_path), *arguments(tmp_path, hub_token="hf_another"))


def test_sft_arguments_are_kept_too(tmp_path):
    args = SFTConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", eos_token="<end>")
    open_run(str(tmp_path), args)
    assert yaml.safe_load((tmp_path / RESOLVED_CONFIG).read_text())["eos_token"] == "<end>"


def test_a_file_in_the_place_of_the_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="which is a file; wanted a directory"), opened(tmp_path / "file"):
        pass
    with pytest.raises(ValueError, match="which cannot be made"), opened(tmp_path / "file" / "run"):
        pass


def opened(folder):
    return runs.run_directory(str(folder), *arguments(folder.parent))


def test_of_several_processes_one_writes(tmp_path, monkeypatch):
    assert is_main_process()
    monkeypatch.setenv("RANK", "1")
    assert not is_main_process()
    folder = open_run(str(tmp_path / "run"), *arguments(tmp_path))
    write_metrics(folder, {"a": 1.0})
    assert list(folder.iterdir()) == []
    monkeypatch.setenv("RANK", "0")
    open_run(str(folder), *arguments(tmp_path))
    (folder / "checkpoint-1").mkdir()
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ValueError, match="another config"):
        open_run(str(folder), *arguments(tmp_path, seed=5))


def test_metrics_are_flat_sorted_numbers(tmp_path):
    assert read_metrics(tmp_path) is None
    write_metrics(tmp_path, {"b": 2.0, "a/c": 1.0})
    assert read_metrics(tmp_path) == {"a/c": 1.0, "b": 2.0}
    assert list(json.loads((tmp_path / METRICS).read_text())) == ["a/c", "b"]


# Errors


def test_a_users_mistake_is_one_line_and_code_2(capsys):
    with pytest.raises(SystemExit) as caught, user_errors("grpo.py"):
        raise ValueError("got this, wanted that")
    assert caught.value.code == 2
    assert capsys.readouterr() == ("", "grpo.py: error: got this, wanted that\n")


def test_an_interruption_says_how_to_go_on_and_is_code_130(capsys):
    with pytest.raises(SystemExit) as caught, user_errors("sft.py"):
        signal.raise_signal(signal.SIGINT)
    assert caught.value.code == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "\nsft.py: interrupted; the same command goes on from the last checkpoint\n"


def test_a_full_disk_is_one_line_whatever_else_it_led_to(capsys):
    with pytest.raises(SystemExit) as caught, user_errors("pretrain.py"):
        raise RuntimeError("no dataset") from OSError(errno.ENOSPC, "No space left on device", "rows.arrow")
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "pretrain.py: error: [Errno 28] No space left on device: 'rows.arrow'; make room, then give the same command "
        "again\n"
    )


def test_debugging_shows_where_it_happened(monkeypatch):
    monkeypatch.setenv("HF_SYNTH_DEBUG", "1")
    with pytest.raises(ValueError, match="here"), user_errors("grpo.py"):
        raise ValueError("here")


def test_our_own_faults_keep_their_traceback():
    with pytest.raises(KeyError), user_errors("grpo.py"):
        raise KeyError("bug")


def test_nothing_happens_where_nothing_is_wrong(capsys):
    with user_errors("grpo.py"):
        pass
    assert capsys.readouterr() == ("", "")
    assert runs.METRICS == "metrics.json"


def test_a_start_that_trained_nothing_claims_no_directory(tmp_path):
    open_run(str(tmp_path), *arguments(tmp_path))
    (tmp_path / "rejected_rows.jsonl").write_text("{}", encoding="utf-8")
    open_run(str(tmp_path), *arguments(tmp_path, seed=9))
    assert yaml.safe_load((tmp_path / RESOLVED_CONFIG).read_text())["seed"] == 9


def rows(*prompts):
    return Dataset.from_dict({"prompt": prompts, "weight": range(len(prompts))})


def test_a_run_goes_on_with_the_rows_that_it_began_with(run, monkeypatch):
    (run / "checkpoint-1").rmdir()
    record_data_fingerprint(run, rows("a", "b"))
    record_data_fingerprint(run, rows("b", "a"))  # nothing was trained yet
    (run / "checkpoint-1").mkdir()
    record_data_fingerprint(run, rows("b", "a").remove_columns("weight"))
    assert {**read_trained_on(run), "fingerprint": ""} == {"rows": 2, "fingerprint": "", "processes": 1}
    for other in (rows("a", "b"), rows("b", "c")):
        with pytest.raises(ValueError, match=r"fingerprint: '\w+' there, '\w+' now\)"):
            record_data_fingerprint(run, other)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="processes: 1 there, 2 now"):
        record_data_fingerprint(run, rows("b", "a"))


def test_of_a_run_that_kept_no_rows_none_are_made_up(run):
    record_data_fingerprint(run, rows("a"))
    assert read_trained_on(run) is None


@pytest.mark.processes
def test_only_one_command_is_at_work_in_a_directory(tmp_path):
    program = "import sys; from hf_synth.io import directory_lock\nwith directory_lock(sys.argv[1]): print('in')"
    other = [sys.executable, "-c", program, str(tmp_path / "run")]
    with directory_lock(str(tmp_path / "run")):
        refused = subprocess.run(other, capture_output=True, text=True)
        assert refused.returncode == 1
        assert f"ValueError: output_dir: {str(tmp_path / 'run')!r} is locked by another process" in refused.stderr
    assert subprocess.run(other, capture_output=True, text=True, check=True).stdout == "in\n"


def test_a_lock_speaks_of_its_own_errors_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(ValueError, match="which cannot be made: Not a directory"),
        directory_lock(str(tmp_path / "file/run")),
    ):
        pass
    with pytest.raises(PermissionError), directory_lock(str(tmp_path / "run")):
        raise PermissionError("the user's own file")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"], "nothing was trained"


def test_a_run_of_another_config_is_found_before_anything_is_written(run):
    before = (run / RESOLVED_CONFIG).read_bytes()
    check_run(str(run), *arguments(run))
    with pytest.raises(ValueError, match="holds the run of another config"):
        check_run(str(run), *arguments(run, learning_rate=1.0))
    assert (run / RESOLVED_CONFIG).read_bytes() == before
    check_run(str(run / "new"), *arguments(run))
    assert not (run / "new").exists()


def test_what_is_no_number_is_left_out_of_the_metrics(tmp_path):
    write_metrics(tmp_path, {"loss": 1.0, "low": float("nan"), "high": float("inf")})
    assert json.loads((tmp_path / METRICS).read_text()) == {"loss": 1.0}


def test_a_run_does_not_go_on_with_other_models(run, tmp_path):
    """A reference, a reward, or what lies below an adapter is in no checkpoint: it is read again."""
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "model.safetensors").write_bytes(b"first")
    (run / "checkpoint-1").rmdir()
    record_data_fingerprint(run, rows("a"), [(str(policy), "main"), (None, "main")])
    (run / "checkpoint-1").mkdir()
    record_data_fingerprint(run, rows("a"), [(str(policy), "main")])
    (policy / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"began otherwise \(models: \['[0-9a-f]{16}'\] there, "):
        record_data_fingerprint(run, rows("a"), [(str(policy), "main")])


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"x"', "[" * 100_000])
def test_a_torn_file_of_a_run_is_named(text, tmp_path):
    for name, read in (
        ("training_log.json", lambda: read_training_log(tmp_path)),
        ("metrics.json", lambda: read_metrics(tmp_path)),
        ("trained_on.json", lambda: read_trained_on(tmp_path)),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name} cannot be read: "):
            read()
    (tmp_path / "resolved_config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"resolved_config\.yaml cannot be read: "):
        check_run(str(tmp_path), DataArguments(task="sort"))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.EISDIR])
def test_a_file_that_cannot_be_used_is_named_in_one_line(number, capsys):
    with pytest.raises(SystemExit) as caught, user_errors("sft.py"):
        raise OSError(number, os.strerror(number), "/home/user/.cache/x")
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"sft.py: error: /home/user/.cache/x: {os.strerror(number)}\n"


def test_a_reader_that_has_gone_ends_a_command_in_one_line():
    code = """
from hf_synth.errors import user_errors
with user_errors("sft.py"):
    for number in range(100_000):
        print(number)
"""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c '{code}' | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "0\n")
    assert done.stderr == "sft.py: error: the reader of the output has gone; send it to a file or to cat\n"


def test_a_name_that_is_too_long_is_an_error_of_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught, user_errors("sft.py"), directory_lock(str(tmp_path / ("x" * 300))):
        pass
    assert caught.value.code == 2
    assert "x" * 300 in capsys.readouterr().err
