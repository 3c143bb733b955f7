"""What a run reads: rows of a task, datasets in every layout, and a curriculum's tasks."""

import datasets
import numpy as np
import pytest
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from hf_synth import build_tokenizer, get_task
from hf_synth.corpora.splits import CorpusArguments
from hf_synth.online import HeldRows, OnlineRows, Passes
from hf_synth.preferences import train_bpe_tokenizer
from hf_synth.training.arguments import PolicyArguments
from hf_synth.training.pretraining import check_model_size, check_task_vocabulary
from hf_synth.training.pretraining_data import (
    CurriculumArguments,
    KeepingArguments,
    PretrainingData,
    RowsArguments,
    ScheduleArguments,
    Settings,
    chosen_task,
    fingerprint,
    held_rows,
    pretraining_data,
    token_dataset,
)
from hf_synth.training.transfer import TransferArguments
from hf_synth.views import view_table

SORT = get_task("sort", length=4, vocab_size=10)
ARGS = {"task": "sort", "task_args": {"length": 4, "vocab_size": 10}}


def data(curriculum=None, **rows):
    arguments = RowsArguments(**{**ARGS, "eval_rows": 8, "test_rows": 12, **rows})
    task = chosen_task(arguments)
    return pretraining_data(task, settings(arguments, curriculum=curriculum), build_tokenizer(task))


def settings(rows, corpus=None, curriculum=None, **options):
    parts = (rows, corpus or CorpusArguments(), curriculum or CurriculumArguments())
    rest = (ScheduleArguments(), KeepingArguments(), TransferArguments(), PolicyArguments())
    args = TrainingArguments("out", use_cpu=True, max_steps=3, report_to="none", **options)
    return Settings(*parts, *rest, args)


def ids(dataset, count):
    (batch,) = dataset.__getitems__(list(range(count)))
    return batch["input_ids"].tolist()


def test_fresh_rows_and_fixed_looks_from_splits_of_their_own():
    result = data(rows_seed=3)
    assert isinstance(result.train, OnlineRows)
    assert result.epoch is None
    assert ids(result.train, 6) == SORT.rows(0, 6, seed=3).tokens.tolist()
    for split, count, held in (
        ("train", 8, result.eval_sets["train"]),
        ("validation", 8, result.eval_sets["validation"]),
    ):
        assert ids(held, count) == SORT.rows(0, count, split=split, seed=3).tokens.tolist()
    assert ids(result.test, 12) == SORT.rows(0, 12, split="test", seed=3).tokens.tolist()
    assert len(result.test) == 12


def test_a_finite_number_of_rows_over_and_over():
    result = data(train_rows=5)
    assert (result.epoch, isinstance(result.train, Passes)) == (5, True)
    passes = np.array(ids(result.train, 15)).reshape(3, 5, -1).tolist()
    assert ids(result.eval_sets["train"], 5) == SORT.rows(0, 5).tokens.tolist()
    assert (len(result.eval_sets["train"]), len(result.eval_sets["validation"])) == (5, 8)
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(passes[2]) == sorted(SORT.rows(0, 5).tokens.tolist())


def test_held_rows_know_their_floor_and_their_groups():
    task = get_task("analogy", num_relations=40)
    held = held_rows(task, "validation", 10**6, 0)
    assert len(held) == task.size("validation")
    assert (held.optimal == task.optimal_log_probs(held.rows)).all()
    assert (held.groups == held.rows.columns["fact_type"]).all()
    assert len(held_rows(task, "validation", 7, 0)) == 7


# Datasets


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """20 rows in each layout: save_to_disk, a folder of Parquet, and configs as datasets_scripts/ publish them."""
    folder = tmp_path_factory.mktemp("datasets")
    table = Dataset(view_table(SORT, "tokens+text", 0, 20, split="train", seed=0))
    table.save_to_disk(folder / "saved")
    (folder / "parquet").mkdir()
    table.select(range(12)).to_parquet(folder / "parquet" / "train-0.parquet")
    table.select(range(12, 20)).to_parquet(folder / "parquet" / "train-1.parquet")
    (folder / "hub" / "sort-4").mkdir(parents=True)
    table.to_parquet(folder / "hub" / "sort-4" / "train-00000-of-00001.parquet")
    table.select(range(3)).to_parquet(folder / "hub" / "sort-4" / "validation-00000-of-00001.parquet")
    card = ["---", "configs:", "- config_name: sort-4", "  data_files:"]
    for split in ("train", "validation"):
        card += [f"  - split: {split}", f"    path: sort-4/{split}-*.parquet"]
    (folder / "hub" / "README.md").write_text("\n".join([*card, "---", ""]))
    return folder


@pytest.mark.parametrize("layout", ["saved", "parquet", "hub"])
def test_a_dataset_in_every_layout(layout, published):
    name = {"dataset_name": "sort-4"} if layout == "hub" else {}
    result = data(dataset=str(published / layout), **name)
    assert result.epoch == 20
    rows = SORT.rows(0, 20)
    assert sorted(ids(result.train, 20)) == sorted(rows.tokens.tolist())
    (batch,) = result.train.__getitems__(list(range(20)))
    wanted = np.where(rows.loss_mask, rows.tokens, -100).tolist()
    assert sorted(batch["labels"].tolist()) == sorted(wanted)
    assert ids(result.eval_sets["validation"], 8) == SORT.rows(0, 8, split="validation").tokens.tolist()


def test_a_split_of_a_dataset(published):
    result = data(dataset=str(published / "hub"), dataset_name="sort-4", dataset_split="train[:3]")
    assert result.epoch == 3


@pytest.mark.parametrize("split", ["validation", "test", "train+test", "test[:50%]", "train + validation[5:]", "all"])
def test_a_split_that_holds_rows_of_the_measured_ones(split, published):
    with pytest.raises(ValueError, match=r"dataset_split: got .*, wanted rows to train on, such as 'train'"):
        data(dataset=str(published / "hub"), dataset_name="sort-4", dataset_split=split)


def test_rows_that_are_chosen_are_checked_and_no_others(tmp_path):
    """A selection still holds the whole table."""
    table = Dataset.from_dict({"input_ids": [[1, 5], [1, 99]], "labels": [[-100, 5], [-100, 5]]})
    for number in (0, 1):
        table.select([number]).save_to_disk(tmp_path / str(number))
    assert len(token_dataset(RowsArguments(**ARGS, dataset=str(tmp_path / "0")), 14)) == 1
    with pytest.raises(ValueError, match="got the id 99, where the task has 14 words"):
        token_dataset(RowsArguments(**ARGS, dataset=str(tmp_path / "1")), 14)


def test_a_fingerprint_is_of_every_row_wherever_it_lies(published, tmp_path):
    result = {name: fingerprint(data(dataset=str(published / name))) for name in ("saved", "parquet")}
    assert result["saved"] == result["parquet"]
    rows = Dataset.load_from_disk(published / "saved").to_list()
    for name in ("input_ids", "labels"):
        changed = [*rows[:-1], {**rows[-1], name: [*rows[-1][name][:-1], 7]}]  # no look is at the last row
        Dataset.from_list(changed).save_to_disk(tmp_path / name)
        result[name] = fingerprint(data(dataset=str(tmp_path / name)))
    result["seed"], result["held"] = fingerprint(data(rows_seed=1)), fingerprint(data(train_rows=9))
    result["fresh"] = fingerprint(data())
    assert len(set(result.values())) == len(result) - 1


@pytest.mark.parametrize("tokens", [None, 96])
def test_a_fingerprint_is_of_every_block_of_text(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path, task = tmp_path / "text.txt", get_task("tivari")
    corpus = CorpusArguments(canonical=str(path), block_size=32, canonical_eval_tokens=64, corpus_tokens=tokens)
    lines = [f"The number {number} is followed by {number + 1}, and later by others.\n\n" for number in range(200)]
    result = []
    tokenizer = train_bpe_tokenizer(lines, vocab_size=300, chat=False)
    of_corpus = settings(RowsArguments(), corpus, per_device_train_batch_size=1)
    for text in (lines, lines, [line.replace("later", "sooner") for line in lines]):
        path.write_text("".join(text), encoding="utf-8")
        result.append(fingerprint(pretraining_data(task, of_corpus, tokenizer)))
    assert result[0] == result[1] != result[2]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"input_ids": [[1, 5], [1, -1]]}, "got the id -1, where the task has 14 words"),
        ({"labels": [[-100, 5], [-100, 14]]}, "got the label 14, where the task has 14 words"),
        ({"labels": [[5], [5]]}, "got labels of another length than input_ids"),
        ({"labels": [[-100, 5], None]}, "got labels of another length than input_ids, or none"),
        ({"input_ids": [["a", "b"], ["c", "d"]]}, "got columns that are no lists of whole numbers"),
    ],
)
def test_datasets_that_do_not_fit(changes, wanted, tmp_path):
    rows = {"input_ids": [[1, 5], [1, 6]], "labels": [[-100, 5], [-100, 6]], **changes}
    Dataset.from_dict(rows).save_to_disk(tmp_path)
    with pytest.raises(ValueError, match=wanted):
        data(dataset=str(tmp_path))


def test_a_dataset_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"dataset: got '.*missing', which cannot be loaded"):
        data(dataset=str(tmp_path / "missing"))


@pytest.mark.parametrize("more", [{"train_rows": 5}, {"dataset": "x"}])
def test_a_curriculum_is_for_fresh_rows(more):
    with pytest.raises(ValueError, match="got a curriculum with dataset or train_rows, wanted fresh rows"):
        data(CurriculumArguments(curriculum_field="length"), **more)


# Curricula


def test_the_stages_of_a_curriculum():
    result = data(CurriculumArguments(curriculum_field="length", curriculum_start=1, curriculum_step=2)).curriculum
    assert [result.task_of(stage).config.length for stage in range(3)] == [1, 3, 4]
    assert result.last == 2
    assert result.task_of(result.last).config == SORT.config
    assert result.task_of(1) is result.task_of(1)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"curriculum_field": "lenth"}, "curriculum_field: got 'lenth'; did you mean 'length'"),
        ({"curriculum_field": "holdout"}, "got 'holdout', which is no size in whole numbers; Known: length, "),
        ({"curriculum_field": "length", "curriculum_start": 4}, "curriculum_start: got 4, wanted less than 4"),
        ({"curriculum_field": "length", "curriculum_start": 0}, "SequenceConfig.length: got 0, wanted a value from 1"),
        ({"curriculum_field": "vocab_size"}, "which changes the vocabulary"),
    ],
)
def test_curricula_that_are_none(values, wanted):
    with pytest.raises(ValueError, match=wanted):
        data(CurriculumArguments(**values))


def test_neither_a_share_nor_a_seed_grows():
    for name in ("atomic_ood_ratio", "graph_seed"):
        with pytest.raises(ValueError, match=f"got '{name}', which is no size in whole numbers; ") as caught:
            data(CurriculumArguments(curriculum_field=name), task="analogy", task_args={"num_relations": 40})
        assert "num_relations" in str(caught.value)
        assert "seed" not in str(caught.value).partition("; ")[2].partition("Known: ")[2]


# Models that do not fit


def gpt2(positions=64, words=14):
    return GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, n_positions=positions, vocab_size=words))


def test_the_longest_row_counts_wherever_it_is():
    """The first rows are short; the longest is one of the last."""
    task = get_task("tivari3")
    rows = task.rows(0, 200)
    rows = rows.select(np.argsort(rows.lengths, kind="stable"))
    short, longest = int(rows.lengths[0]), int(rows.lengths[-1])
    assert short < longest
    tokenizer, one = build_tokenizer(task), HeldRows(rows.select(np.array([0])))
    for train, test in ((Passes(HeldRows(rows)), one), (Passes(one), HeldRows(rows))):
        result = PretrainingData(train, {"validation": one}, test)
        check_model_size(gpt2(longest, len(tokenizer)), tokenizer, result)
        with pytest.raises(ValueError, match=f"got rows of {longest} tokens and a model of {longest - 1} positions"):
            check_model_size(gpt2(longest - 1, len(tokenizer)), tokenizer, result)


def test_the_words_of_a_checkpoint(tmp_path):
    tokenizer, policy = build_tokenizer(SORT), PolicyArguments(model_name_or_path=str(tmp_path))
    check_task_vocabulary(PolicyArguments(), tokenizer)
    gpt2().save_pretrained(tmp_path)
    check_task_vocabulary(policy, tokenizer)  # a model without words has none that are others
    build_tokenizer(get_task("sort", length=9, vocab_size=12)).save_pretrained(tmp_path)
    check_task_vocabulary(policy, tokenizer)
    build_tokenizer(get_task("tivari3"), SORT).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"whose tokenizer has other ids for 10 words .*\('0': \d+ there, 4 here\)"):
        check_task_vocabulary(policy, tokenizer)
