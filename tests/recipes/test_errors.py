"""What users get wrong: one line that says what to do, exit code 2, no traceback, and nothing of theirs touched."""

import json

import pytest
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from hf_synth.io import directory_lock

TASK = "task: {task}\npreset: '{preset}'\nnum_rows: 40\nuse_cpu: true\nbf16: false\n{more}\n"


@pytest.fixture
def config(tmp_path):
    """A writer of configs for SFT on a task."""

    def write(task="sort", preset="8", more=""):
        path = tmp_path / "mine.yaml"
        path.write_text(TASK.format(task=task, preset=preset, more=more))
        return path

    return write


def test_a_misspelt_key(fail, config, tmp_path):
    path = config(more="learning_rat: 1e-3")
    done = fail("sft.py", "--config", path, cwd=tmp_path)
    assert done.error == f"sft.py: error: {path}: got unknown key 'learning_rat'; did you mean 'learning_rate'?"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"task": "srot"}, "got unknown task 'srot'; did you mean 'sort'?"),
        ({"preset": "9"}, "task sort: got unknown preset '9'"),
        ({"more": "task_args: {length: 0}"}, "SequenceConfig.length: got 0, wanted a value from 1"),
        ({"more": "task_args: {lenght: 3}"}, "got unknown field 'lenght'; did you mean 'length'?"),
        ({"more": "mixture: {a: {task: sort, share: 1}}"}, "got task and mixture to train on"),
        ({"more": "new_model: {hiden_size: 3}"}, "new_model: got unknown value 'hiden_size'"),
        ({"more": "use_peft: true"}, "got use_peft without model_name_or_path"),
        ({"more": "max_steps: many"}, "invalid int value: 'many'"),
        ({"more": "preferences_split: 5"}, "preferences_split: got 5 (int), wanted str"),
    ],
)
def test_mistakes_about_a_task(values, wanted, fail, config, tmp_path):
    done = fail("sft.py", "--config", config(**values), "--output_dir", "out", cwd=tmp_path)
    assert done.error.startswith("sft.py: error: ")
    assert wanted in done.error


def test_another_configs_run_is_left_alone(quickstart, fail, quick_flags):
    files = {path: path.stat().st_mtime_ns for path in quickstart.rglob("*")}
    done = fail("grpo.py", *quick_flags, "--learning_rate", "1e-4", cwd=quickstart.parents[1])
    assert "holds the run of another config (learning_rate: 0.0005 there, 0.0001 now)" in done.error
    assert "give another --output_dir" in done.error
    assert {path: path.stat().st_mtime_ns for path in quickstart.rglob("*")} == files


def test_a_file_where_the_run_should_be(fail, quick_flags, tmp_path):
    (tmp_path / "taken").write_text("mine")
    done = fail("grpo.py", *quick_flags, "--output_dir", "taken", cwd=tmp_path)
    assert "got output_dir='taken', which is a file; wanted a directory" in done.error
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.processes
@pytest.mark.parametrize("recipe", ["sft", "reward", "dpo", "grpo"])
def test_a_second_command_is_kept_out(recipe, run, config, tmp_path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text("{}")
    with directory_lock(str(tmp_path / "out")):
        flags = ["--model_name_or_path", "policy", "--output_dir", "out"]
        done = run(f"{recipe}.py", "--config", config(), *flags, cwd=tmp_path)
    assert "output_dir: 'out' is locked by another process" in done.error


def test_pass_rates_of_scores_are_refused_before_anything_is_loaded(fail, config, tmp_path):
    flags = ["--sampling_by", "density", "pass_rate", "--reward", "verifier", "no/such-model"]
    done = fail("grpo.py", "--config", config(), *flags, "--output_dir", "out", cwd=tmp_path)
    assert "sampling_by: got pass_rate with the reward verifier, no/such-model, wanted the verifier" in done.error
    assert not (tmp_path / "out").exists()


def with_policy(quickstart, quick_flags):
    """The quickstart from a policy that is there, in one arm."""
    return [*quick_flags, "--warm_up", "", "--model_name_or_path", quickstart / "warmup", "--sampling_strength", "1"]


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--steps_per_generation", "4", "--save_steps", "3"], "save_steps=3 saves between generations"),
        (["--density_k", "500"], "density_k: got 500 with 200 distinct prompts, wanted at most 199"),
        (["--num_generations", "5"], "num_generations"),
        (["--sampling_strength", "-1"], "sampling_strength: got [-1.0], wanted"),
        (["--sample_every", "0"], "sample_every: got 0, wanted at least 1"),
        (["--eval_prompts", "-1"], "eval_prompts: got -1, wanted at least 0"),
        (["--max_prompt_tokens", "1"], "got 200 prompts, all longer than 1 tokens"),
        (["--max_completion_length", "500"], "got 200 prompts, all longer than 0 tokens"),
        (["--mixture", "{}", "--task", "start_mid_end"], "start_mid_end: got 11 distinct train prompts in 40000 rows"),
        (["--embedder", "no/such-model"], "embedder: got 'no/such-model', which cannot be loaded"),
        (["--embedder", ""], "embedder: got '', wanted hashing, or the path or Hub id of a model"),
        (["--reward", "no/such-model"], "got checkpoint 'no/such-model', which is neither here nor on the Hub"),
        (["--reward", "mine.py"], "reward: got 'mine.py', wanted path.py:function"),
    ],
)
def test_mistakes_about_grpo(flags, wanted, fail, quickstart, quick_flags, tmp_path):
    done = fail("grpo.py", *with_policy(quickstart, quick_flags), *flags, "--output_dir", "out", cwd=tmp_path)
    assert done.error.startswith("grpo.py: error: ")
    assert wanted in done.error


def test_a_head_that_trl_does_not_know(fail, quickstart, quick_flags, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(quickstart / "warmup")
    shape = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, pad_token_id=tokenizer.pad_token_id)
    GPT2LMHeadModel(shape).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    flags = ["--warm_up", "", "--model_name_or_path", "gpt2", "--cast_lm_head_to_fp32", "true", "--output_dir", "out"]
    done = fail("grpo.py", *quick_flags, *flags, cwd=tmp_path)
    assert "cast_lm_head_to_fp32: got true, and TRL knows no such head of a GPT2LMHeadModel" in done.error


def test_a_best_model_by_a_metric_that_is_never_measured(fail, config, tmp_path):
    best = ["--load_best_model_at_end", "true", "--metric_for_best_model", "beauty", "--test_share", "0.5"]
    steps = ["--eval_strategy", "steps", "--eval_steps", "1", "--save_steps", "1", "--max_steps", "1"]
    shape = ["--new_model", '{"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}']
    done = fail("reward.py", "--config", config(), *best, *steps, *shape, "--output_dir", "out", cwd=tmp_path)
    assert "metric_for_best_model: " in done.error
    assert "eval_beauty" in done.error
    assert "eval_accuracy" in done.error


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["question,answer", "a,b"], "got no usable row in 'mine.jsonl' ({'not JSON': 2})"),
        ([json.dumps({"prompt": ""})] * 3, "got no usable row in 'mine.jsonl' ({'the prompt is empty': 3})"),
        ([], "(the file is empty)"),
        (None, "got 'mine.jsonl', which cannot be read: There is no file or folder"),
        (
            [json.dumps({"prompt": f"{n} things"}) for n in range(30)],
            "reward: got none, but natural prompts have no verifier",
        ),
    ],
)
def test_mistakes_about_own_prompts(lines, wanted, fail, quickstart, quick_flags, tmp_path):
    if lines is not None:
        (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    flags = [
        *with_policy(quickstart, quick_flags),
        "--mixture",
        "{}",
        "--prompts",
        "mine.jsonl",
        "--test_share",
        "0.3",
    ]
    done = fail("grpo.py", *flags, "--output_dir", "out", cwd=tmp_path)
    assert wanted in done.error


@pytest.mark.parametrize(("recipe", "maker"), [("reward", "sft"), ("grpo", "sft")])
def test_a_missing_checkpoint_names_the_command_that_makes_it(recipe, maker, fail, recipes, tmp_path):
    config = recipes / "configs" / "density" / f"hh_rlhf_{recipe}.yaml"
    done = fail(f"{recipe}.py", "--config", config, "--use_cpu", "true", cwd=tmp_path)
    assert done.error == (
        f"{recipe}.py: error: got checkpoint 'runs/hh_rlhf/{maker}', which holds no model; "
        f"make it with: accelerate launch recipes/{maker}.py --config recipes/configs/density/hh_rlhf_{maker}.yaml"
    )


def test_a_missing_reward_model_names_the_command_that_makes_it(fail, quickstart, recipes, tmp_path):
    config = recipes / "configs" / "density" / "hh_rlhf_grpo.yaml"
    flags = ["--model_name_or_path", quickstart / "warmup", "--use_cpu", "true"]
    done = fail("grpo.py", "--config", config, *flags, cwd=tmp_path)
    assert "got checkpoint 'runs/hh_rlhf/reward', which holds no model; make it with:" in done.error
    assert done.error.endswith(
        "accelerate launch recipes/reward.py --config recipes/configs/density/hh_rlhf_reward.yaml"
    )


def test_pairs_that_are_not_there(fail, recipes, tmp_path):
    config = recipes / "configs" / "density" / "hh_rlhf_sft.yaml"
    done = fail("sft.py", "--config", config, "--preferences", "no/such-pairs", "--use_cpu", "true", cwd=tmp_path)
    assert "preferences: got 'no/such-pairs', which is no file or folder here" in done.error
