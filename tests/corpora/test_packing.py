"""Packing: no token lost, resumed in the middle, and dealt to workers and ranks."""

import itertools
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from hf_synth import build_tokenizer, get_task
from hf_synth.corpora import Numbered, Packed, StandIn, arm_stream, interleave, token_counter
from hf_synth.corpora.streams import SCHEMA
from hf_synth.models import RopeGPTConfig, RopeGPTForCausalLM
from hf_synth.preferences import train_bpe_tokenizer


@pytest.fixture(scope="module")
def task():
    return get_task("tivari")


@pytest.fixture(scope="module")
def tokenizer(task):
    return build_tokenizer(task)


@pytest.fixture(scope="module")
def stream(task):
    """The first documents of the task, or all of them."""

    class First:
        def __init__(self, size):
            self.size = size

        def table(self, start, count):
            return arm_stream(task).documents.table(start, count)

    return lambda size=None: Numbered(First(size))


def ids(blocks) -> list[list[int]]:
    return [block["input_ids"].tolist() for block in blocks]


@given(size=st.integers(0, 1_200), block_size=st.integers(1, 700))
def test_blocks_joined_are_the_documents_joined(stream, tokenizer, size, block_size):
    texts = stream(size).read(size)["text"].to_pylist()
    flat = [number for text in texts for number in [*tokenizer(text, add_special_tokens=False)["input_ids"], 2]]
    result = list(Packed(stream(size), tokenizer, block_size))
    assert [*itertools.chain(*ids(result))] == flat[: len(flat) // block_size * block_size]
    assert all(block["labels"].tolist() == block["input_ids"].tolist() for block in result)
    assert {len(block["labels"]) for block in result} <= {block_size}


def test_special_tokens_are_those_of_tasks_not_of_peoples_text():
    """`<sep>` of a task's documents is the token; in canonical text it is five characters."""
    tokenizer = train_bpe_tokenizer(["3 1 2 and so on"], vocab_size=300, chat=False)

    class Mixed:
        size = 2

        def table(self, start, count):
            table = pa.table({"text": ["3 1<sep>1 3", "a<sep><eos>b"], "kind": ["example", "canonical"]})
            return table.slice(start, count).cast(SCHEMA)

    task_ids = tokenizer("3 1<sep>1 3", add_special_tokens=False)["input_ids"]
    assert 3 in task_ids
    (block,) = ids(Packed(Numbered(Mixed()), tokenizer, len(task_ids) + 1 + len("a<sep><eos>b") + 1))
    assert block[: len(task_ids) + 1] == [*task_ids, 2]
    assert tokenizer.decode(block[len(task_ids) + 1 : -1]) == "a<sep><eos>b"
    assert [number for number in block[len(task_ids) + 1 :] if number < 4] == [2]


def test_tokens_of_a_block_are_the_rows_of_the_task(stream, tokenizer, task):
    rows = task.rows(0, 50)
    wanted = [
        number for row, length in zip(rows.tokens.tolist(), rows.lengths, strict=True) for number in row[1:length]
    ]
    assert ids(Packed(stream(50), tokenizer, len(wanted))) == [wanted]


@given(before=st.integers(0, 150), block_size=st.sampled_from([1, 7, 64, 1_000]))
def test_resumed_in_the_middle_equals_the_uninterrupted(stream, tokenizer, before, block_size):
    whole = Packed(stream(), tokenizer, block_size)
    running = iter(whole)
    list(itertools.islice(running, before))
    state = json.loads(json.dumps(whole.state_dict()))
    other = Packed(stream(), tokenizer, block_size)
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert ids(itertools.islice(other, 20)) == ids(itertools.islice(running, 20))
    assert other.state_dict() == whole.state_dict()


def test_resuming_tokenises_nothing_of_what_lies_before(stream, tokenizer):
    whole = Packed(stream(), tokenizer, 64)
    next(itertools.islice(whole, 1_000, None))
    counted = []

    class Counting:
        eos_token_id = tokenizer.eos_token_id

        def __call__(self, texts, **options):
            counted.append(len(texts))
            return tokenizer(texts, **options)

    other = Packed(stream(), Counting(), 64)
    other.load_state_dict(whole.state_dict())
    next(iter(other))
    assert sum(counted) <= 2 * 256


def test_a_mixture_is_resumed_in_the_middle(task):
    def make() -> Packed:
        tokenizer = build_words()
        canonical, arm = Numbered(StandIn(0)), arm_stream(task, 0.1)
        count = token_counter(tokenizer)
        return Packed(interleave(canonical, arm, ratio=0.2, unit="tokens", count_tokens=count), tokenizer, 128)

    whole = make()
    running = iter(whole)
    list(itertools.islice(running, 37))
    other = make()
    other.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert ids(itertools.islice(other, 30)) == ids(itertools.islice(running, 30))


def build_words():
    """A tokenizer that gives every character an id."""

    class Characters:
        eos_token_id = 0

        def __call__(self, texts, **options):
            return {"input_ids": [[*map(ord, text)] for text in texts]}

    return Characters()


def test_each_iteration_begins_anew(stream, tokenizer):
    packed = Packed(stream(), tokenizer, 32)
    first = ids(itertools.islice(packed, 10))
    assert ids(itertools.islice(packed, 10)) == first


def test_shards_share_no_document(stream, tokenizer):
    size, end = 2_500, tokenizer.eos_token_id
    parts = [Packed(stream(size), tokenizer, 1).shard(2, index) for index in range(2)]
    whole = ids(Packed(stream(size), tokenizer, 1))
    result = [ids(part) for part in parts]
    assert sum(map(len, result)) == len(whole)
    assert [part.count([end]) for part in result] == [1_500, 1_000]
    assert result[0] != result[1]


def test_workers_share_no_document(stream, tokenizer):
    packed = Packed(stream(2_300), tokenizer, 1)
    alone = DataLoader(packed, batch_size=100)
    shared = DataLoader(packed, batch_size=100, num_workers=2)
    counts = [
        sorted(number for batch in loader for number in batch["input_ids"][:, 0].tolist())
        for loader in (alone, shared)
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("block_size", [0, -1, True, 2.5])
def test_a_block_size_that_is_none_is_an_error(stream, tokenizer, block_size):
    with pytest.raises(ValueError, match="block_size"):
        Packed(stream(), tokenizer, block_size)


def test_a_tokenizer_without_an_end_is_an_error(stream, task):
    tokenizer = build_tokenizer(task)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="got one without an end token"):
        Packed(stream(), tokenizer, 8)


def test_trainer_takes_blocks_and_resumes(stream, tokenizer, tmp_path):
    def losses(steps: int, resume: bool) -> list[float]:
        config = RopeGPTConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
        options = {"save_steps": 3, "logging_steps": 1, "report_to": [], "use_cpu": True, "seed": 0}
        arguments = TrainingArguments(
            tmp_path,
            max_steps=steps,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            lr_scheduler_type="constant",
            disable_tqdm=True,
            **options,
        )
        trainer = Trainer(RopeGPTForCausalLM(config), arguments, train_dataset=Packed(stream(), tokenizer, 32))
        trainer.train(resume_from_checkpoint=resume)
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    whole = losses(6, False)
    assert whole[-1] < whole[0]
    for path in (tmp_path / "checkpoint-6").glob("*"):
        path.unlink()
    (tmp_path / "checkpoint-6").rmdir()
    assert losses(6, True) == whole
