"""The weighted stream: the sampler's order for trainers that take no sampler; resumed, shared by ranks and workers."""

import gc
import itertools
import multiprocessing
import sys

import datasets
import numpy as np
import pytest
import torch
from accelerate.data_loader import IterableDatasetShard
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl.experimental.async_grpo.async_rollout_worker import _AsyncRolloutLoop
from trl.trainer.utils import repeat_iterable_dataset

import hf_synth
from hf_synth.sampling import DensityWeightedSampler, WeightedGRPOTrainer, WeightedTrainer

WEIGHTS = np.array([5.0, 0.0, 1.0, 1.0, 1.0, 0.5, 2.0, 1.5, 0.0, 3.0, 1.0, 1.0, 1.0])


def sampler(**options):
    return DensityWeightedSampler(WEIGHTS, seed=3, **options)


def order(count, first=0, **options):
    """The first draws of the sampler, round after round."""
    drawing = sampler(**options)

    def rounds():
        for number in itertools.count(first):
            drawing.set_epoch(number)
            yield from drawing

    return list(itertools.islice(rounds(), count))


def taken(stream, count):
    return [int(row["prompt"][1:]) for row in itertools.islice(stream, count)]


@pytest.fixture
def stream(tiny):
    return hf_synth.weighted_stream(tiny.prompts(WEIGHTS), sampler())


def test_the_order_is_the_samplers_round_after_round(stream, tiny):
    assert taken(stream, 60) == order(60)
    assert taken(stream, 60) == order(60), "and the same again"
    assert stream.column_names == ["prompt", "sampling_weight"]
    options = {"batch_size": 4, "round_size": 9}
    assert taken(hf_synth.weighted_stream(tiny.prompts(WEIGHTS), sampler(**options)), 40) == order(40, **options)


@pytest.mark.parametrize("after", [1, 12, 13, 14, 39, 50])
def test_a_state_resumes_in_the_middle(after, stream, tiny):
    assert taken(stream, after) == order(after)
    resumed = hf_synth.weighted_stream(tiny.prompts(WEIGHTS), sampler())
    resumed.load_state_dict(stream.state_dict())
    assert taken(resumed, 30) == order(after + 30)[after:]


def test_an_epoch_is_the_first_round(stream):
    stream.set_epoch(2)
    assert taken(stream, 30) == order(30, first=2)
    state = stream.state_dict()
    assert taken(stream.map(lambda row: row), 30) == order(30), "a derived stream has an epoch of its own"
    derived = stream.map(lambda row: row)
    derived.set_epoch(5)
    assert taken(derived, 30) == order(30, first=5)
    stream.load_state_dict(state)
    assert taken(stream, 10) == order(40, first=2)[30:]


def test_weights_may_change_between_rounds(tiny):
    drawing = sampler()
    rows = iter(hf_synth.weighted_stream(tiny.prompts(WEIGHTS), drawing))
    assert taken(rows, 5) == order(5)
    drawing.set_weights(np.eye(13)[7])
    assert taken(rows, 8) == order(13)[5:], "the round goes on"
    assert taken(rows, 13) == [7] * 13


def test_a_stream_whose_weights_changed_within_a_round_resumes(tiny):
    drawing = sampler()
    stream = hf_synth.weighted_stream(tiny.prompts(WEIGHTS), drawing)
    rows = iter(stream)
    assert taken(rows, 5) == order(5)
    drawing.set_weights(np.eye(13)[7])
    resumed = sampler()
    resumed.load_state_dict(drawing.state_dict())
    again = hf_synth.weighted_stream(tiny.prompts(WEIGHTS), resumed)
    again.load_state_dict(stream.state_dict())
    assert taken(again, 21) == [*order(13)[5:], *[7] * 13]


def test_a_shuffled_or_interleaved_stream_ends_without_complaint(stream, monkeypatch):
    complaints = []
    with monkeypatch.context() as patch:
        patch.setattr(sys, "unraisablehook", complaints.append)
        assert len(list(stream.shuffle(seed=1, buffer_size=3).take(5))) == 5
        assert len(list(datasets.interleave_datasets([stream, stream], probabilities=[0.5, 0.5], seed=0).take(6))) == 6
        gc.collect()
    assert complaints == []


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_draws_and_keep_groups_whole(ranks, tiny):
    """Each rank repeats what it reads; taken in turn, their groups are those of one process. 13 draws a round."""
    read = []
    for rank in range(ranks):
        stream = hf_synth.weighted_stream(tiny.prompts(WEIGHTS), sampler(), rank=rank, world_size=ranks)
        first = taken(repeat_iterable_dataset(stream, 3), 60)
        again = hf_synth.weighted_stream(tiny.prompts(WEIGHTS), sampler(), rank=rank, world_size=ranks)
        assert taken(stream, 7) == first[:21:3]
        again.load_state_dict(stream.state_dict())
        assert taken(again, 13) == first[21::3]
        read.append(np.reshape(first, (-1, 3)))
    assert all((groups == groups[:, :1]).all() for groups in read)
    assert np.stack([groups[:, 0] for groups in read], axis=1).ravel().tolist() == order(20 * ranks)


def test_the_split_of_datasets_deals_out_single_rows(stream):
    ranks = [taken(split_dataset_by_node(stream, rank, 2), 20) for rank in range(2)]
    assert np.stack(ranks, axis=1).ravel().tolist() == order(40)


def test_trainers_slices_of_two_processes_hold_whole_groups(stream):
    """As GRPOTrainer reads a stream: groups of 4 in batches of 8 a process, the batches dealt out by accelerate."""
    repeated = repeat_iterable_dataset(stream, 4, batch_size=4)
    ranks = [IterableDatasetShard(repeated, batch_size=8, num_processes=2, process_index=rank) for rank in range(2)]
    read = [np.reshape(taken(iter(rank), 64), (-1, 2, 4)) for rank in ranks]
    assert np.stack(read, axis=1).reshape(-1, 4).tolist() == [[row] * 4 for row in order(32)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_loader_workers_keep_the_order(workers, stream):
    loader = DataLoader(stream, batch_size=4, num_workers=workers)
    batches = list(itertools.islice(loader, 10))
    assert [int(text[1:]) for batch in batches for text in batch["prompt"]] == order(40)


def test_a_stateful_loader_resumes(stream, tiny):
    loading = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    loader = loading.StatefulDataLoader(stream, batch_size=4, num_workers=2)
    batches = list(itertools.islice(loader, 5))
    again = hf_synth.weighted_stream(tiny.prompts(WEIGHTS), sampler())
    resumed = loading.StatefulDataLoader(again, batch_size=4, num_workers=2)
    resumed.load_state_dict(loader.state_dict())
    batches += itertools.islice(resumed, 5)
    assert [int(text[1:]) for batch in batches for text in batch["prompt"]] == order(40)


def test_a_trainer_of_transformers_streams_what_the_weighted_one_draws(tiny, tmp_path):
    rows = tiny.causal_rows(WEIGHTS)
    args = tiny.arguments(TrainingArguments, tmp_path, max_steps=7, seed=3)
    weighted = WeightedTrainer(tiny.model(), args, train_dataset=rows)
    streamed = Trainer(tiny.model(), args, train_dataset=hf_synth.weighted_stream(rows, sampler()))
    drawn = [tiny.record_rows(trainer) for trainer in (weighted, streamed)]
    streamed.train()
    assert [row - 3 for batch in drawn[1] for row in batch] == order(28)
    weighted.train()
    assert drawn[0][:3] == drawn[1][:3], "12 of 13 rows; then the weighted trainer ends its round with a short batch"


def test_sft_resumes_within_a_stream(tiny, tmp_path):
    rows = tiny.rows(WEIGHTS, text="{0} {0}")
    seen = {}
    for name, steps, resume in (("whole", 6, False), ("cut", 3, False), ("resumed", 6, True)):
        args = tiny.arguments(
            SFTConfig, tmp_path / ("whole" if name == "whole" else "cut"), max_steps=steps, save_strategy="steps",
            save_steps=3, lr_scheduler_type="constant",
        )  # fmt: skip
        stream = hf_synth.weighted_stream(rows, sampler())
        trainer = SFTTrainer(tiny.model(), args, train_dataset=stream, processing_class=tiny.tokenizer())
        seen[name] = tiny.record_rows(trainer)
        trainer.train(resume_from_checkpoint=resume)
        seen[f"{name} weights"] = tiny.parameters(trainer)
    assert [row - 3 for batch in seen["whole"] for row in batch] == order(24)
    assert seen["cut"] + seen["resumed"] == seen["whole"]
    whole, resumed = seen["whole weights"], seen["resumed weights"]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_stock_grpo_streams_the_prompts_of_weighted_grpo(tiny, tmp_path):
    settings = {
        "num_generations": 4,
        "steps_per_generation": 3,
        "max_completion_length": 3,
        "max_steps": 18,
        "seed": 3,
    }
    calls = []
    for kind, options in ((WeightedGRPOTrainer, {}), (GRPOTrainer, {"shuffle_dataset": False})):
        recorded, rows = tiny.Recorded(), tiny.prompts(WEIGHTS)
        args = tiny.arguments(GRPOConfig, tmp_path, **settings, **options)
        data = rows if kind is WeightedGRPOTrainer else hf_synth.weighted_stream(rows, sampler(batch_size=3))
        kind(tiny.model(), recorded, args=args, train_dataset=data, processing_class=tiny.tokenizer()).train()
        calls.append(recorded.calls)
    assert calls[0] == calls[1]
    assert [int(prompt[1:]) for call in calls[1] for prompt in call[::4]] == order(18, batch_size=3)


def in_a_process(stream, results):
    """What AsyncGRPOTrainer's rollout worker does with its dataset: whole groups, from a process of its own."""
    loop = _AsyncRolloutLoop.__new__(_AsyncRolloutLoop)
    loop.dataset, loop._dataset_iter, loop.num_generations = stream, iter(stream), 4
    results.put([(group, int(row["prompt"][1:])) for group, row in itertools.islice(loop._repeat_iterator(), 120)])


@pytest.mark.processes
def test_the_worker_of_asynchronous_grpo_draws_by_weight(stream):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=in_a_process, args=(stream, results))
    process.start()
    read = results.get(timeout=120)
    process.join()
    assert read == [(group, row) for group, row in enumerate(order(30)) for _ in range(4)]


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        (WEIGHTS[1:], {}, "sampler: got 12 weights, wanted one for each of 13 rows"),
        (WEIGHTS, {"group_size": 4}, "got group_size=4 and repeat_count=1, wanted 1: the trainer repeats"),
        (WEIGHTS, {"repeat_count": 2}, "got group_size=1 and repeat_count=2, wanted 1"),
    ],
)
def test_what_is_no_order_of_single_rows_is_refused(weights, options, message, tiny):
    with pytest.raises(ValueError, match=message):
        hf_synth.weighted_stream(tiny.prompts(WEIGHTS), DensityWeightedSampler(weights, **options))


def test_a_rank_that_there_is_not_is_refused(tiny):
    with pytest.raises(ValueError, match="rank: got 2 of world_size 2, wanted 0 to world_size - 1"):
        hf_synth.weighted_stream(tiny.prompts(WEIGHTS), sampler(), rank=2, world_size=2)


def test_a_stream_is_one_shard(stream):
    assert taken(stream.shard(2, 0), 8) == order(8)
    with pytest.raises(ValueError, match="got shard 1 of 2, wanted the only one; use rank= and world_size="):
        taken(stream.shard(2, 1), 8)
