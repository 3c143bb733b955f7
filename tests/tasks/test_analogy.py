"""Analogy against the definition of its knowledge graph in plain loops, fact by fact."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.tasks import Rows, Task, get_task
from hf_synth.tasks.analogy import Analogy, AnalogyConfig

COMPOSITIONS = ("id_compositional", "near_ood_compositional", "far_ood_compositional")
KINDS = ("id_atomic", "ood_atomic", *COMPOSITIONS, "id_analogical", "ood_analogical")
SMALL = {"num_entities": 11, "num_relations": 7, "sub_size": 4, "include_f_inverse": True, "atomic_ood_ratio": 0.25}
REPEATED = {**SMALL, "num_relations": 2, "repeat_relations": True, "graph_seed": 3}
Fact = tuple[str, ...]


def words_of(task: Task, rows: Rows) -> list[Fact]:
    """The words of each row without `<bos>`."""
    words = ["<pad>", "<bos>", "<eos>", "<sep>", *task.vocabulary()]
    sized = zip(rows.tokens.tolist(), rows.lengths.tolist(), strict=True)
    return [tuple(words[token] for token in row[1:size]) for row, size in sized]


def facts_of(task: Task, split: str = "test") -> dict[Fact, str]:
    """Every fact of a split and its kind, from one pass of rows."""
    rows = task.rows(0, task.size(split), split=split)
    types = dict(zip(words_of(task, rows), rows.columns["fact_type"].tolist(), strict=True))
    assert len(types) == len(rows)
    return types


class World:
    """What follows by the definition from the functor and the atomic facts of a task, held out or not."""

    def __init__(self, task: Task) -> None:
        config, words = task.config, ["<pad>", "<bos>", "<eos>", "<sep>", *task.vocabulary()]
        self.entities = [f"<e_{number}>" for number in range(config.num_entities)]
        self.image = {words[entity]: words[image] for entity, image in task.functor().tolist()}
        self.first, self.second = list(self.image), list(self.image.values())
        self.rest = [entity for entity in self.entities if entity not in self.first + self.second]
        self.kinds = facts_of(task)
        self.atomic = [fact for fact, kind in self.kinds.items() if kind.endswith("_atomic")]
        self.held = {fact for fact in self.atomic if self.kinds[fact] == "ood_atomic"}
        self.analogical = {(entity, "<f>", image) for entity, image in self.image.items()}
        if config.include_f_inverse:
            self.analogical |= {(image, "<f_inv>", entity) for entity, image in self.image.items()}

    def compositions(self) -> dict[Fact, bool]:
        """Every composition, and whether each of its paths has a hop that is held out."""
        is_far: dict[Fact, bool] = {}
        for one, two in itertools.product(self.atomic, repeat=2):
            if one[2] == two[0] and one[0] != two[2]:
                fact = (one[0], one[1], two[1], two[2])
                far = one in self.held or two in self.held
                is_far[fact] = is_far.get(fact, True) and far
        return is_far

    def answers(self) -> dict[Fact, set[str]]:
        """The right answers to every prompt that has one."""
        answers_of = defaultdict(set)
        for *prompt, answer in [*self.atomic, *self.compositions(), *self.analogical]:
            answers_of[tuple(prompt)].add(answer)
        return answers_of


def pairs(entities: list[str]) -> set[tuple[str, str]]:
    return set(itertools.permutations(entities, 2))


def assert_is_by_definition(task: Task) -> None:
    """Every fact of the graph, none missing and none beyond, of the kind that the definition gives it."""
    world, config = World(task), task.config
    of = {kind: {fact for fact, actual in world.kinds.items() if actual == kind} for kind in KINDS}
    assert sum(map(len, of.values())) == len(world.kinds)
    assert task.fact_counts() == {kind: len(facts) for kind, facts in of.items()}
    assert len({*world.first, *world.second}) == 2 * config.sub_size

    inside = {name: [fact for fact in world.atomic if fact[0] in getattr(world, name)] for name in ("first", "rest")}
    for name, facts in inside.items():
        ends = [(head, tail) for head, _, tail in facts]
        assert len(ends) == len(set(ends))
        assert set(ends) == pairs(getattr(world, name))
    if not config.mirrored:
        second = [fact for fact in world.atomic if fact[0] in world.second]
        assert {(head, tail) for head, _, tail in second} == pairs(world.second)
        assert not {fact[1] for fact in second} & {fact[1] for fact in inside["first"]}
    assert not config.mirrored or {fact for fact in world.atomic if fact[0] in world.second} == {
        (world.image[head], relation, world.image[tail])
        for head, relation, tail in inside["first"]
        if (head, relation, tail) not in world.held
    }
    assert all(fact[0] in world.first for fact in of["ood_atomic"])
    assert len(of["ood_atomic"]) == round(config.atomic_ood_ratio * len(pairs(world.first)))
    if not config.repeat_relations:
        assert len({fact[:2] for fact in world.atomic}) == len(world.atomic)

    compositions = world.compositions()
    assert of["far_ood_compositional"] == {fact for fact, far in compositions.items() if far}
    assert of["id_compositional"] | of["near_ood_compositional"] == {
        fact for fact, far in compositions.items() if not far
    }
    if config.compositional_ood_ratio in (0.0, 1.0):
        assert not of["id_compositional" if config.compositional_ood_ratio else "near_ood_compositional"]

    assert of["id_analogical"] | of["ood_analogical"] == world.analogical
    assert len(of["ood_analogical"]) == round(config.analogical_ood_ratio * len(world.analogical))


@st.composite
def configs(draw) -> AnalogyConfig:
    sub_size = draw(st.integers(1, 5))
    rest = draw(st.integers(0, 4))
    repeat = draw(st.booleans())
    fewest = 1 if repeat else max(sub_size - 1, rest - 1, 1)
    ratio = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0))
    mirrored = draw(st.booleans())
    fewest = fewest if mirrored else max(fewest, sub_size**2)
    return AnalogyConfig(
        num_entities=2 * sub_size + rest,
        num_relations=draw(st.one_of(st.integers(fewest, fewest + 4), st.just(2_000))),
        sub_size=sub_size,
        atomic_ood_ratio=draw(ratio) if mirrored else 0.0,
        compositional_ood_ratio=draw(ratio),
        analogical_ood_ratio=draw(ratio),
        include_f_inverse=draw(st.booleans()),
        repeat_relations=repeat,
        graph_seed=draw(st.integers(0, 2**63 - 1)),
        mirrored=mirrored,
    )


# The graph


@given(config=configs())
@example(config=AnalogyConfig(num_entities=2, num_relations=1, sub_size=1))
@example(config=AnalogyConfig(num_entities=3, num_relations=1, sub_size=1, include_f_inverse=True))
@example(config=AnalogyConfig(**SMALL))
@example(config=AnalogyConfig(**REPEATED))
@example(
    config=AnalogyConfig(num_entities=14, num_relations=1, sub_size=5, repeat_relations=True, atomic_ood_ratio=0.5)
)
def test_every_fact_has_the_kind_that_the_definition_gives_it(config):
    assert_is_by_definition(Analogy(config))


@pytest.mark.parametrize("preset", ["e10", "e10-inverse", "e10-atomic-ood"])
def test_presets_are_by_definition(preset):
    assert_is_by_definition(get_task("analogy", preset))


def test_default_has_the_counts_of_the_reference_run():
    for seed in range(50):
        counts = get_task("analogy", graph_seed=seed).fact_counts()
        assert counts["id_compositional"] + counts["near_ood_compositional"] == 106 + 14
        assert counts == {**counts, "id_atomic": 40, "ood_atomic": 0, "far_ood_compositional": 0}
        assert (counts["id_analogical"], counts["ood_analogical"]) == (3, 2)


def test_presets_hold_what_they_are_for():
    assert get_task("analogy", "e100").fact_counts()["ood_analogical"] == 20
    assert all(get_task("analogy", "e10-atomic-ood").fact_counts().values()), "all seven kinds"
    assert "<f_inv>" in get_task("analogy", "e10-inverse").vocabulary()
    assert get_task("analogy", "e200").size("test") == 1_960_300


def test_a_composition_of_several_paths_is_far_only_if_all_of_them_are():
    world = World(get_task("analogy", **REPEATED))
    paths = defaultdict(set)
    for one, two in itertools.product(world.atomic, repeat=2):
        if one[2] == two[0] and one[0] != two[2]:
            paths[(*one[:2], *two[1:])].add(one in world.held or two in world.held)
    mixed = [fact for fact, fars in paths.items() if len(fars) == 2]
    assert mixed
    assert not any(world.kinds[fact] == "far_ood_compositional" for fact in mixed)


def test_graph_depends_on_its_seed_alone_and_zero_is_a_seed():
    assert facts_of(get_task("analogy", graph_seed=0)) == facts_of(get_task("analogy", graph_seed=0))
    assert len({tuple(sorted(facts_of(task).items())) for task in graphs(20)}) == 20


def test_seed_of_the_rows_changes_their_order_alone():
    task = get_task("analogy")
    one, two = (words_of(task, task.rows(0, task.size("train"), seed=seed)) for seed in (0, 1))
    assert one != two
    assert sorted(one) == sorted(two)


# What is drawn


def graphs(count: int, **config: object) -> list[Task]:
    return [get_task("analogy", graph_seed=seed, **config) for seed in range(count)]


def assert_uniform(values: list, cells: int) -> None:
    counts = Counter(values)
    assert len(counts) <= cells
    assert stats.chisquare([*counts.values(), *[0] * (cells - len(counts))]).pvalue > 1e-4


def test_number_of_near_compositions_is_binomial():
    held_out = np.bincount([task.fact_counts()["near_ood_compositional"] for task in graphs(2_000)], minlength=30)
    edges = [(0, 7), *((at, at + 1) for at in range(7, 18)), (18, 121)]
    chances = [stats.binom.pmf(range(*edge), 120, 0.1).sum() for edge in edges]
    counts = [held_out[slice(*edge)].sum() for edge in edges]
    assert stats.chisquare(counts, 2_000 * np.array(chances)).pvalue > 1e-4


def test_functor_is_uniform():
    drawn = graphs(4_000, num_entities=5, sub_size=2, num_relations=2)
    assert_uniform([tuple(task.functor().ravel()) for task in drawn], math.perm(5, 4))


@pytest.mark.parametrize("repeat", [True, False])
@pytest.mark.parametrize("part", ["first", "rest"])
def test_relations_of_a_head_are_uniform(repeat, part):
    drawn = []
    for task in graphs(2_000, num_entities=9, sub_size=3, num_relations=4, repeat_relations=repeat):
        world = World(task)
        head, *others = getattr(world, part)
        relation = {tail: label for source, label, tail in world.atomic if source == head}
        drawn.append(tuple(relation[tail] for tail in others))
    assert_uniform(drawn, 4**2 if repeat else math.perm(4, 2))


def test_relations_of_two_heads_are_independent():
    drawn = []
    for task in graphs(2_000, num_entities=4, sub_size=2, num_relations=5):
        world = World(task)
        relation = {head: label for head, label, _ in world.atomic}
        drawn.append(tuple(relation[head] for head in world.first))
    assert_uniform(drawn, 5**2)


def test_held_out_facts_are_uniform():
    halves = {
        "num_entities": 8,
        "sub_size": 4,
        "num_relations": 3,
        "atomic_ood_ratio": 1 / 6,
        "analogical_ood_ratio": 0.5,
    }
    atomic, analogical = [], []
    for task in graphs(2_000, **halves):
        world = World(task)
        place = world.first.index
        atomic.append(tuple(sorted((place(head), place(tail)) for head, _, tail in world.held)))
        held = (fact for fact, kind in world.kinds.items() if kind == "ood_analogical")
        analogical.append(tuple(sorted(place(head) for head, *_ in held)))
    assert_uniform(atomic, math.comb(12, 2))
    assert_uniform(analogical, math.comb(4, 2))


# Splits


@pytest.mark.parametrize("config", [SMALL, REPEATED], ids=["distinct", "repeated"])
def test_train_holds_the_facts_in_training_and_the_others_hold_all(config):
    task = get_task("analogy", **config)
    train, validation, test = (facts_of(task, split) for split in ("train", "validation", "test"))
    assert validation == test
    assert train == {fact: kind for fact, kind in test.items() if kind.startswith("id_")}
    assert set(test.values()) == set(KINDS)


def test_each_pass_holds_every_fact_once_in_an_order_of_its_own():
    task = get_task("analogy")
    size = task.size("train")
    drawn = words_of(task, task.rows(0, 3 * size))
    passes = [drawn[start : start + size] for start in range(0, 3 * size, size)]
    assert len({tuple(rows) for rows in passes}) == 3
    assert all(sorted(rows) == sorted(set(drawn)) for rows in passes)


@pytest.mark.parametrize("config", [{}, SMALL, REPEATED], ids=["default", "distinct", "repeated"])
def test_holdout_shares_what_is_not_in_training_out_evenly(config):
    task = get_task("analogy", **config, holdout="content")
    plain = get_task("analogy", **config)
    shares = [facts_of(task, split) for split in ("train", "validation", "test")]
    assert shares[0] == facts_of(plain, "train")
    assert sum(map(len, shares)) == len(set().union(*shares))
    assert {**shares[0], **shares[1], **shares[2]} == facts_of(plain)
    one, two = (Counter(share.values()) for share in shares[1:])
    assert all(abs(one[kind] - two[kind]) <= 1 for kind in KINDS)
    for number, split in enumerate(("train", "validation", "test")):
        assert (task.split_of(task.rows(0, task.size(split), split=split)) == number).all()


@pytest.mark.parametrize(
    ("config", "split", "message"),
    [
        (
            {"analogical_ood_ratio": 1.0, "compositional_ood_ratio": 1.0, "atomic_ood_ratio": 1.0},
            "train",
            "lower a ratio",
        ),
        (
            {"analogical_ood_ratio": 0.0, "compositional_ood_ratio": 0.0, "holdout": "content"},
            "validation",
            "got 0 facts",
        ),
        ({"analogical_ood_ratio": 0.2, "compositional_ood_ratio": 0.0, "holdout": "content"}, "test", "got 1 facts"),
    ],
)
def test_empty_split_is_an_error_that_says_so(config, split, message):
    with pytest.raises(ValueError, match=f"the {split} split empty.*{message}|the {split} split is empty.*{message}"):
        get_task("analogy", **config).rows(0, 1, split=split)


# Columns


@pytest.mark.parametrize("config", [SMALL, REPEATED], ids=["distinct", "repeated"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_columns_say_kind_image_and_number_of_answers(config, split):
    task = get_task("analogy", **config)
    world = World(task)
    rows = task.rows(0, task.size(split), split=split)
    facts = words_of(task, rows)
    shared = Counter(fact[:-1] for fact in facts)
    assert rows.columns["fact_type"].tolist() == [world.kinds[fact] for fact in facts]
    assert rows.columns["functor_image"].tolist() == [world.image.get(fact[0], "") for fact in facts]
    assert rows.columns["answers"].tolist() == [shared[fact[:-1]] for fact in facts]
    assert (max(shared.values()) > 1) == task.config.repeat_relations


def test_ids_of_entities_and_of_the_functor_are_those_of_the_tokens():
    task = get_task("analogy", **SMALL)
    words = ["<pad>", "<bos>", "<eos>", "<sep>", *task.vocabulary()]
    assert [words[token] for token in task.entity_ids()] == [f"<e_{number}>" for number in range(11)]
    assert words[15:] == [*(f"<r_{number}>" for number in range(7)), "<f>", "<f_inv>"]
    assert all(task.verify(f"{words[entity]} <f>", words[image]) for entity, image in task.functor())


# The verifier


@pytest.mark.parametrize("config", [SMALL, REPEATED], ids=["distinct", "repeated"])
def test_verify_equals_the_definition_on_every_prompt_and_answer(config):
    task = get_task("analogy", **{**config, "num_entities": 6, "sub_size": 3, "num_relations": 2})
    right = World(task).answers()
    for size in range(4):
        for prompt in itertools.product(task.vocabulary(), repeat=size):
            text = " ".join(prompt)
            assert set(task.answers(text)) == right.get(prompt, set())
    for prompt in [*right, ("<e_0>", "<f>"), ("<e_0>", "<r_0>", "<r_0>", "<r_0>"), ("<f>", "<e_0>")]:
        for answer in task.vocabulary():
            assert task.verify(" ".join(prompt), answer) == float(answer in right.get(prompt, ()))


def test_prompt_has_one_answer_unless_relations_repeat():
    assert {len(answers) for answers in World(get_task("analogy", **SMALL)).answers().values()} == {1}
    assert max(map(len, World(get_task("analogy", **REPEATED)).answers().values())) > 2


# Wrong answers


@pytest.mark.parametrize(
    "config", [{}, SMALL, REPEATED, {"num_entities": 2, "sub_size": 1, "analogical_ood_ratio": 0.0}]
)
def test_corrupt_changes_the_last_word_into_an_entity_that_is_no_answer(config, rng):
    task = get_task("analogy", **config)
    rows = task.rows(0, task.size("test"), split="test")
    right = World(task).answers()
    for gold, spoilt in zip(words_of(task, rows), words_of(task, task.corrupt(rows, rng(len(rows)))), strict=True):
        assert spoilt[:-1] == gold[:-1]
        assert spoilt[-1].startswith("<e_")
        assert spoilt[-1] not in right[gold[:-1]]


def test_corrupt_is_uniform_among_the_wrong_entities(rng):
    task = get_task("analogy", **REPEATED)
    right = World(task).answers()
    rows = task.rows(0, task.size("test"), split="test")
    facts = words_of(task, rows)
    at = max(range(len(facts)), key=lambda row: len(right[facts[row][:-1]]))
    wrong = task.corrupt(rows.select(np.full(5_000, at)), rng(5_000))
    assert_uniform([fact[-1] for fact in words_of(task, wrong)], 11 - len(right[facts[at][:-1]]))


# The floor


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("holdout", ["none", "content"])
@pytest.mark.parametrize("config", [SMALL, REPEATED], ids=["distinct", "repeated"])
def test_floor_is_the_enumerated_entropy_of_the_answer_given_the_prompt(config, holdout, split):
    task = get_task("analogy", **config, holdout=holdout)
    rows = task.rows(0, task.size(split), split=split)
    facts = words_of(task, rows)
    prompts = Counter(fact[:-1] for fact in facts)
    given_prompt = {fact: count / prompts[fact[:-1]] for fact, count in Counter(facts).items()}
    log_probs = task.optimal_log_probs(rows)[np.arange(len(rows)), rows.lengths - 1]
    np.testing.assert_allclose(log_probs, [math.log(given_prompt[fact]) for fact in facts], rtol=0, atol=1e-12)
    result = task.optimal_distribution(rows, rows.lengths[:, None] - 1)[:, 0, 4:]
    for row, fact in enumerate(facts):
        expected = [given_prompt.get((*fact[:-1], word), 0.0) for word in task.vocabulary()]
        np.testing.assert_allclose(result[row], expected, rtol=0, atol=1e-12)
    entropy = math.fsum(-math.log(given_prompt[fact]) / len(facts) for fact in facts)
    assert -task.optimal_log_probs(rows).sum() / len(rows) == pytest.approx(entropy, abs=1e-12)
    if split == "train" or holdout == "none":
        assert (entropy > 0) == task.config.repeat_relations


# What training tells


@pytest.mark.parametrize(
    "config",
    [SMALL, {**SMALL, "num_relations": 3, "atomic_ood_ratio": 0.5}, REPEATED, {"num_entities": 8, "sub_size": 1}],
)
@pytest.mark.parametrize("seed", range(5))
def test_what_follows_from_training_is_what_the_definition_says(config, seed):
    task = get_task("analogy", **{**config, "analogical_ood_ratio": 1.0, "graph_seed": seed})
    world = World(task)
    known = [fact for fact in world.atomic if fact not in world.held]
    composed = {(*one[:2], *two[1:]) for one, two in itertools.product(known, repeat=2) if one[2] == two[0]}
    leaving = {entity: sorted(fact[1] for fact in known if fact[0] == entity) for entity in world.entities}
    rows = task.rows(0, task.size("test"), split="test")
    for fact, follows in zip(words_of(task, rows), task.follows_from_training(rows).tolist(), strict=True):
        if fact in world.analogical:
            expected = sum(leaving[other] == leaving[fact[0]] for other in world.entities) == 2
        else:
            expected = fact in known or fact in composed
        assert follows == expected, fact


def test_all_functor_facts_of_the_paper_follow_from_training():
    for task in graphs(20):
        rows = task.rows(0, task.size("test"), split="test")
        assert task.follows_from_training(rows).all()


def test_nothing_tells_the_functor_where_the_halves_share_no_relation():
    task = get_task("analogy", mirrored=False)
    rows = task.rows(0, task.size("test"), split="test")
    unseen = rows.columns["fact_type"] == "ood_analogical"
    assert unseen.any()
    assert not task.follows_from_training(rows)[unseen].any()
    assert len(task.explanations()) == 3


def test_functor_fact_does_not_follow_where_entities_have_the_same_relations():
    task = get_task("analogy", num_relations=1, repeat_relations=True)
    rows = task.rows(0, task.size("test"), split="test")
    unseen = rows.columns["fact_type"] == "ood_analogical"
    assert not task.follows_from_training(rows)[unseen].any()


# Configs


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sub_size": 6}, "AnalogyConfig.sub_size: got 6, wanted at most half of num_entities=10"),
        ({"num_entities": 9}, "AnalogyConfig.sub_size: got 5, wanted at most half of num_entities=9"),
        ({"num_relations": 3}, "AnalogyConfig.num_relations: got 3, wanted at least 4.*repeat_relations=True"),
        ({"num_entities": 20, "num_relations": 8}, "AnalogyConfig.num_relations: got 8, wanted at least 9"),
        ({"atomic_ood_ratio": 1.5}, "AnalogyConfig.atomic_ood_ratio: got 1.5, wanted a value from 0.0 to 1.0"),
        ({"graph_seed": -1}, "AnalogyConfig.graph_seed: got -1"),
        ({"repeat_relations": 1}, "AnalogyConfig.repeat_relations: got 1"),
        ({"mirrored": False, "num_relations": 24}, "AnalogyConfig.num_relations: got 24, wanted at least 25"),
        ({"mirrored": False, "atomic_ood_ratio": 0.5}, "AnalogyConfig.atomic_ood_ratio: got 0.5, wanted 0"),
        ({"include_f_inverse": "yes"}, "AnalogyConfig.include_f_inverse: got 'yes'"),
    ],
)
def test_illegal_config_is_an_error_that_names_the_field(config, message):
    with pytest.raises(ValueError, match=message):
        get_task("analogy", **config)


def test_explanations_name_the_functors_of_the_config():
    plain, inverse = (get_task("analogy", preset).explanations() for preset in ("e10", "e10-inverse"))
    assert all(sentence.endswith(".") and sentence.count(".") == 1 for sentence in inverse)
    assert "<f_inv>" not in " ".join(plain)
    assert {*inverse} > {*plain}


@pytest.mark.parametrize("sizes", [{"num_entities": 1_000, "sub_size": 1}, {"num_entities": 1_000, "sub_size": 500}])
def test_graph_that_no_memory_holds_is_an_error(sizes):
    with pytest.raises(
        ValueError, match=r"AnalogyConfig.num_entities: got 1000, wanted a graph of at most 67,108,864"
    ):
        get_task("analogy", **sizes)
