"""What users of pretraining get wrong, and what machines do to them: one line, exit code 2, and nothing lost."""

import json
import shutil

import pytest
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel

from hf_synth import build_tokenizer, get_task

pytestmark = pytest.mark.processes

SORT = ["--task", "sort", "--task_args", '{"length": 6, "vocab_size": 10}', "--gpt2_size", "1_2_16"]
SMALL = "--max_steps 6 --eval_steps 3 --save_steps 1 --eval_rows 8 --test_rows 8 --per_device_train_batch_size 4"
FLAGS = [*SORT, *SMALL.split(), "--output_dir", "out"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Checkpoints and datasets that do not fit the task."""
    folder = tmp_path_factory.mktemp("misfits")
    task = get_task("sort", length=6, vocab_size=10)
    shifted = build_tokenizer(get_task("tivari3"), task)
    for name, tokenizer, shape in (
        ("other", shifted, {"vocab_size": len(shifted)}),
        ("small", None, {"vocab_size": 9}),
        ("fits", build_tokenizer(task), {"vocab_size": 14, "n_positions": 16}),
        ("short", build_tokenizer(task), {"vocab_size": 14, "n_positions": 12}),
    ):
        GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, **shape)).save_pretrained(folder / name)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder / name)
    labels = [[-100, 5, 6, 2]] * 4
    Dataset.from_dict({"text": ["a"] * 4, "labels": labels}).save_to_disk(folder / "text")
    Dataset.from_dict({"input_ids": [[1, 5, 6, 99]] * 4, "labels": labels}).save_to_disk(folder / "foreign")
    return folder


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--max_steps", -1], "got neither max_steps nor steps_per_epoch, and fresh rows never end; wanted one"),
        (["--model_name_or_path", "other"], "there, 4 here); transfer its weights to a new model with init_from"),
        (["--model_name_or_path", "small"], "got 14 tokens in the vocabulary and a model of 9; wanted a model with"),
        (["--model_name_or_path", "short"], "got rows of 15 tokens and a model of 12 positions"),
        (["--curriculum_field", "lenght"], "curriculum_field: got 'lenght'; did you mean 'length'?"),
        (["--curriculum_field", "length", "--curriculum_start", 6], "curriculum_start: got 6, wanted less than 6"),
        (["--curriculum_field", "length", "--curriculum_delay", 1], "curriculum_delay: got 1, wanted at least 2"),
        (["--gpt2_size", "2464"], "gpt2_size: got '2464', wanted layers_heads_hidden such as '12_12_768', in quotes"),
        (
            ["--arms", '{"a": {"learning_rate": 1}, "b": {"learning_rat": 1}}'],
            "unknown flag '--learning_rat'; did you",
        ),
        (["--arms", '{"a": {"seed": 3}}'], "arms.a: got 'seed', which is for the whole command"),
        (["--arms", '{"a": {"hub_token": "hf_x"}}'], "arms.a: got 'hub_token', which is for the whole command"),
        (["--task", "sorrt"], "unknown task 'sorrt'; did you mean 'sort'?"),
        (["--patience", 1], "patience needs evaluation during training; set eval_strategy: steps"),
        (["--final_model", "best"], "final_model: best needs evaluation during training"),
        (["--save_total_limit", 1], "save_total_limit: got 1, wanted at least 2"),
        (["--steps_per_epoch", 5, "--max_steps", -1, "--num_train_epochs", 0], "num_train_epochs: got 0.0, wanted a"),
        (
            ["--model_name_or_path", "fits", "--use_peft", "true", "--train_parts", "mlp"],
            "got use_peft with init_from or train_parts, wanted one of them",
        ),
        (["--seeds", 1, 2, 1], "seeds: got [1, 2, 1], wanted each once"),
        (
            ["--arms", '{"a": {}, "b": {"init_from": "nowhere/at/all"}}'],
            "'nowhere/at/all', which holds no model; make it",
        ),
        (["--canonical", "stand_in", "--train_rows", 5], "got canonical text with train_rows, wanted one of the two"),
        (["--canonical", "stand_in", "--curriculum_field", "length"], "got canonical text with curriculum_field,"),
        (["--dataset", "text"], "with columns text, labels, wanted input_ids and labels; for text set `canonical`"),
        (["--dataset", "foreign"], "got the id 99, where the task has 14 words (set task, preset and task_args"),
    ],
)
def test_mistakes(flags, wanted, fail, workdir, tmp_path):
    looks = ["--eval_strategy", "no"] if flags[0] in ("--patience", "--final_model") else []
    model = ["--gpt2_size="] if flags[0] == "--model_name_or_path" else []
    done = fail("pretrain.py", *FLAGS, *looks, *model, *flags, "--output_dir", tmp_path / "out", cwd=workdir)
    assert done.error.startswith("pretrain.py: error: ")
    assert wanted in done.error
    assert not [*tmp_path.glob("**/*.safetensors")], "nothing was trained before the mistake was found"


def test_a_size_that_yaml_takes_for_a_number(run, tmp_path):
    (tmp_path / "mine.yaml").write_text("task: sort\ngpt2_size: 2_4_64\nmax_steps: 1\n")
    done = run("pretrain.py", "--config", "mine.yaml", cwd=tmp_path)
    assert done.error.endswith("gpt2_size: got 2464 (int), wanted str; put it in quotes")


def test_a_loss_that_is_no_number_is_never_saved(run, tmp_path):
    """The rate rises by 1e38 a step: some steps are fine."""
    flags = [*FLAGS, "--learning_rate", "1e38", "--max_grad_norm", 0, "--snapshots_per_doubling", 1]
    flags += ["--optim", "sgd", "--warmup_steps", 4, "--disable_tqdm", "true"]
    done = run("pretrain.py", *flags, cwd=tmp_path)
    assert "lower learning_rate, raise warmup_steps or set max_grad_norm; checkpoints written before are whole" in (
        done.error
    )
    folder = tmp_path / "out"
    saved = sorted(folder.glob("checkpoint-*/model.safetensors"))
    assert saved
    for path in [*saved, *folder.glob("snapshots/*/*.safetensors")]:
        model = GPT2LMHeadModel.from_pretrained(path.parent)
        assert all(parameter.isfinite().all() for parameter in model.parameters())
    again = run("pretrain.py", *flags, cwd=tmp_path)
    assert f"Resuming from out/{saved[-1].parent.name}" in again.err
    assert again.error == done.error


def test_the_run_that_failed_is_named(run, tmp_path):
    arms = '{"tame": {}, "wild": {"learning_rate": 1e38, "max_grad_norm": 0, "optim": "sgd"}}'
    error = run("pretrain.py", *FLAGS, "--arms", arms, "--disable_tqdm", "true", cwd=tmp_path).error
    assert error.startswith("pretrain.py: error: out/wild: ")
    assert (tmp_path / "out" / "tame" / "metrics.json").exists()


FILLS_UP = """
import pathlib, resource, runpy, sys, threading, time

def fill():
    while not pathlib.Path(begin).exists():
        time.sleep(0.001)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

limit, begin, *sys.argv = int(sys.argv[1]), *sys.argv[2:]
threading.Thread(target=fill, daemon=True).start()
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(("limit", "torn"), [(40_000, "model.safetensors"), (100_000, "optimizer.pt")])
def test_a_full_disk(limit, torn, run, recipes, tmp_path):
    """From the second checkpoint on no file may grow beyond a limit; once there is room, the run goes on."""
    (tmp_path / "fills_up.py").write_text(FILLS_UP)
    flags = [*FLAGS, "--disable_tqdm", "true"]
    begin = "out/checkpoint-2/complete.json"
    done = run(tmp_path / "fills_up.py", limit, begin, recipes / "pretrain.py", *flags, cwd=tmp_path)
    whole = max((tmp_path / "out").glob("checkpoint-*/complete.json")).parent
    assert done.error.startswith("pretrain.py: error: out cannot be written to in full (")
    assert done.error.endswith(
        f"); {whole.name} is whole, and nothing before it is lost; make room, then give the same command again"
    )
    left = max((tmp_path / "out").glob("checkpoint-*"))
    assert left != whole
    assert not (left / torn).exists() or (left / torn).stat().st_size <= limit
    done = run("pretrain.py", *flags, cwd=tmp_path)
    assert done.code == 0, done.err
    assert f"Resuming from out/{whole.name}" in done.err
    assert json.loads((tmp_path / "out" / "training_log.json").read_text())["steps"] == 6


def test_a_full_disk_while_a_corpus_is_written(run, recipes, tmp_path):
    """24 blocks of 4 kB, in a cache that is outside of the run."""
    (tmp_path / "fills_up.py").write_text(FILLS_UP)
    corpus = ["--canonical", "stand_in", "--mix_ratio", "0", "--block_size", "1024", "--canonical_eval_tokens", "2048"]
    flags = [*FLAGS, *corpus, "--task", "", "--task_args", "{}", "--tokenizer_vocab_size", 300]
    done = run(tmp_path / "fills_up.py", 60_000, "out", recipes / "pretrain.py", *flags, cwd=tmp_path)
    assert done.error == ("pretrain.py: error: [Errno 27] File too large; make room, then give the same command again")
    done = run("pretrain.py", *flags, cwd=tmp_path)
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "out" / "training_log.json").read_text())["steps"] == 6


def cut_off(folder):
    """Leave a run as one that was killed in its last step."""
    (folder / "training_log.json").unlink()
    shutil.rmtree(folder / "checkpoint-6")


def test_text_that_changed_since_the_run_began(run, tmp_path):
    path, text = tmp_path / "text.txt", "".join(f"The number {n} is followed by {n + 1}.\n\n" for n in range(300))
    flags = [*FLAGS, "--task", "tivari", "--canonical", "text.txt", "--canonical_eval_tokens", 64, "--block_size", 32]
    flags += ["--tokenizer_vocab_size", 300, "--task_args", "{}"]
    path.write_text(text)
    assert run("pretrain.py", *flags, cwd=tmp_path).code == 0
    cut_off(tmp_path / "out")
    path.write_text(text.replace("number", "figure"))
    error = run("pretrain.py", *flags, cwd=tmp_path).error
    assert "output_dir 'out' holds a run that began otherwise (tokenizer: " in error
    assert "; fingerprint: " in error
    path.write_text(text)
    done = run("pretrain.py", *flags, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "Resuming from out/checkpoint-5" in done.err


def test_a_run_goes_on_without_the_checkpoint_that_it_took_its_weights_from(run, workdir, tmp_path):
    shutil.copytree(workdir / "fits", tmp_path / "donor")
    flags = [*FLAGS, "--init_from", "donor", "--train_parts", "mlp"]
    assert run("pretrain.py", *flags, cwd=tmp_path).code == 0
    out = tmp_path / "out"
    wanted = [(out / name).read_bytes() for name in ("model.safetensors", "transfer.json")]
    cut_off(out)
    shutil.rmtree(tmp_path / "donor")
    done = run("pretrain.py", *flags, cwd=tmp_path)
    assert done.code == 0, done.err
    assert [(out / name).read_bytes() for name in ("model.safetensors", "transfer.json")] == wanted


def test_the_run_of_another_config_is_left_alone(run, tmp_path):
    assert run("pretrain.py", *FLAGS, cwd=tmp_path).code == 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    done = run("pretrain.py", *FLAGS, "--rows_seed", 5, cwd=tmp_path)
    assert "holds the run of another config (rows_seed: 0 there, 5 now)" in done.error
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == files
