"""Rows by number: a loader fetches what the task makes, whatever the numbers, the pass, the stage or the process."""

import math
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from hf_synth import get_task
from hf_synth.online import (
    ENDLESS,
    DistillationDataset,
    HeldRows,
    OnlineRows,
    Passes,
    Stages,
    TokenColumns,
    batch_of,
    concatenated,
    only_batch,
    soft_cross_entropy,
)
from hf_synth.tasks.base import Rows

SORT = get_task("sort", length=4)
ANALOGY = get_task("analogy", num_relations=40)  # finite
DYCK = get_task("dyck_shuffle", k=2, length=8)


def grown(stage):
    return get_task("sort", length=2 + 2 * stage)


def plain(rows):
    """Token lists and label lists, one row and one token at a time."""
    width = max(rows.lengths, default=0)
    ids = [[int(row[at]) for at in range(width)] for row in rows.tokens]
    spans = list(zip(rows.loss_start, rows.loss_stop, strict=True))
    labels = [
        [token if start <= at < stop else -100 for at, token in enumerate(row)]
        for row, (start, stop) in zip(ids, spans, strict=True)
    ]
    return {"input_ids": ids, "labels": labels}


def as_lists(batch):
    assert all(values.dtype == torch.int64 for values in batch.values())
    return {name: values.tolist() for name, values in batch.items()}


def one_by_one(task, indices, split="train", seed=0):
    return [task.rows(int(index), 1, split=split, seed=seed) for index in indices]


def assert_same(rows, parts):
    """Rows against blocks of one row each."""
    assert len(rows) == len(parts)
    for number, part in enumerate(parts):
        length = part.lengths[0]
        assert rows.tokens[number, :length].tolist() == part.tokens[0, :length].tolist()
        assert not rows.tokens[number, length:].any()
        for name in ("lengths", "loss_start", "loss_stop"):
            assert getattr(rows, name)[number] == getattr(part, name)[0]
        for name, column in part.columns.items():
            assert rows.columns[name][number] == column[0]


@pytest.mark.parametrize("task", [SORT, ANALOGY, DYCK], ids=["sort", "finite", "dyck_shuffle"])
def test_batches_made_ahead_are_those_made_one_by_one(task):
    rows = OnlineRows(task, seed=3)
    asked = [(0, 4), (4, 4), (8, 4), (12, 4), (60, 4), (64, 4), (68, 7), (75, 100), (175, 100), (4, 4), (2, 1), (3, 2)]
    for first, count in asked:
        index = np.arange(first, first + count)
        assert_same(rows.rows(index), one_by_one(task, index, seed=3))


def test_no_row_is_made_ahead_for_a_reader_that_skips_rows_or_beyond_the_end(monkeypatch):
    made = []
    monkeypatch.setattr(
        type(SORT), "rows", lambda self, first, count, **how: made.append((first, count)) or empty_rows(count)
    )
    skipping, ending = OnlineRows(SORT), OnlineRows(SORT, size=20)
    for first in (0, 8, 16):  # one rank of two
        skipping.rows(np.arange(first, first + 4))
    assert made == [(0, 4), (8, 4), (16, 4)]
    made.clear()
    for first in range(0, 20, 4):
        ending.rows(np.arange(first, first + 4))
    assert made == [(0, 4), (4, 16)]


def empty_rows(count):
    zeros = np.zeros(count, np.int64)
    return Rows(np.zeros((count, 1), np.int64), zeros, zeros, zeros, {})


def test_a_batch_against_a_plain_loop():
    rows = get_task("tivari3").rows(0, 40)
    assert len(set(rows.lengths.tolist())) > 1
    assert as_lists(batch_of(rows)) == plain(rows)
    short = rows.select(rows.lengths == rows.lengths.min())
    assert batch_of(short)["input_ids"].shape[1] == rows.lengths.min(), "no wider than its longest row"


@pytest.mark.parametrize("task", [SORT, ANALOGY, DYCK], ids=lambda task: task.name)
@pytest.mark.parametrize(
    "indices",
    [
        [0, 1, 2, 3],
        [7],
        [5, 6, 9, 10, 11, 3, 2],
        [4, 4, 0],
        [2**61, 2**61 + 1, 1],
    ],
)
def test_rows_of_any_numbers(task, indices):
    rows = OnlineRows(task, split="validation", seed=3).rows(np.array(indices))
    assert_same(rows, one_by_one(task, indices, "validation", 3))


def test_a_finite_task_begins_again_in_another_order():
    size = ANALOGY.size("train")
    rows = OnlineRows(ANALOGY, seed=1).rows(np.arange(3 * size))
    passes = [[tuple(row) for row in part] for part in rows.tokens.reshape(3, size, -1).tolist()]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(passes[2])
    assert len(set(passes[0])) == size
    assert passes[0] != passes[1] != passes[2]
    over = np.arange(size - 3, size + 3)
    assert_same(OnlineRows(ANALOGY, seed=1).rows(over), one_by_one(ANALOGY, over, seed=1))


def test_a_fetch_is_one_batch_and_an_item_one_row_of_it():
    rows = OnlineRows(SORT, seed=2)
    (fetched,) = rows.__getitems__([3, 4, 8])
    assert as_lists(fetched) == plain(concatenated(one_by_one(SORT, [3, 4, 8], seed=2)))
    assert only_batch([fetched]) is fetched
    assert rows[8]["input_ids"].tolist() == fetched["input_ids"][2].tolist()
    assert rows[8]["labels"].tolist() == fetched["labels"][2].tolist()
    assert len(rows) == ENDLESS
    assert len(OnlineRows(SORT, size=5)) == 5


# Stages


def staged(*first_rows):
    stages = Stages()
    for stage, first in enumerate(first_rows, start=1):
        stages.begin(stage, first)
    return stages


def test_several_stages_in_one_batch():
    stages = staged(4, 6)
    indices = [0, 3, 4, 5, 6, 7, 2, 100]
    rows = OnlineRows(grown, seed=5, stages=stages).rows(np.array(indices))
    stage_of = [0, 0, 1, 1, 2, 2, 0, 2]
    assert stages.of(np.array(indices)).tolist() == stage_of
    parts = [grown(stage).rows(index, 1, seed=5) for index, stage in zip(indices, stage_of, strict=True)]
    assert len({part.tokens.shape[1] for part in parts}) == 3
    assert_same(rows, parts)


def test_stages_only_grow_one_after_the_other():
    stages = Stages()
    assert (stages.last, stages.first_row(0)) == (0, 0)
    assert stages.of(np.array([0, 10**15])).tolist() == [0, 0]
    stages.begin(1, 10)
    assert (stages.last, stages.first_row(1)) == (1, 10)
    for stage, row in ((1, 20), (3, 20), (0, 20), (2, 9)):
        with pytest.raises(ValueError, match=f"got stage {stage} from row {row}, wanted stage 2 at a later row"):
            stages.begin(stage, row)
    stages.begin(2, 10)
    assert stages.of(np.array([9, 10])).tolist() == [0, 2], "a stage that begins where the next one does has no row"


def test_stages_without_tasks_and_the_other_way_round():
    for task, stages in ((SORT, Stages()), (grown, None)):
        with pytest.raises(ValueError, match="wanted both or neither"):
            OnlineRows(task, stages=stages)


def test_loader_workers_see_a_stage_that_begins_after_they_were_forked():
    stages, rows, batch = Stages(), 200, 4
    loader = DataLoader(
        OnlineRows(grown, size=rows, stages=stages), batch_size=batch, collate_fn=only_batch, num_workers=2,
        multiprocessing_context="fork",
    )  # fmt: skip
    result = []
    for number, fetched in enumerate(loader):
        if number == 3:
            stages.begin(1, 100)
        result.append(fetched["input_ids"])
    parts = [grown(0).rows(0, 100), grown(1).rows(100, 100)]
    wanted = [torch.from_numpy(part.tokens).long() for part in parts]
    assert torch.equal(torch.cat(result[:25]), wanted[0])
    assert torch.equal(torch.cat(result[25:]), wanted[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers):
    loader = DataLoader(OnlineRows(SORT, size=40), batch_size=8, collate_fn=only_batch, num_workers=workers)
    assert torch.equal(torch.cat([batch["input_ids"] for batch in loader]), batch_of(SORT.rows(0, 40))["input_ids"])


# Rows that are there


def test_held_rows():
    rows = DYCK.rows(0, 12)
    held = HeldRows(rows)
    assert (len(held), held.width) == (12, rows.lengths.max())
    (fetched,) = held.__getitems__([5, 1, 1])
    assert as_lists(fetched) == plain(rows.select(np.array([5, 1, 1])))
    assert held[5]["input_ids"].tolist() == fetched["input_ids"][0].tolist()


def test_token_columns_are_padded_where_rows_differ():
    dataset = Dataset.from_dict({"input_ids": [[1, 5], [1, 6, 7, 2], [1]], "labels": [[-100, 5], [1, 6, 7, 2], [1]]})
    rows = TokenColumns(dataset)
    assert (len(rows), rows.width) == (3, 4)
    (fetched,) = rows.__getitems__([1, 0])
    assert as_lists(fetched) == {
        "input_ids": [[1, 6, 7, 2], [1, 5, 0, 0]],
        "labels": [[1, 6, 7, 2], [-100, 5, -100, -100]],
    }
    assert rows[0]["input_ids"].tolist() == [1, 5]


def test_passes_show_each_row_once_in_each_in_an_order_by_seed():
    held = HeldRows(SORT.rows(0, 10))
    positions = {tuple(row): number for number, row in enumerate(held.rows.tokens.tolist())}

    def order(seed, indices=range(30)):
        (fetched,) = Passes(held, seed).__getitems__(list(indices))
        return [positions[tuple(row)] for row in fetched["input_ids"].tolist()]

    first, second, third = np.split(np.array(order(0)), 3)
    assert sorted(first) == sorted(second) == sorted(third) == [*range(10)]
    assert first.tolist() != second.tolist() != third.tolist()
    assert first.tolist() != [*range(10)]
    assert order(0) == order(0) != order(1)
    assert order(0, range(7, 13)) == order(0)[7:13], "a fetch may lie in two passes"
    assert len(Passes(held)) == ENDLESS
    assert Passes(held).width == held.width


def test_passes_over_nothing():
    with pytest.raises(ValueError, match="got a dataset of no row to train on, wanted at least one"):
        Passes(HeldRows(SORT.rows(0, 0)))


def test_blocks_are_put_together_as_wide_as_the_widest():
    parts = [ANALOGY.rows(0, 3), ANALOGY.rows(9, 1), ANALOGY.rows(4, 2)]
    narrow = parts[1]
    cut = Rows(narrow.tokens[:, : narrow.lengths[0]], narrow.lengths, narrow.loss_start, narrow.loss_stop)
    cut.columns = narrow.columns
    rows = concatenated([parts[0], cut, parts[2]])
    assert_same(rows, one_by_one(ANALOGY, [0, 1, 2, 9, 4, 5]))
    assert set(rows.columns) == set(ANALOGY.columns)


@pytest.mark.parametrize(("name", "printed"), [("distributions", 2), ("interpretability", 0)])
def test_the_code_of_a_page_runs_and_prints_what_it_says(name, printed, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[1] / "docs" / f"{name}.md").read_text(encoding="utf-8")
    code = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.py").write_text(code, encoding="utf-8")
    runpy.run_path("page.py")
    said = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert [line for line in capsys.readouterr().out.splitlines() if line in said] == said
    assert len(said) == printed


@pytest.mark.parametrize("task", [SORT, ANALOGY, DYCK, get_task("palindrome")], ids=lambda task: task.name)
def test_soft_labels_are_the_best_predictors_and_the_rest_is_as_without(task):
    index = [7, 3, 12]
    [batch], [plain] = (dataset(task, seed=3).__getitems__(index) for dataset in (DistillationDataset, OnlineRows))
    assert torch.equal(batch["input_ids"], plain["input_ids"])
    carries = plain["labels"] != -100
    assert torch.equal(batch["labels"][:, :, 0] != -100, carries)
    assert (batch["labels"][~carries] == -100).all()
    for number, row in enumerate(index):
        rows = task.rows(row, 1, seed=3)
        best = task.optimal_distribution(rows, np.arange(rows.loss_start[0], rows.loss_stop[0]))[0]
        assert torch.equal(batch["labels"][number, carries[number]], torch.from_numpy(best).float())


def test_soft_cross_entropy_of_a_model_that_rules_out_what_cannot_follow():
    best = torch.tensor([[[-100.0] * 3, [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]])
    logits = torch.cat([best[:, 1:].log(), torch.zeros(1, 1, 3)], dim=1)
    assert soft_cross_entropy(SimpleNamespace(logits=logits), best).item() == pytest.approx(math.log(2) / 2)
    with pytest.raises(ValueError, match="got a model of 2 ids, wanted the task's 3, or more"):
        soft_cross_entropy(SimpleNamespace(logits=logits[..., :2]), best)


def test_soft_cross_entropy_of_certain_labels_is_the_usual_one_however_a_step_is_split():
    [soft], [hard] = (dataset(SORT).__getitems__(range(6)) for dataset in (DistillationDataset, OnlineRows))
    torch.manual_seed(0)
    logits = torch.randn(*hard["labels"].shape, 4 + len(SORT.vocabulary()))
    outputs = SimpleNamespace(logits=logits)
    usual = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), hard["labels"][:, 1:].flatten())
    assert soft_cross_entropy(outputs, soft["labels"]).item() == pytest.approx(usual.item(), abs=1e-5)
    counted = (soft["labels"] != -100).sum()  # as Trainer does
    halves = [
        soft_cross_entropy(SimpleNamespace(logits=logits[part]), soft["labels"][part], counted).item()
        for part in (slice(3), slice(3, 6))
    ]
    assert sum(halves) == pytest.approx(usual.item(), abs=1e-5)


def test_soft_labels_are_of_one_task():
    with pytest.raises(ValueError, match="got stages, wanted one task"):
        DistillationDataset(grown, stages=Stages())[0]
