"""What every task promises, held against every task and preset that discovery finds."""

import dataclasses
import itertools
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_synth.tasks import Rows, Task, get_task, list_tasks, task_class
from hf_synth.tasks.base import SPLITS, TaskConfig, bounded, choice
from hf_synth.tokenization import build_tokenizer
from hf_synth.views import view_table, with_prompts

CASES = [(name, preset) for name in list_tasks() for preset in task_class(name).presets]
VERIFIABLE = [(name, preset) for name, preset in CASES if task_class(name).verifiable]
FIELDS = [(name, field.name) for name in list_tasks() for field in dataclasses.fields(task_class(name).config_class)]
MAKE_GOLDEN = Path(__file__).with_name("make_golden.py")
PAD, BOS, EOS = 0, 1, 2


def pytest_generate_tests(metafunc):
    """Each test runs on every preset of every task; those about right and wrong on the verifiable ones."""
    if "task" in metafunc.fixturenames:
        cases = VERIFIABLE if "verifiable" in metafunc.fixturenames else CASES
        metafunc.parametrize("task", cases, indirect=True, ids="-".join, scope="module")


@pytest.fixture(scope="module")
def task(request) -> Task:
    return get_task(*request.param)


@pytest.fixture
def rows(task) -> Rows:
    return task.rows(0, some(task, 32))


@pytest.fixture
def verifiable(task) -> Task:
    """The same task, which has wrong texts."""
    return task


def some(task: Task, most: int, split: str = "train") -> int:
    """At most `most` rows, fewer where a finite task has fewer."""
    return min(most, task.size(split) or most)


def as_lists(rows: Rows) -> list[tuple]:
    """Each row without its padding, its spans and its columns."""
    numbers = zip(rows.lengths.tolist(), rows.loss_start.tolist(), rows.loss_stop.tolist(), strict=True)
    columns = {name: column.tolist() for name, column in rows.columns.items()}
    return [
        (rows.tokens[row, : spans[0]].tolist(), *spans, {name: column[row] for name, column in columns.items()})
        for row, spans in enumerate(numbers)
    ]


# Rows


def test_rows_are_well_formed(task, rows):
    position = np.arange(rows.tokens.shape[1])
    present = position < rows.lengths[:, None]
    assert rows.tokens.dtype == np.int32
    assert {rows.lengths.dtype, rows.loss_start.dtype, rows.loss_stop.dtype} == {np.dtype(np.int32)}
    assert (rows.tokens[:, 0] == BOS).all()
    assert (rows.tokens[~present] == PAD).all()
    assert (rows.tokens[present] != PAD).all()
    assert rows.tokens.max() < 4 + len(task.vocabulary())
    assert (rows.loss_start >= 1).all()
    assert (rows.loss_start < rows.loss_stop).all()
    assert (rows.loss_stop <= rows.lengths).all()
    ends = (rows.tokens == EOS) & present
    assert (ends == (ends & (position == rows.lengths[:, None] - 1))).all(), "<eos> stands at the end alone"


def test_vocabulary_has_no_doubles_and_no_special_token(task):
    words = task.vocabulary()
    assert len(set(words)) == len(words)
    assert not {"<pad>", "<bos>", "<eos>", "<sep>"} & set(words)
    assert all(word == word.strip() and len(word.split()) == 1 for word in words)


# Promise 1: a row is a pure function of its address


def test_row_is_the_same_alone_and_in_a_block(task, rows):
    alone = [as_lists(task.rows(row, 1))[0] for row in range(len(rows))]
    assert alone == as_lists(rows)


def test_rows_are_the_same_in_arbitrary_blocks(task, rows):
    cuts = [0, 1, *sorted({1, 4, len(rows) // 2, len(rows) - 1}), len(rows)]
    found = [row for start, stop in itertools.pairwise(cuts) for row in as_lists(task.rows(start, stop - start))]
    assert found == as_lists(rows)


def test_block_of_no_rows_is_empty(task):
    assert len(task.rows(5, 0)) == 0


def test_rows_far_away_are_the_same_alone_and_in_a_block(task):
    far = 2**61
    assert as_lists(task.rows(far + 2, 1)) == as_lists(task.rows(far, 3))[2:]


def test_another_instance_makes_the_same_rows(task, rows):
    assert as_lists(type(task)(task.config).rows(0, len(rows))) == as_lists(rows)


def test_corrupt_of_a_row_is_the_same_alone_and_in_a_block(verifiable, rows, rng):
    together = as_lists(verifiable.corrupt(rows, rng(len(rows), "corrupt")))
    alone = [verifiable.corrupt(rows.select([row]), rng(1, "corrupt", start=row)) for row in range(len(rows))]
    assert [as_lists(row)[0] for row in alone] == together


def test_golden_hash_pins_the_rows(task, request):
    golden = json.loads(MAKE_GOLDEN.with_name("golden.json").read_text())
    key = "-".join(request.node.callspec.params["task"])
    if key not in golden:
        pytest.skip(f"{key} is not pinned in golden.json")
    assert task.version == golden[key]["version"], "version raised: run make_golden.py"
    found = runpy.run_path(str(MAKE_GOLDEN))["row_hash"](task)
    assert found == golden[key]["rows"], "rows changed: raise the task's version and run make_golden.py"


@pytest.mark.processes
def test_another_process_makes_the_same_rows():
    program = f"import json, runpy; print(json.dumps(runpy.run_path({str(MAKE_GOLDEN)!r})['all_hashes']()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == runpy.run_path(str(MAKE_GOLDEN))["all_hashes"]()


# Promise 2: splits, seeds and purposes


def test_splits_seeds_and_purposes_give_different_rows(task, rng):
    count = some(task, 32)
    if task.size("train") and count < 8:
        pytest.skip("so few rows that two orders of them may agree")
    blocks = [task.rows(0, count, split=split, seed=seed) for split, seed in [("train", 0), ("train", 1), ("test", 0)]]
    if task.size("train") is None:
        blocks.append(task.generate(rng(count, "another purpose")))
    distinct = {json.dumps(as_lists(block)) for block in blocks}
    assert len(distinct) == len(blocks)


def test_holdout_keeps_the_contents_of_splits_apart_or_says_why_not(task):
    held = type(task)(task.config.replace(holdout="content"))
    contents = []
    for split in SPLITS:
        try:
            rows = held.rows(0, some(held, 200, split), split=split)
        except ValueError as error:
            if "holdout" not in str(error):
                raise
            continue
        contents.append({tuple(row[0]) for row in as_lists(rows)})
    assert len(set().union(*contents)) == sum(map(len, contents))


def test_row_under_holdout_is_the_same_alone_and_in_a_block(task):
    held = type(task)(task.config.replace(holdout="content"))
    try:
        block = as_lists(held.rows(0, some(held, 16, "validation"), split="validation"))
    except ValueError:
        pytest.skip("this config cannot fill its validation split")
    assert [as_lists(held.rows(row, 1, split="validation"))[0] for row in range(len(block))] == block


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("start_mid_end", {}),
        ("tivari", {}),
        ("tivari3", {"max_half": 2}),
        ("sort", {"length": 3, "vocab_size": 4}),
        ("sort", {"length": 2, "vocab_size": 6}),
    ],
)
def test_holdout_shares_few_contents_out_8_to_1_to_1(name, config):
    held = get_task(name, holdout="content", **config)
    found = {split: {tuple(row[0]) for row in as_lists(held.rows(0, 4_000, split=split))} for split in SPLITS}
    total = held.contents()
    assert len(found["train"] | found["validation"] | found["test"]) == total
    assert sum(map(len, found.values())) == total
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    assert all(abs(len(found[split]) - share * total) <= 1 for split, share in shares.items())


def test_contents_are_ranked_one_to_one_where_they_can_be_counted(task):
    if task.contents() is None or task.contents() > 2**20:
        pytest.skip("contents are not ranked")
    rows = task.rows(0, 500)
    ranks = task.content_rank(rows).tolist()
    assert min(ranks) >= 0
    assert max(ranks) < task.contents()
    contents = [tuple(row[0]) for row in as_lists(rows)]
    assert len(set(zip(ranks, contents, strict=True))) == len(set(ranks)) == len(set(contents))


def test_split_that_holdout_cannot_fill_is_an_error_that_says_so():
    held = get_task("start_mid_end", max_middle=3, holdout="content")
    with pytest.raises(ValueError, match=r'holdout="content" leaves the test split empty: got 3 distinct contents'):
        held.rows(0, 4, split="test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 0, "count": 1, "split": "dev"}, "got split 'dev', wanted one of train, validation, test"),
        ({"start": -1, "count": 1}, "got start=-1, count=1"),
        ({"start": 0, "count": -1}, "got start=0, count=-1"),
    ],
)
def test_rows_refuses_an_illegal_address(arguments, message):
    with pytest.raises(ValueError, match=message):
        get_task("sort", "8").rows(**arguments)


# Promise 3: gold 1, corrupted 0, garbage 0


@pytest.fixture(params=["full rows", "random cuts"])
def cut(request, verifiable, rows, rng) -> Rows:
    return rows if request.param == "full rows" else with_prompts(rows, rng(len(rows), "prompt"))


def test_gold_scores_one(task, cut, texts):
    assert [task.verify(prompt, completion) for prompt, completion in texts(task, cut)] == [1.0] * len(cut)


def test_corrupted_scores_zero(task, cut, texts, rng):
    wrong = task.corrupt(cut, rng(len(cut), "corrupt"))
    assert [task.verify(prompt, completion) for prompt, completion in texts(task, wrong)] == [0.0] * len(cut)


def test_corrupt_leaves_prompt_spans_and_its_argument_alone(task, cut, rng):
    before = as_lists(cut)
    wrong = task.corrupt(cut, rng(len(cut), "corrupt"))
    assert as_lists(cut) == before
    assert np.array_equal(wrong.lengths, cut.lengths)
    assert np.array_equal(wrong.loss_start, cut.loss_start)
    assert np.array_equal(wrong.loss_stop, cut.loss_stop)
    outside = ~cut.loss_mask
    assert np.array_equal(wrong.tokens[outside], cut.tokens[outside])
    assert (wrong.tokens != cut.tokens).any(axis=1).all()


def test_corrupted_rows_stay_well_formed(task, cut, rng):
    wrong = task.corrupt(cut, rng(len(cut), "corrupt"))
    end = wrong.lengths - 1
    every = np.arange(len(wrong))
    assert np.array_equal(wrong.tokens[every, end] == EOS, cut.tokens[every, end] == EOS)
    assert (wrong.tokens[every, end] != PAD).all()
    inside = np.arange(wrong.tokens.shape[1]) < end[:, None]
    specials = (PAD, EOS)
    assert not np.isin(wrong.tokens[inside], specials).any()
    assert wrong.tokens.max() < 4 + len(task.vocabulary())


def test_cut_lies_after_a_proper_prefix_that_is_not_empty(task, rows, rng):
    cut = with_prompts(rows, rng(len(rows), "prompt"))
    whole = rows.loss_start == 1
    assert np.array_equal(cut.loss_start[~whole], rows.loss_start[~whole])
    assert (cut.loss_start[whole] >= 2).all()
    ended = rows.tokens[np.arange(len(rows)), rows.lengths - 1] == EOS
    assert (cut.loss_start[whole] < (rows.lengths - ended)[whole]).all()


def test_completion_that_is_truncated_extended_or_empty_scores_zero(task, cut, texts):
    for prompt, completion in texts(task, cut):
        words = completion.split()
        for spoilt in (words[:-1], [*words, words[-1]], [], [*words, "<eos>"], [*words, "<pad>"]):
            assert task.verify(prompt, " ".join(spoilt)) == 0.0


@settings(max_examples=40)
@given(data=st.data())
def test_verify_of_any_text_is_zero_or_one(task, data):
    text = st.one_of(st.text(max_size=40), st.lists(st.sampled_from([*task.vocabulary(), "<sep>"])).map(" ".join))
    prompt, completion = data.draw(text), data.draw(text)
    score = task.verify(prompt, completion)
    assert isinstance(score, float)
    assert score in (0.0, 1.0)


@pytest.mark.parametrize(
    "garbage", ["", " ", "garbage", "\0", "<sep>", "<eos>", "<bos>", "٣ <sep>", "-1", "1e3", "🙂"]
)
def test_garbage_scores_zero(verifiable, rows, texts, garbage):
    assert verifiable.verify(garbage, garbage) == 0.0
    prompt, _ = texts(verifiable, rows)[0]
    assert verifiable.verify(prompt, garbage) == 0.0


def test_every_violation_is_invalid_and_keeps_its_length_where_it_says_so(verifiable, rows, texts, rng):
    assert verifiable.violations()
    for name, violation in verifiable.violations().items():
        wrong = violation.make(rows, rng(len(rows), "violation"))
        scores = [verifiable.verify(prompt, completion) for prompt, completion in texts(verifiable, wrong)]
        assert scores == [0.0] * len(rows), name
        if violation.keeps_length:
            assert np.array_equal(wrong.lengths, rows.lengths), name


def test_decision_points_name_tokens_of_the_vocabulary(task):
    for point in task.decision_points():
        assert {*point.prefix.split(), *point.valid, *point.invalid} <= set(task.vocabulary())
        assert point.valid
        assert point.invalid
        assert not set(point.valid) & set(point.invalid)


# Promise 4: the floor


def test_optimal_log_probs_are_finite_not_positive_and_zero_outside_the_loss(task, rows):
    found = task.optimal_log_probs(rows)
    assert found.shape == rows.tokens.shape
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert (found <= 0).all()
    assert (found[~rows.loss_mask] == 0).all()


def test_optimal_log_probs_do_not_depend_on_the_block(task, rows):
    together = task.optimal_log_probs(rows)
    for row in range(0, len(rows), 8):
        alone = task.optimal_log_probs(task.rows(row, 1))[0]
        np.testing.assert_allclose(together[row, : len(alone)], alone[: together.shape[1]], rtol=0, atol=1e-12)


def test_optimal_log_probs_of_cut_rows_are_those_of_whole_rows_after_the_cut(verifiable, rows, rng):
    cut = with_prompts(rows, rng(len(rows), "prompt"))
    whole = np.where(cut.loss_mask, verifiable.optimal_log_probs(rows), 0.0)
    np.testing.assert_allclose(verifiable.optimal_log_probs(cut), whole, rtol=0, atol=1e-12)


# Views


def test_text_tokenises_back_to_the_rows(task, rows):
    tokenizer = build_tokenizer(task)
    for text, row in zip(view(task, "text", rows), as_lists(rows), strict=True):
        ended = [EOS] if row[0][-1] == EOS else []
        assert tokenizer(text["text"])["input_ids"] + ended == row[0]


def test_prompt_and_completion_glued_together_tokenise_back_to_the_rows(task, rows):
    tokenizer = build_tokenizer(task)
    for pair, row in zip(view(task, "prompt_completion", rows), as_lists(rows), strict=True):
        ended = [EOS] if row[0][-1] == EOS else []
        prompt = tokenizer(pair["prompt"])["input_ids"]
        assert tokenizer(pair["prompt"] + pair["completion"])["input_ids"] + ended == row[0]
        assert prompt == row[0][: len(prompt)]


def test_prompt_view_holds_the_prompts_of_the_other_views(task, rows):
    prompts = [row["prompt"] for row in view(task, "prompt", rows)]
    assert prompts == [row["prompt"] for row in view(task, "prompt_completion", rows)]
    if task.verifiable:
        assert prompts == [row["prompt"] for row in view(task, "preference", rows)]
    assert {row["task"] for row in view(task, "prompt", rows)} == {task.name}


def test_preference_view_prefers_right_to_wrong(verifiable, rows):
    for row in view(verifiable, "preference", rows):
        assert verifiable.verify(row["prompt"], row["chosen"]) == 1.0
        assert verifiable.verify(row["prompt"], row["rejected"]) == 0.0


def test_tokens_view_holds_the_rows_and_their_loss(task, rows):
    for found, (tokens, _, start, stop, _) in zip(view(task, "tokens", rows), as_lists(rows), strict=True):
        assert found["input_ids"] == tokens
        masked = [token if start <= at < stop else -100 for at, token in enumerate(tokens)]
        assert found["labels"] == masked


def test_labelled_view_names_the_kind_of_every_invalid_text(verifiable, rows, texts):
    found = view(verifiable, "labelled", rows)
    valid = [f"{prompt} {completion}".strip() for prompt, completion in texts(verifiable, rows)]
    for at, row in enumerate(found):
        assert row["valid"] == (row["violation"] == "") == (at % 2 == 0)
        assert (row["text"] == valid[at]) == row["valid"]
    assert {row["violation"] for row in found if not row["valid"]} <= set(verifiable.violations())


def view(task: Task, name: str, rows: Rows) -> list[dict]:
    return view_table(task, name, 0, len(rows), split="train", seed=0).to_pylist()


def test_violations_of_the_labelled_view_are_made_independently_of_their_kind():
    """`odd_count` of tivari3 puts TAS or WEJ into the middle, each as often as the other."""
    table = view_table(get_task("tivari3"), "labelled", 0, 8_000, split="train", seed=0).to_pylist()
    middles = [row["text"].split() for row in table if row["violation"] == "odd_count"]
    share = sum(words[len(words) // 2] == "TAS" for words in middles) / len(middles)
    assert len(middles) > 600
    assert abs(share - 0.5) < 4 * 0.5 / len(middles) ** 0.5


# Configs


def test_every_preset_is_a_config_of_the_task(task):
    assert type(task).presets
    assert all(isinstance(config, task.config_class) for config in task.presets.values())


@pytest.mark.parametrize(("name", "field_name"), FIELDS, ids=".".join)
def test_field_accepts_its_bounds_and_refuses_what_lies_beyond(name, field_name):
    config_class, field = found_field(name, field_name)
    if "range" not in field.metadata:
        pytest.skip("not a number with a range")
    low, high = field.metadata["range"]
    for value in (low, high):
        try:
            config_class(**{field_name: value})
        except ValueError as error:  # a bound may be illegal beside the other fields' defaults
            if field_name not in str(error):
                raise
    for value in (low - 1, high + 1, float("nan")):
        with pytest.raises(ValueError, match=f"{config_class.__name__}.{field_name}: got"):
            config_class(**{field_name: value})
    with pytest.raises(ValueError, match=f"wanted a value from {low} to {high}"):
        config_class(**{field_name: type(field.default)(low - 1)})


@pytest.mark.parametrize(("name", "field_name"), FIELDS, ids=".".join)
@pytest.mark.parametrize("value", ["3", None, [1], object()])
def test_field_refuses_another_type(name, field_name, value):
    config_class, field = found_field(name, field_name)
    if "range" not in field.metadata and "choices" not in field.metadata:
        pytest.skip("neither a range nor choices")
    with pytest.raises(ValueError, match=f"{config_class.__name__}.{field_name}: got"):
        config_class(**{field_name: value})


@pytest.mark.parametrize(("name", "field_name"), FIELDS, ids=".".join)
def test_smallest_legal_value_makes_valid_rows(name, field_name, texts):
    config_class, field = found_field(name, field_name)
    low = field.metadata["range"][0] if "range" in field.metadata else field.default
    try:
        task = task_class(name)(config_class(**{field_name: low}))
    except ValueError as error:
        if field_name not in str(error):
            raise
        return
    if task.verifiable:
        rows = task.rows(0, some(task, 8))
        assert {task.verify(*pair) for pair in texts(task, rows)} == {1.0}


@pytest.mark.parametrize("name", list_tasks())
def test_unknown_field_error_names_the_nearest(name):
    field = dataclasses.fields(task_class(name).config_class)[-1].name
    with pytest.raises(ValueError, match=f"unknown field '{field}x'; did you mean '{field}'"):
        get_task(name, **{f"{field}x": 1})


def found_field(name: str, field_name: str) -> tuple[type[TaskConfig], dataclasses.Field]:
    config_class = task_class(name).config_class
    return config_class, {field.name: field for field in dataclasses.fields(config_class)}[field_name]


@dataclasses.dataclass(frozen=True)
class _Example(TaskConfig):
    share: float = bounded(0.5, 0.0, 1.0)
    kind: str = choice("one", "two")
    flag: bool = False


def test_canonical_json_is_the_same_for_equal_configs():
    assert _Example(share=1).to_json() == _Example(share=1.0).to_json()


def test_canonical_json_holds_every_field():
    assert json.loads(_Example(kind="two").to_json()) == {
        "holdout": "none",
        "share": 0.5,
        "kind": "two",
        "flag": False,
    }


@pytest.mark.parametrize("changes", [{"share": True}, {"share": float("inf")}, {"kind": "three"}, {"flag": 1}])
def test_config_refuses_an_illegal_value(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"_Example.{name}: got"):
        _Example(**changes)


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        _Example().share = 0.1


def test_task_refuses_the_config_of_another():
    with pytest.raises(ValueError, match="task sort: got a _Example as config, wanted a SortConfig"):
        task_class("sort")(_Example())
