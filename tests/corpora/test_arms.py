"""Arms: how many explanations, where they stand, and that examples are the task's rows whatever the arm."""

import fractions
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth import get_task
from hf_synth.corpora import Arm, arm_stream, load_corpus
from hf_synth.corpora.arms import corpus_spec
from hf_synth.hub.corpora import PublishedCorpus, offered_corpora
from hf_synth.hub.publication import Choices
from hf_synth.tasks.start_mid_end import StartMidEnd
from hf_synth.views import view_table

RATIOS = [0, 0.01, 0.05, 0.1, 0.5, 0.7, 0.99, 1]
ratios = st.one_of(st.floats(0, 1), st.fractions(0, 1, max_denominator=50))


@pytest.fixture(scope="module")
def tivari():
    return get_task("tivari")


def flags(table) -> list[bool]:
    return [kind == "explanation" for kind in table["kind"].to_pylist()]


def texts(table, kind: str) -> list[str]:
    return [row["text"] for row in table.to_pylist() if row["kind"] == kind]


# Shares of documents


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_number_of_explanations_is_exact(tivari, ratio):
    result = flags(Arm(tivari, ratio).table(0, 10_000))
    examples = result.count(False)
    assert result.count(True) == round(10_000 * ratio)
    if ratio < 1:
        assert result.count(True) == round(examples * ratio / (1 - ratio))


@given(ratio=ratios, size=st.integers(1, 3_000))
def test_every_beginning_has_its_share_within_half_a_document(tivari, ratio, size):
    counts = itertools.accumulate(flags(Arm(tivari, ratio).table(0, size)))
    share = fractions.Fraction(str(ratio))
    assert all(abs(count - share * n) <= 0.5 + 1e-6 for n, count in enumerate(counts, 1))


@given(ratio=st.floats(1e-3, 1), size=st.integers(1, 5_000))
def test_every_stretch_has_its_explanations_the_last_one_too(tivari, ratio, size):
    stretch = math.ceil(1 / ratio) + 1
    result = flags(Arm(tivari, ratio).table(0, size))
    starts = {0, size // 2, size - stretch} & set(range(size - stretch + 1))
    assert all(any(result[start : start + stretch]) for start in starts)


@pytest.mark.parametrize("ratio", [0.7, "0.7", "7/10", fractions.Fraction(7, 10), np.float64(0.7)])
def test_a_ratio_is_taken_as_the_decimal_that_it_shows(tivari, ratio):
    assert Arm(tivari, ratio).share == fractions.Fraction(7, 10)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, math.nan, math.inf, True, "much", None, "1/0"])
def test_a_ratio_that_is_none_is_an_error(tivari, ratio):
    with pytest.raises(ValueError, match=r"explanation_ratio: got .*, wanted a number from 0 to 1"):
        Arm(tivari, ratio)


def test_explanations_of_a_task_without_any_are_an_error():
    task = get_task("tivari")
    task.explanations = lambda: ()
    assert Arm(task, 0).table(0, 1).num_rows == 1
    with pytest.raises(ValueError, match="task tivari has no explanations; wanted 0"):
        Arm(task, 0.1)


# Documents


@given(ratio=ratios, start=st.integers(0, 400), count=st.integers(0, 200), far=st.sampled_from([0, 10**6, 2**55]))
def test_a_document_is_the_same_alone_and_in_a_block(tivari, ratio, start, count, far):
    arm = Arm(tivari, ratio, seed=3)
    whole = arm.table(far, start + count)
    assert arm.table(far + start, count).equals(whole.slice(start))


@pytest.mark.parametrize("ratio", RATIOS[:-1])
def test_examples_are_the_rows_of_the_task_in_every_arm(tivari, ratio):
    result = texts(Arm(tivari, ratio, seed=5, split="validation").table(0, 500), "example")
    rows = view_table(tivari, "text", 0, len(result), split="validation", seed=5)
    assert result == rows["text"].to_pylist()


@pytest.mark.parametrize("name", ["tivari", "tivari3"])
def test_single_statements_come_all_once_before_any_comes_again(name):
    task = get_task(name)
    result = texts(Arm(task, 1).table(0, 600), "explanation")
    number = len(task.explanations())
    passes = [tuple(result[start : start + number]) for start in range(0, 600, number)]
    assert all(sorted(one) == sorted(task.explanations()) for one in passes)
    assert len(set(passes)) > len(passes) / 2, "in an order of each pass's own"


def test_explanations_are_drawn_by_seed_and_split(tivari):
    drawn = [
        tuple(texts(Arm(tivari, 1, seed=seed, split=split).table(0, 60), "explanation"))
        for seed, split in [(0, "train"), (1, "train"), (0, "test")]
    ]
    assert len(set(drawn)) == 3


def test_a_language_explained_in_one_block_gets_the_whole_block():
    task = get_task("start_mid_end")
    result = Arm(task, 0.5).table(0, 10)
    assert texts(result, "explanation") == list(task.explanations()) * 5
    assert all(task.verify("", text) == 1.0 for text in texts(result, "example"))


def test_examples_stand_between_the_delimiters_that_documents_have():
    class Delimited(StartMidEnd):
        def document(self, text: str) -> str:
            return f"<<{text}>>"

    result = Arm(Delimited(), 0.5).table(0, 10)
    assert all(text.startswith("<<START") and text.endswith("END>>") for text in texts(result, "example"))
    assert not any("<<" in text for text in texts(result, "explanation"))


@pytest.mark.parametrize(("holdout", "shared"), [("none", True), ("content", False)])
def test_with_holdout_train_holds_no_string_of_test(holdout, shared):
    task = get_task("tivari3", "short", holdout=holdout)
    train, test = (set(texts(Arm(task, 0.1, split=split).table(0, 3_000), "example")) for split in ("train", "test"))
    assert bool(train & test) == shared


# Shares of tokens


def placed_by_tokens(examples: list[str], explanations: list[str], share: fractions.Fraction) -> list[bool]:
    """Greedily: of the two next documents the one that leaves the share of words nearer to what is wanted."""
    words, out = [0, 0], []
    while len(out) < len(examples):
        nexts = (examples[out.count(False)], explanations[out.count(True)])
        off = []
        for kind in (0, 1):
            then = words.copy()
            then[kind] += len(nexts[kind].split())
            off.append(abs(then[1] - share * sum(then)))
        out.append(off[1] <= off[0])
        words[out[-1]] += len(nexts[out[-1]].split())
    return out


@pytest.mark.parametrize("ratio", [*RATIOS, 0.3])
@pytest.mark.parametrize("name", ["tivari", "start_mid_end"])
def test_shares_of_tokens_are_kept_at_every_beginning(name, ratio):
    task, size = get_task(name), 3_000
    result = arm_stream(task, ratio, explanation_unit="tokens", seed=2).read(size)
    lengths = np.array([len(text.split()) for text in result["text"].to_pylist()])
    explained = np.array(flags(result))
    off = np.abs(np.cumsum(lengths * explained) - ratio * np.cumsum(lengths))
    assert off.max() <= lengths.max() / 2
    if 0 < ratio < 1:
        pools = [Arm(task, kind, seed=2).table(0, size)["text"].to_pylist() for kind in (0, 1)]
        assert explained.tolist() == placed_by_tokens(*pools, fractions.Fraction(str(ratio)))
        assert explained[-math.ceil(60 / ratio) :].any()


def test_examples_and_explanations_by_tokens_are_those_by_documents(tivari):
    by_tokens = arm_stream(tivari, 0.3, explanation_unit="tokens", seed=4).read(2_000)
    for kind, ratio in (("example", 0), ("explanation", 1)):
        result = texts(by_tokens, kind)
        assert result == Arm(tivari, ratio, seed=4).table(0, len(result))["text"].to_pylist()


def test_tokens_are_counted_by_what_is_given(tivari):
    by_letters = arm_stream(
        tivari, 0.5, explanation_unit="tokens", count_tokens=lambda texts: np.array([*map(len, texts.to_pylist())])
    )
    result = by_letters.read(2_000)
    letters = {kind: sum(map(len, texts(result, kind))) for kind in ("example", "explanation")}
    assert abs(letters["example"] - letters["explanation"]) < 200


def test_an_unknown_unit_is_an_error(tivari):
    with pytest.raises(ValueError, match="explanation_unit: got 'words'; Known: documents, tokens"):
        arm_stream(tivari, 0.1, explanation_unit="words")


# As datasets


@pytest.mark.parametrize("unit", ["documents", "tokens"])
def test_dataset_holds_the_documents_however_it_is_made(tivari, unit, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_synth.builder._SHARD_ROWS", 700)
    arguments = {
        "explanation_ratio": 0.1,
        "explanation_unit": unit,
        "size": 2_000,
        "seed": 1,
        "cache_dir": str(tmp_path),
    }
    wanted = arm_stream(tivari, 0.1, explanation_unit=unit, seed=1).read(2_000).to_pylist()
    streamed = load_corpus("tivari", streaming=True, **arguments)
    assert list(streamed) == wanted
    parts = [list(streamed.shard(3, index)) for index in range(3)]
    assert [*itertools.chain(*parts)] == wanted
    assert load_corpus("tivari", **arguments).to_list() == wanted


def test_dataset_is_made_anew_for_another_ratio_unit_or_config(tmp_path):
    arguments = {"size": 300, "cache_dir": str(tmp_path)}
    loaded = [
        load_corpus("tivari", **arguments, **changed)
        for changed in (
            {},
            {"explanation_ratio": 0.1},
            {"explanation_ratio": 0.1, "explanation_unit": "tokens"},
            {"max_middle": 2},
        )
    ]
    assert len({json_text(dataset) for dataset in loaded}) == 4


def json_text(dataset) -> str:
    return "\n".join(dataset["text"])


def test_wrong_arguments_of_a_dataset_are_errors_at_once():
    with pytest.raises(ValueError, match="size=0"):
        load_corpus("tivari", size=0)
    with pytest.raises(ValueError, match="explanation_ratio: got 2"):
        load_corpus("tivari", size=1, explanation_ratio=2)
    with pytest.raises(ValueError, match="explanation_unit: got 'lines'"):
        load_corpus("tivari", size=1, explanation_unit="lines")


def test_a_misspelt_argument_names_the_one_that_is_nearest_and_a_field_the_field():
    with pytest.raises(
        ValueError, match=r"load_corpus: got unknown argument 'explanation_rato'; did you mean 'expla.*o'"
    ):
        load_corpus("tivari", size=1, explanation_rato=0.1)
    with pytest.raises(
        ValueError, match=r"StartMidEndConfig: got unknown field 'max_midle'; did you mean 'max_middle'"
    ):
        load_corpus("tivari", size=1, max_midle=3)


def test_published_arms_hold_0_1_5_10_and_100_percent(tivari):
    offers = offered_corpora("tivari", rows={"train": 1_000, "test": 100})
    assert [*offers] == [
        "tivari-examples",
        "tivari-explanations-1",
        "tivari-explanations-5",
        "tivari-explanations-10",
        "tivari-explanations-100",
    ]
    for name, share in zip(offers, (0, 10, 50, 100, 1_000), strict=True):
        corpus = offers[name](Choices(seed=2, holdout="none"))
        assert corpus.name == name
        table = corpus.table("train", 0, 1_000)
        assert flags(table).count(True) == share
        assert table.schema.names == list(corpus.features)
        assert corpus.table("test", 7, 3).equals(corpus.table("test", 0, 10).slice(7))


def test_explanations_in_other_words_are_another_corpus(tivari, monkeypatch, tmp_path):
    """The documents hold them: what was cached or begun with the old words is not taken for the new ones."""
    options = {"size": 20, "split": "train", "seed": 0}
    before = [corpus_spec("tivari", tivari, ratio, **options) for ratio in (0, 0.5)]
    cached = load_corpus("tivari", size=20, explanation_ratio=0.5, cache_dir=str(tmp_path))
    monkeypatch.setattr(type(tivari), "explanations", lambda task: ("In other words.",))
    examples, mixed = [corpus_spec("tivari", tivari, ratio, **options) for ratio in (0, 0.5)]
    assert examples == before[0], "it has none"
    assert {name for name in mixed if mixed[name] != before[1][name]} == {"explanations"}
    now = load_corpus("tivari", size=20, explanation_ratio=0.5, cache_dir=str(tmp_path))
    assert set(texts(now.data.table, "explanation")) == {"In other words."}
    assert "In other words." not in texts(cached.data.table, "explanation")


def test_published_specs_differ_in_all_that_documents_depend_on(tivari):
    base = {"name": "a", "task": tivari, "explanation_ratio": 0.1, "splits": {"train": 10, "test": 10}}
    changes = [{}, {"explanation_ratio": 0.2}, {"seed": 1}, {"task": get_task("tivari", max_middle=3)}]
    specs = [PublishedCorpus(**{**base, **change}).spec("train") for change in changes]
    specs.append(PublishedCorpus(**base).spec("test"))
    assert all(one != other for one, other in itertools.combinations(specs, 2))


# Both forms of explanations


@pytest.mark.parametrize("name", ["tivari", "tivari3", "start_mid_end", "color_shape", "palindrome"])
def test_every_language_is_explained_in_statements_and_in_one_block(name):
    task = get_task(name)
    statements = texts(Arm(task, 1, explanation_form="statements").table(0, 100), "explanation")
    block = texts(Arm(task, 1, explanation_form="block").table(0, 100), "explanation")
    assert set(statements) == set(task.statements())
    assert len(set(statements)) > 1
    assert set(block) == {" ".join(task.statements())}
    source = set(texts(Arm(task, 1).table(0, 100), "explanation"))
    assert source == (set(statements) if name.startswith("tivari") else set(block))


def test_unknown_form_is_an_error_that_names_the_others(tivari):
    known = "Known: block, source, statements"
    with pytest.raises(ValueError, match=rf"explanation_form: got 'blocks'; did you mean 'block'\? {known}"):
        Arm(tivari, 0.1, explanation_form="blocks")
