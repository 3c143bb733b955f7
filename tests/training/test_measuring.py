"""Measures of a checkpoint: held to slow ways to the same numbers, and to lm-eval."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml
from evaluation import MeasuringArguments, evaluate, flat, load, planned
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, set_seed

from hf_synth import get_task
from hf_synth.evaluation.generation import add_prompts, greedy_completion_metrics, task_ends, texts, write_completions
from hf_synth.evaluation.language import language_measures
from hf_synth.evaluation.lm_eval import write_lm_eval
from hf_synth.evaluation.model import Measured, Plan, Setting, word_ids
from hf_synth.evaluation.scoring import RowScores, by_position, scored, teacher_forced_metrics
from hf_synth.io import directory_lock
from hf_synth.online import batch_of
from hf_synth.preferences import train_bpe_tokenizer
from hf_synth.tasks.base import EOS
from hf_synth.tokenization import build_tokenizer

SORT = {"length": 3, "vocab_size": 6, "min_length": 1}


def new_model(tokenizer, positions=64, layers=1):
    set_seed(0)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    size = {"n_layer": layers, "n_head": 2, "n_embd": 32, "n_positions": positions}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **size, **ids)).eval()


def trained(task, steps, **shape):
    """A tiny model that has learned some of a task."""
    model = new_model(build_tokenizer(task), **shape).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(steps):
        model(**batch_of(task.rows(64 * step, 64))).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return Measured(model.eval(), build_tokenizer(task), batch_size=7)


def save(measured, folder, **config):
    measured.model.save_pretrained(folder)
    measured.tokenizer.save_pretrained(folder)
    if config:
        (folder / "resolved_config.yaml").write_text(yaml.safe_dump(config))
    return str(folder)


@pytest.fixture(scope="module")
def sort():
    return get_task("sort", **SORT)


@pytest.fixture(scope="module")
def dyck():
    return get_task("dyck", k=2, length=8)


@pytest.fixture(scope="module")
def sorter(sort):
    return trained(sort, 80)


@pytest.fixture(scope="module")
def speaker(dyck):
    """A model of brackets with no position to spare: rows have ten tokens."""
    return trained(dyck, 60, positions=10)


@pytest.fixture(scope="module")
def run_folder(sorter, tmp_path_factory):
    return save(sorter, tmp_path_factory.mktemp("run"), task="sort", task_args=SORT, rows_seed=3)


def ids_of(measured, task):
    return word_ids(measured, task)


@torch.no_grad()
def greedy(model, prompt, budget, end):
    """One token after the other, everything read anew: no batch, no padding, no cache."""
    ids = list(prompt)
    while len(ids) - len(prompt) < budget and (len(ids) == len(prompt) or ids[-1] != end):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


# Rows


@torch.no_grad()
def test_loss_and_accuracy_are_those_of_rows_one_by_one(sort, sorter):
    rows = sort.rows(0, 40, split="test")
    losses, hits = [], []
    for number in range(len(rows)):
        ids = torch.from_numpy(rows.tokens[number, : rows.lengths[number]]).long()
        log_probs = sorter.model(input_ids=ids[None]).logits[0].log_softmax(-1)
        span = range(rows.loss_start[number], rows.loss_stop[number])
        losses.append([-float(log_probs[at - 1, ids[at]]) for at in span])
        hits.append([int(log_probs[at - 1].argmax()) == int(ids[at]) for at in span])
    result = teacher_forced_metrics(scored(sorter, rows, sort, ids_of(sorter, sort)), rows)
    assert result["loss"] == pytest.approx(np.mean(np.concatenate(losses)), abs=1e-5)
    assert result["accuracy"] == np.mean(np.concatenate(hits))
    assert result["row_accuracy"] == np.mean([all(row) for row in hits])
    assert 0.1 < result["row_accuracy_rows_low"] < result["row_accuracy"] < result["row_accuracy_rows_high"] < 1
    assert result["accuracy_rows_low"] < result["accuracy"] < result["accuracy_rows_high"]
    assert (result["floor"], result["excess"]) == (0.0, result["loss"])


def test_means_by_position_are_those_of_the_rows_that_have_it():
    """Rows of three lengths, against sums by hand."""
    mask = np.array([[0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 1, 0]], bool)
    log_probs, optimal = np.where(mask, -np.arange(1.0, 13).reshape(3, 4), 0), np.where(mask, -0.5, 0)
    kl = np.where(mask, np.arange(12.0).reshape(3, 4) / 10, 0)
    means = by_position(RowScores(log_probs, mask, mask, optimal, kl))
    assert means.to_dict("list") == {
        "position": [1, 2],
        "rows": [3, 2],
        "loss": [(2 + 6 + 10) / 3, (3 + 11) / 2],
        "floor": [0.5, 0.5],
        "kl": pytest.approx([(0.1 + 0.5 + 0.9) / 3, (0.2 + 1.0) / 2]),
        "kl_standard_error": pytest.approx([0.4 / 3**0.5, np.std([0.2, 1.0], ddof=1) / 2**0.5]),
    }
    assert "kl" not in by_position(RowScores(log_probs, mask, mask, optimal))


def test_ids_are_those_of_the_tokenizer_not_those_of_the_rows(sort, sorter):
    tokenizer = build_tokenizer(get_task("haystack", max_keys=2, num_values=3), sort)
    model = new_model(tokenizer)
    known, own = tokenizer.get_vocab(), sorter.tokenizer.get_vocab()
    with torch.no_grad():
        state = sorter.model.state_dict()
        kept = {name: value for name, value in state.items() if value.shape[0] != len(own)}
        model.load_state_dict(kept, strict=False)
        model.transformer.wte.weight.fill_(0.0)
        for word, number in own.items():
            model.transformer.wte.weight[known[word]] = sorter.model.transformer.wte.weight[number]
    moved = Measured(model, tokenizer, 7)
    rows = add_prompts(sort.rows(0, 40, split="test"), "test", 0)
    here, there = (greedy_completion_metrics(one, sort, rows, ids_of(one, sort)) for one in (sorter, moved))
    assert ids_of(moved, sort).tolist() != ids_of(sorter, sort).tolist()
    assert here["exact_match"] == there["exact_match"] > 0


def test_completions_are_those_written_one_by_one(dyck, speaker):
    rows = add_prompts(dyck.rows(0, 60, split="test"), "test", 0)
    prompts = [row[:start].tolist() for row, start in zip(rows.tokens, rows.loss_start, strict=True)]
    assert len({len(prompt) for prompt in prompts}) > 4
    result = write_completions(speaker, prompts, [50] * len(prompts), ends=[EOS])
    assert result == [greedy(speaker.model, prompt, 10 - len(prompt), EOS) for prompt in prompts]
    assert any(row[-1] == EOS for row in result)


def test_completions_without_an_end_are_as_long_as_their_budgets(sort, sorter):
    prompts, budgets = [[1, 5, 3], [1, 3], [1, 6, 6, 3]], [4, 2, 5]
    result = write_completions(sorter, prompts, budgets, ends=[])
    pairs = zip(prompts, budgets, strict=True)
    assert result == [greedy(sorter.model, prompt, budget, None) for prompt, budget in pairs]


def test_a_completion_is_right_only_if_it_ends(sort, sorter):
    rows = add_prompts(sort.rows(0, 40, split="test"), "test", 0)
    result = greedy_completion_metrics(sorter, sort, rows, ids_of(sorter, sort))
    right = []
    for row, start, stop in zip(rows.tokens, rows.loss_start, rows.loss_stop, strict=True):
        right.append(greedy(sorter.model, row[:start].tolist(), stop - start, EOS) == row[start:stop].tolist())
    assert result["verified"] == result["exact_match"] == np.mean(right)
    assert texts(sorter, [[5, 6, EOS], [5, 6], []], [EOS]) == ["1 2", None, None]


def test_samples_follow_from_the_seed_alone(speaker):
    draw = [write_completions(speaker, [[1]] * 20, [9] * 20, ends=[EOS], seed=seed) for seed in (0, 0, 1)]
    before = torch.random.get_rng_state()
    write_completions(speaker, [[1]] * 3, [9] * 3, ends=[EOS], seed=0)
    assert draw[0] == draw[1] != draw[2]
    assert len({tuple(ids) for ids in draw[0]}) > 10
    assert torch.equal(before, torch.random.get_rng_state())


# Languages


@torch.no_grad()
def test_decision_points_of_brackets_are_asked_for_the_next_token(dyck, speaker):
    rows = dyck.rows(0, 32, split="test")
    result = language_measures(speaker, dyck, rows, ids_of(speaker, dyck), split="test", samples=64, seed=0)
    for point in dyck.decision_points():
        logits = speaker.model(input_ids=torch.tensor([speaker.tokenizer(point.prefix).input_ids])).logits[0, -1]
        chances = logits.softmax(-1)[speaker.tokenizer.convert_tokens_to_ids(list(point.valid))]
        assert result[f"language/completion/{point.name}/p_valid"] == pytest.approx(float(chances.sum()), abs=1e-5)
    assert (
        0 < result["language/validity_rows_low"] < result["language/validity"] < result["language/validity_rows_high"]
    )
    assert 0 < result["language/coverage"] < result["language/validity"]


def test_strings_of_a_language_are_of_the_split_and_the_seed_asked_for():
    task = get_task("tivari3", max_half=2)
    model = Measured(new_model(build_tokenizer(task)), build_tokenizer(task))
    for split, seed in (("test", 0), ("test", 3), ("train", 0)):
        rows = task.rows(0, 16, split=split, seed=seed)
        result = language_measures(model, task, rows, None, split=split, samples=16, seed=seed)
        floor = -task.optimal_log_probs(rows)[:, 2:].sum(axis=1).mean()
        assert result["language/string/floor"] == pytest.approx(floor)


def test_a_language_is_measured_by_any_tokenizer(tmp_path):
    task = get_task("tivari3", max_half=2)
    tokenizer = train_bpe_tokenizer(["tivari start mid end one two three"] * 20, vocab_size=300, chat=False)
    model = save(Measured(new_model(tokenizer, positions=256), tokenizer), tmp_path)
    sizes = {"rows": 16, "samples": 16, "lengths": [1, 2]}
    folder = evaluate(MeasuringArguments(model_name_or_path=model, task="tivari3", length_field="max_half", **sizes))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["language/2/string/floor"] > metrics["language/1/string/floor"] > 0
    assert "loss/2" not in metrics
    assert "floor, nats a string" in (folder / "report.md").read_text()
    assert word_ids(Measured(None, tokenizer), task) is None


# Settings


def arguments(model, **options):
    sizes = {"rows": 48, "completions": 32, "samples": 32, "batch_size": 16}
    return MeasuringArguments(model_name_or_path=model, **{**sizes, **options})


def test_what_is_left_open_is_as_in_the_run(run_folder):
    plan = planned(arguments(run_folder))
    assert (plan.task_name, plan.rows_seed, plan.settings[0].name) == ("sort", 3, "test")
    assert plan.settings[0].task.config.length == 3
    for inside in ("checkpoint-80", "snapshots/step-00000010", "best"):
        assert planned(arguments(f"{run_folder}/{inside}")).settings[0].task.config == plan.settings[0].task.config
    other = planned(arguments(run_folder, task="reverse", preset="8"))
    assert (other.settings[0].task.config.length, other.rows_seed, other.trained_length) == (8, 0, None)


def test_at_a_length_all_inputs_have_it(run_folder):
    plan = planned(arguments(run_folder, lengths=[2, 5]))
    assert (plan.length_field, plan.trained_length) == ("length", 3)
    for setting in plan.settings:
        rows = setting.task.rows(0, 20, split="test")
        assert set((rows.loss_start - 2).tolist()) == {setting.length}
    assert planned(arguments(run_folder, task="addition", lengths=[4])).length_field == "digits"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": [4], "length_field": "lenght"}, "did you mean 'length'"),
        ({"lengths": [4], "length_field": "holdout"}, "wanted one of its whole numbers"),
        ({"lengths": [4, 4]}, "wanted each once"),
        ({"lengths": [40]}, "rows of 83 tokens, and a model of 64 positions"),
        ({"task": "sort", "task_args": {"vocab_size": 8}}, "lacks 2 of the 12 words of task sort: '6', '7'"),
        ({"output_dir": "."}, "got output_dir"),
        ({"split": "tests"}, "split: got 'tests'; did you mean 'test'"),
        ({"rows": 1}, "wanted at least 2"),
        ({"dtype": "float31"}, "wanted one of torch's"),
    ],
)
def test_mistakes_are_errors_that_say_what_to_do(run_folder, monkeypatch, options, message):
    monkeypatch.chdir(run_folder)
    with pytest.raises(ValueError, match=message):
        evaluate(arguments(run_folder, **options))


@pytest.mark.parametrize("name", ["resolved_config.yaml", "comparison.yaml"])
def test_the_run_of_another_recipe_is_left_alone(name, run_folder, tmp_path):
    text = "task: sort\nlearning_rate: 0.1\n"
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="which holds the run of another recipe; wanted another folder"):
        evaluate(arguments(run_folder, output_dir=str(tmp_path)))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: text}


def test_no_task_and_no_run_is_an_error(sorter, tmp_path):
    with pytest.raises(ValueError, match="wanted --task"):
        evaluate(arguments(save(sorter, tmp_path)))


def test_a_tokenizer_larger_than_the_model_is_an_error(sorter, tmp_path):
    larger = dataclasses.replace(sorter, tokenizer=build_tokenizer(get_task("sort", length=3, vocab_size=9)))
    with pytest.raises(ValueError, match="the model's vocabulary has 10"):
        load(arguments(save(larger, tmp_path), task="sort"))


# A whole evaluation


def test_results_are_in_files_that_agree(run_folder, sort, sorter, tmp_path):
    chosen = arguments(run_folder, lengths=[2, 3], output_dir=str(tmp_path / "out"))
    with directory_lock(str(tmp_path / "out")), pytest.raises(ValueError, match="locked by another process"):
        evaluate(chosen)
    evaluate(chosen)
    folder = evaluate(chosen)  # over the one before
    metrics = json.loads((folder / "metrics.json").read_text())
    with (folder / "evaluation.csv").open() as file:
        table = {row["setting"]: row for row in csv.DictReader(file)}
    assert list(table) == ["2", "3"]
    for name in ("loss", "accuracy", "row_accuracy", "verified", "exact_match"):
        assert all(float(table[length][name]) == metrics[f"{name}/{length}"] for length in table), name
    report = (folder / "report.md").read_text()
    assert f"| {metrics['loss/2']:.3f} | {metrics['loss/3']:.3f} |" in report
    assert "Length: 2 and 3; training: 3" in report
    assert (folder / "figures" / "lengths.png").stat().st_size > 5000
    assert (folder / "report.html").exists()


def test_names_are_those_of_a_run(run_folder):
    result = {"test": {"loss": 1.0, "excess_rows_low": 0.5, "excess_share": 2.0, "ce/id_atomic": 0.25}}
    assert flat(result) == {
        "loss/test": 1.0,
        "excess/test_rows_low": 0.5,
        "excess/test_share": 2.0,
        "ce/test/id_atomic": 0.25,
    }


def test_facts_have_a_table_of_their_types(tmp_path):
    task = get_task("analogy", num_relations=60)
    measured = Measured(new_model(build_tokenizer(task)), build_tokenizer(task))
    folder = evaluate(arguments(save(measured, tmp_path), task="analogy", task_args={"num_relations": 60}, rows=500))
    metrics = json.loads((folder / "metrics.json").read_text())
    facts = {name: value for name, value in metrics.items() if name.startswith("facts/test/")}
    assert {name.split("/")[2]: value for name, value in facts.items()} == {
        name: count for name, count in task.fact_counts().items() if count
    }
    kinds = [name.split("/")[2] for name in facts]
    mean = sum(metrics[f"ce/test/{kind}"] * metrics[f"facts/test/{kind}"] for kind in kinds) / metrics["rows/test"]
    assert mean == pytest.approx(metrics["loss/test"])
    assert "## Types of facts, test" in (folder / "report.md").read_text()


def test_an_adapter_is_measured_as_its_merged_model(run_folder, sort, tmp_path):
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(run_folder), LoraConfig(target_modules=["c_fc"], fan_in_fan_out=True)
    )
    torch.nn.init.normal_(adapted.base_model.model.transformer.h[0].mlp.c_fc.lora_B["default"].weight)
    adapted.save_pretrained(tmp_path)
    build_tokenizer(sort).save_pretrained(tmp_path)
    rows = sort.rows(0, 20, split="test")
    measured = load(arguments(str(tmp_path), task="sort"))
    merged = dataclasses.replace(measured, model=adapted.merge_and_unload())
    plain = load(arguments(run_folder))
    losses = [scored(one, rows, sort, ids_of(one, sort)).loss for one in (measured, merged, plain)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert abs(losses[0] - losses[2]) > 1e-3


# lm-eval

PROGRAM = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
found = {}
for model, tag, folder in json.loads(sys.argv[1]):
    manager = TaskManager(include_path=folder, include_defaults=False)
    asked = {"model_args": {"pretrained": model}, "tasks": [tag], "task_manager": manager}
    found |= simple_evaluate("hf", **asked, batch_size=16, device="cpu", bootstrap_iters=0)["results"]
print(json.dumps({name: [one["acc,none"], one["loss,none"]] for name, one in found.items()}))
"""


@pytest.mark.processes
def test_lm_eval_gives_the_same_numbers(run_folder, speaker, start_script, tmp_path):
    """Inputs of several lengths, a language whose prompts are empty, and facts without `<eos>`."""
    analogy = get_task("analogy", num_relations=60)
    models = {
        "sort": (run_folder, {}),
        "dyck": (save(speaker, tmp_path / "dyck"), {"task_args": {"k": 2, "length": 8}}),
        "analogy": (save(trained(analogy, 30), tmp_path / "analogy"), {"task_args": {"num_relations": 60}}),
    }
    ours, asked = {}, []
    for task, (model, options) in models.items():
        options = {"task": task, **options, "completions": 0, "samples": 0, "lm_eval": str(tmp_path / "tasks" / task)}
        folder = evaluate(arguments(model, **options, output_dir=str(tmp_path / f"{task}-results")))
        metrics = json.loads((folder / "metrics.json").read_text())
        ours[f"hf_synth_{task}_test"] = [metrics["row_accuracy/test"], metrics["loss/test"]]
        asked.append([model, f"hf_synth_{task}", options["lm_eval"]])
    (tmp_path / "program.py").write_text(PROGRAM)
    done = start_script(tmp_path / "program.py", json.dumps(asked), cwd=tmp_path).wait()
    assert done.code == 0, done.err[-3000:]
    theirs = json.loads(done.out.strip().splitlines()[-1])
    assert theirs.keys() == ours.keys()
    for name, (accuracy, loss) in ours.items():
        assert theirs[name][0] == pytest.approx(accuracy, abs=1e-9), name
        assert theirs[name][1] == pytest.approx(loss, abs=1e-5), name
    assert ours["hf_synth_sort_test"][0] > 0


def test_the_tag_runs_the_settings_of_the_last_evaluation_alone(tmp_path):
    """Those of another task, whose name begins alike, stay."""

    def written(name: str, *lengths: int) -> set[str]:
        settings = tuple(Setting(str(length), get_task(name, length=length), length) for length in lengths)
        write_lm_eval(tmp_path, Plan(settings, 0, "length"), [setting.task.rows(0, 2) for setting in settings])
        return {path.name.removeprefix("hf_synth_") for path in tmp_path.glob("hf_synth_*_*.*")}

    both = written("dyck_shuffle", 8) | {"dyck_4.yaml", "dyck_4.jsonl", "dyck_8.yaml", "dyck_8.jsonl"}
    assert written("dyck", 4, 8) == both
    assert written("dyck", 4) == both - {"dyck_8.yaml", "dyck_8.jsonl"}


def test_every_end_of_the_models_own_config_ends_a_completion(sort, sorter):
    known = ids_of(sorter, sort)
    before = sorter.model.generation_config.eos_token_id
    sorter.model.generation_config.eos_token_id = [EOS, int(known[6])]
    try:
        assert task_ends(sorter, known) == [EOS, EOS, int(known[6])]
        rows = add_prompts(sort.rows(0, 40, split="test"), "test", 0)
        prompts = [row[:start].tolist() for row, start in zip(rows.tokens, rows.loss_start, strict=True)]
        written = write_completions(sorter, prompts, [9] * len(prompts), ends=task_ends(sorter, known))
        assert any(row[-1] == int(known[6]) for row in written)
        assert all(int(known[6]) not in row[:-1] for row in written)
    finally:
        sorter.model.generation_config.eos_token_id = before
