"""Random Language Model: rules as defined, rows as the rules say, and the floor as every string counted one by one."""

import dataclasses
import hashlib
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_synth.rng import RowRandom
from hf_synth.tasks import Task, get_task
from hf_synth.tasks.base import FIRST_CONTENT
from hf_synth.tasks.families import trees
from hf_synth.views import view_table

WEIGHTS, WEIGHTS_HASH = (
    [142821483, 1176210, 62729871302],
    "93c8e47722522cec",
)  # of 16 symbols at beta 2 and rule seed 3: the first three, and all
PRIOR = (0.5, 0.0, 1.0, 3.0, 0.25, 1.25)


def root_probabilities(task: Task) -> list[float]:
    """As they are drawn from: multiples of a power of two, like `task.rules`."""
    weights = trees.root_weights(task.config.vocab_size, task.config.root_prior)
    return (weights / weights.sum()).tolist()


def strings_under(task: Task, symbol: int, depth: int) -> dict[tuple[int, ...], float]:
    """P(leaves | symbol) of every string of 2**depth leaves: the definition, one pair of children after the other."""
    if depth == 0:
        return {(symbol,): 1.0}
    below = [strings_under(task, child, depth - 1) for child in range(task.config.vocab_size)]
    counts: Counter[tuple[int, ...]] = Counter()
    for (left, right), probability in np.ndenumerate(task.rules[symbol]):
        for first, second in itertools.product(below[left].items(), below[right].items()):
            counts[first[0] + second[0]] += probability * first[1] * second[1]
    return counts


def all_strings(task: Task, language):
    """Every string of a task as words, with its probability, root by root."""
    return language(
        (tuple(map(str, leaves)), chance * probability)
        for root, chance in enumerate(root_probabilities(task))
        for leaves, probability in strings_under(task, root, task.config.depth).items()
    )


def joint_of_four(task: Task) -> np.ndarray:
    """P(x1, x2, x3, x4) at depth 2 by one sum, float64 [V, V, V, V]."""
    rules = task.rules
    return np.einsum("i,ijk,jab,kcd->abcd", root_probabilities(task), rules, rules, rules, optimize=True)


def entropy(probabilities: np.ndarray) -> float:
    possible = probabilities[probabilities > 0]
    return -math.fsum(possible * np.log(possible))


def leaves_of(task: Task, count: int) -> np.ndarray:
    return task.rows(0, count).tokens[:, 1:] - FIRST_CONTENT


def p_value(pairs: tuple[np.ndarray, np.ndarray], joint: np.ndarray) -> float:
    """Chi-square of pairs against P(pair); the pairs expected fewer than ten times count together."""
    observed = np.bincount(pairs[0] * joint.shape[1] + pairs[1], minlength=joint.size)
    expected = joint.ravel() * len(pairs[0])
    rare = expected < 10
    assert not observed[expected == 0].any()
    observed, expected = (np.append(counts[~rare], counts[rare].sum()) for counts in (observed, expected))
    return stats.chisquare(observed[expected > 0], expected[expected > 0]).pvalue


# The rules


@pytest.mark.parametrize(("vocab_size", "beta"), [(2, 1.0), (5, 0.5), (7, 2.0), (32, 3.0)])
def test_rules_are_the_softmax_of_normals_made_from_the_seed(vocab_size, beta):
    task = get_task("rlm", vocab_size=vocab_size, beta=beta, rule_seed=5)
    for parent in (0, vocab_size - 1):
        rng = RowRandom(seed=5, split="", purpose="rules", index=np.array([parent]))
        first, second = np.split(rng.random(vocab_size**2 + vocab_size % 2)[0], 2)
        angle = np.where(second < 0.5, 1, -1) * math.pi * (1.5 - 2 * second)
        radius = np.sqrt(-2 * np.log(1 - first))
        normal = np.append(radius * np.cos(angle), radius * np.sin(angle))
        weight = np.exp(beta * math.sqrt(math.log(vocab_size)) * normal[: vocab_size**2])
        expected = (weight / weight.sum()).reshape(vocab_size, vocab_size)
        np.testing.assert_allclose(task.rules[parent], expected, rtol=1e-4, atol=1e-9)


def test_logarithms_of_the_rules_are_normal_and_independent():
    task = get_task("rlm", vocab_size=64, beta=0.25)
    logs = np.log(task.rules).reshape(64, -1) / (0.25 * math.sqrt(math.log(64)))
    normal = (logs - logs.mean(axis=1, keepdims=True)).ravel()
    assert stats.kstest(normal, "norm").pvalue > 1e-4
    for lag in (1, 64, 2048, 4096):
        assert abs(stats.pearsonr(normal[:-lag], normal[lag:]).statistic) < 4 / math.sqrt(normal.size)


def test_portable_functions_are_those_of_the_library():
    x = np.append(np.linspace(1e-16, 1.0, 10_001), [1e-300, 2.0, 512.0])
    np.testing.assert_allclose(trees._log(x), np.log(x), rtol=1e-14, atol=1e-15)
    x = np.linspace(-64.0, 0.0, 10_001)
    np.testing.assert_allclose(trees._exp(x), np.exp(x), rtol=1e-14)
    assert trees._exp(np.array([-1e9])) == trees._exp(np.array([-64.0]))


def test_weights_are_these_integers_on_every_platform():
    weights = np.stack([trees.rule_weights(16, 2.0, 3, parent) for parent in range(16)])
    assert weights[0, 0, :3].tolist() == WEIGHTS
    assert hashlib.sha256(weights.astype("<i8").tobytes()).hexdigest()[:16] == WEIGHTS_HASH


@pytest.mark.parametrize("vocab_size", [2, 3, 6, 16, 33])
def test_tables_draw_exactly_the_rules(vocab_size):
    """The mass of a column is its own threshold and what the other columns give it, all in integers."""
    task = get_task("rlm", vocab_size=vocab_size, root_prior=tuple(range(vocab_size)))
    root, rules, bits = task._tables
    expected = [(root, trees.root_weights(vocab_size, task.config.root_prior))]
    expected += [(table, trees.rule_weights(vocab_size, 2.0, 0, parent)) for parent, table in enumerate(rules)]
    for table, weights in expected:
        mass = Counter()
        for column, entry in enumerate(table.tolist()):
            mass[column] += entry >> 32
            mass[entry & 0xFFFFFFFF] += 2**32 - (entry >> 32)
        assert sum(mass.values()) == weights.sum() == len(table) * 2**32
        for place, weight in np.ndenumerate(weights):
            column = place[0] if weights.ndim == 1 else (place[0] << int(bits)) + place[1]
            assert mass.pop(column, 0) == weight
        assert not any(mass.values()), "columns beyond the vocabulary"
    assert (task.rules * 2.0 ** (32 + 2 * int(bits)) == [weights for _, weights in expected[1:]]).all()


def test_rule_seed_changes_the_rules_and_nothing_else_does():
    rules = get_task("rlm", "v6-l2-b2").rules
    assert not np.allclose(rules, get_task("rlm", "v6-l2-b2", rule_seed=1).rules)
    for change in ({"depth": 3}, {"loss": "all"}, {"size": 5}, {"root_prior": PRIOR}):
        assert np.array_equal(rules, get_task("rlm", "v6-l2-b2", **change).rules)


@pytest.mark.parametrize(("vocab_size", "depth"), [(6, 2), (32, 2), (7, 3)])
def test_rules_without_inverse_temperature_are_uniform(vocab_size, depth):
    task = get_task("rlm", vocab_size=vocab_size, depth=depth, beta=0, loss="all")
    np.testing.assert_allclose(task.rules, vocab_size**-2.0, rtol=1e-9)
    rows = task.rows(0, 50)
    np.testing.assert_allclose(task.optimal_log_probs(rows)[:, 1:], -math.log(vocab_size), rtol=1e-9)


def test_rules_at_the_greatest_beta_are_almost_certain():
    task = get_task("rlm", vocab_size=128, depth=3, beta=20.0, loss="all")
    np.testing.assert_allclose(task.rules.sum(axis=(1, 2)), 1.0, rtol=1e-12)
    assert np.median(task.rules.max(axis=(1, 2))) > 0.99
    log_probs = task.optimal_log_probs(task.rows(0, 200))
    assert np.isfinite(log_probs).all()
    assert math.log(128) < -log_probs.sum(axis=1).mean() < 1.5 * math.log(128)


# The rows


@pytest.mark.parametrize("prior", [(), PRIOR])
def test_roots_and_pairs_come_as_the_rules_say(prior, rng):
    task = get_task("rlm", vocab_size=6, depth=2, beta=1, root_prior=prior)
    nodes = trees.tree_nodes(rng(20_000).keys(), *task._tables, 4)
    joint = np.diag(root_probabilities(task))
    assert p_value((nodes[:, 1], nodes[:, 1]), joint) > 1e-4
    for node in (1, 2, 3):
        for parent in range(6):
            children = nodes[nodes[:, node] == parent, 2 * node : 2 * node + 2]
            if len(children):
                assert p_value((children[:, 0], children[:, 1]), task.rules[parent]) > 1e-4


@pytest.mark.parametrize("prior", [(), PRIOR])
@pytest.mark.parametrize("vocab_size", [6, 32])
def test_bigrams_of_one_level_have_the_exact_joint_distribution(prior, vocab_size):
    if prior:
        prior = (*prior, *[0.0] * (vocab_size - 6))
    task = get_task("rlm", vocab_size=vocab_size, depth=1, beta=1, root_prior=prior)
    leaves = leaves_of(task, 20_000)
    joint = np.einsum("i,ijk->jk", root_probabilities(task), task.rules)
    assert p_value((leaves[:, 0], leaves[:, 1]), joint) > 1e-4


@pytest.mark.parametrize("prior", [(), PRIOR])
@pytest.mark.parametrize("places", list(itertools.combinations(range(4), 2)))
def test_pairs_of_leaves_have_the_exact_joint_distribution(prior, places):
    """Siblings and others: at depth 2 leaves 0 and 1 have one parent, 1 and 2 only the root in common."""
    task = get_task("rlm", vocab_size=6, depth=2, beta=2, root_prior=prior)
    leaves = leaves_of(task, 20_000)
    joint = joint_of_four(task).sum(axis=tuple({0, 1, 2, 3} - set(places)))
    assert p_value((leaves[:, places[0]], leaves[:, places[1]]), joint) > 1e-4


def test_leaves_far_apart_depend_on_each_other_no_less_than_the_rules_say():
    task = get_task("rlm", vocab_size=2, depth=4, beta=1.5)
    leaves = leaves_of(task, 20_000)
    joint = np.zeros((2, 2))
    for root in range(2):
        for left, right in itertools.product(range(2), repeat=2):
            outer = [task.rules.sum(axis=axis) for axis in (2, 1)]  # to the left child, to the right child
            first, last = (np.linalg.matrix_power(step, 3) for step in outer)
            joint += 0.5 * task.rules[root, left, right] * np.outer(first[left], last[right])
    assert p_value((leaves[:, 0], leaves[:, 15]), joint) > 1e-4


@pytest.mark.parametrize("loss", ["last", "all"])
def test_rows_are_leaves_after_bos_without_eos(loss):
    task = get_task("rlm", "v6-l2-b2", loss=loss)
    rows = task.rows(0, 100)
    assert rows.tokens.shape == (100, 5)
    assert (rows.tokens[:, 0] == 1).all()
    assert set(np.unique(rows.tokens[:, 1:])) == set(range(4, 10))
    assert (rows.lengths == 5).all()
    assert (rows.loss_start == (4 if loss == "last" else 1)).all()
    assert (rows.loss_stop == 5).all()


def test_finite_training_set_has_the_same_rows_in_every_pass_in_another_order():
    task = get_task("rlm", "v32-l4-b2-all", size=50)
    assert [task.size(split) for split in ("train", "validation", "test")] == [50, None, None]
    endless = get_task("rlm", "v32-l4-b2-all")
    assert endless.size("train") is None
    once, again = (task.rows(start, 50).tokens.tolist() for start in (0, 50))
    assert once != again
    assert sorted(once) == sorted(again) == sorted(endless.rows(0, 50).tokens.tolist())
    other = task.rows(0, 100, split="test").tokens
    assert len(np.unique(other, axis=0)) == 100
    assert np.array_equal(other, endless.rows(0, 100, split="test").tokens)


# The floor


@pytest.mark.parametrize("change", [{}, {"root_prior": PRIOR}, {"beta": 3, "rule_seed": 7}], ids=str)
def test_floor_equals_full_enumeration_of_two_levels(change, language, rows_of):
    assert_floor_equals_enumeration(get_task("rlm", vocab_size=6, depth=2, loss="all", **change), language)


@pytest.mark.parametrize("vocab_size", [2, 3])
@pytest.mark.parametrize("prior", [(), (0.2, 0.7, 0.1), (0, 0, 2)])
def test_floor_equals_full_enumeration_of_three_levels(vocab_size, prior, language):
    prior = prior[-vocab_size:] if prior else ()
    task = get_task("rlm", vocab_size=vocab_size, depth=3, root_prior=prior, beta=1.5, loss="all")
    assert_floor_equals_enumeration(task, language)


@pytest.mark.parametrize("vocab_size", [2, 6])
def test_floor_equals_full_enumeration_of_one_level(vocab_size, language):
    assert_floor_equals_enumeration(get_task("rlm", vocab_size=vocab_size, depth=1, loss="all"), language)


def assert_floor_equals_enumeration(task: Task, language) -> None:
    """On every string that is possible, under loss on all leaves and on the last alone; and its mean."""
    enumerated = all_strings(task, language)
    possible = [words for words, probability in enumerated.strings.items() if probability > 0]
    rows = task.rows(0, len(possible))
    rows.tokens[:, 1:] = np.array(possible, np.int32) + FIRST_CONTENT
    expected = np.array([enumerated.log_probs(words)[:-1] for words in possible])
    np.testing.assert_allclose(task.optimal_log_probs(rows)[:, 1:], expected, atol=1e-10)
    leaves, symbols = len(possible[0]), task.vocabulary()
    result = task.optimal_distribution(rows, np.arange(leaves, 0, -1))[:, ::-1, FIRST_CONTENT:]
    for row, words in enumerate(possible):
        before = [enumerated.prefixes[words[:stop]] for stop in range(leaves)]
        after = [[enumerated.prefixes[(*words[:stop], symbol)] for symbol in symbols] for stop in range(leaves)]
        np.testing.assert_allclose(result[row], np.array(after) / np.array(before)[:, None], rtol=0, atol=1e-10)
    last = get_task("rlm", **{**vars(task.config), "loss": "last"})
    rows.loss_start[:] = last.rows(0, 1).loss_start
    log_probs = last.optimal_log_probs(rows)
    np.testing.assert_allclose(log_probs[:, -1], expected[:, -1], atol=1e-10)
    np.testing.assert_array_equal(last.optimal_distribution(rows, [leaves])[:, 0, FIRST_CONTENT:], result[:, -1])
    assert not log_probs[:, :-1].any()
    mean = -math.fsum(enumerated.strings[words] * log_probs[row, -1] for row, words in enumerate(possible))
    assert last.conditional_entropy() == pytest.approx(mean, abs=1e-10)


def test_floor_of_four_levels_equals_sums_over_all_strings():
    task = get_task("rlm", vocab_size=2, depth=4, beta=2, loss="all")
    below = np.eye(2)
    for _ in range(4):
        below = np.einsum("ijk,ja,kb->iab", task.rules, below, below).reshape(2, -1)
    strings = below.mean(axis=0).reshape((2,) * 16)
    rows = task.rows(0, 200)
    log_probs = task.optimal_log_probs(rows)
    for row in range(200):
        leaves = tuple(rows.tokens[row, 1:] - FIRST_CONTENT)
        chances = [1.0, *(strings[leaves[:stop]].sum() for stop in range(1, 17))]
        np.testing.assert_allclose(log_probs[row, 1:], np.diff(np.log(chances)), atol=1e-10)


@pytest.mark.parametrize("start", range(1, 17))
def test_floor_of_cut_rows_is_that_of_whole_rows_after_the_cut(start):
    task = get_task("rlm", "v32-l4-b2-all")
    rows = task.rows(0, 20)
    whole = task.optimal_log_probs(rows)
    assert (whole[:, 1:] < 0).all()
    rows.loss_start[:] = start
    rows.loss_start[7] = 16
    np.testing.assert_allclose(task.optimal_log_probs(rows), np.where(rows.loss_mask, whole, 0.0), rtol=0, atol=1e-12)


def test_floor_is_the_same_in_blocks_of_any_size(monkeypatch):
    task = get_task("rlm", "v32-l4-b2-all")
    rows = task.rows(0, 50)
    together = task.optimal_log_probs(rows)
    monkeypatch.setattr("hf_synth.tasks.families.inside._BLOCK_BYTES", 7 * 8 * 32**2 * 3)
    np.testing.assert_allclose(task.optimal_log_probs(rows), together, rtol=0, atol=1e-12)


@pytest.mark.parametrize("preset", ["v6-l2-b1", "v6-l2-b2", "v6-l2-b3", "v32-l1-b1.8", "v128-l1-b2"])
def test_mean_over_rows_is_the_conditional_entropy(preset):
    task = get_task("rlm", preset)
    losses = -task.optimal_log_probs(task.rows(0, 20_000)).sum(axis=1)
    assert abs(losses.mean() - task.conditional_entropy()) < 4 * losses.std() / len(losses) ** 0.5


@pytest.mark.parametrize("prior", [(), PRIOR])
def test_entropies_are_those_of_the_joint_distribution(prior):
    task = get_task("rlm", vocab_size=6, depth=2, beta=2, root_prior=prior)
    joint = joint_of_four(task)
    assert task.conditional_entropy() == pytest.approx(entropy(joint) - entropy(joint.sum(axis=3)), abs=1e-10)
    assert task.marginal_entropy() == pytest.approx(entropy(joint.sum(axis=(0, 1, 2))), abs=1e-10)


@pytest.mark.parametrize(
    ("beta", "published", "spread"), [(1, 1.616, 0.057), (2, 1.099, 0.183), (3, 0.704, 0.211)], ids=str
)
def test_floor_of_two_levels_over_400_grammars_is_the_reference_s(beta, published, spread):
    entropies = [
        get_task("rlm", vocab_size=6, depth=2, beta=beta, rule_seed=s).conditional_entropy() for s in range(400)
    ]
    assert np.mean(entropies) == pytest.approx(published, abs=4 * spread * (2 / 400) ** 0.5)
    assert np.std(entropies) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize(("beta", "published"), [(0.8, 3.378), (1.2, 3.109), (1.8, 2.458), (2.4, 1.909)])
def test_floor_of_one_level_over_grammars_is_the_reference_s(beta, published):
    entropies = [get_task("rlm", f"v32-l1-b{beta}", rule_seed=seed).conditional_entropy() for seed in range(40)]
    assert np.mean(entropies) == pytest.approx(published, abs=0.035)


def test_shipped_experiment_has_the_reference_s_entropies():
    task = get_task("rlm")
    assert task.config.to_json() == get_task("rlm", "v128-l1-b2").config.to_json()
    assert task.conditional_entropy() == pytest.approx(2.84, abs=0.15)
    assert task.marginal_entropy() == pytest.approx(4.76, abs=0.02)


def test_strings_that_cannot_be_counted_are_an_error_that_says_what_to_do():
    with pytest.raises(ValueError, match=r"got 32\*\*16 strings, wanted at most 16777216.*mean of -optimal_log_probs"):
        get_task("rlm", "v32-l4-b2-all").conditional_entropy()
    assert 0 < get_task("rlm", "v32-l4-b2-all").marginal_entropy() < math.log(32)


# Trees


def test_tree_is_drawn_from_the_root_down():
    assert trees.drawn([7, 10, 255]).split("\n") == ["   7", " ┌─┴─┐", "10  255"]
    assert trees.drawn([3, 1, 4, 0, 2, 5, 1]).split("\n") == [
        "       3",
        "   ┌───┴───┐",
        "   1       4",
        " ┌─┴─┐   ┌─┴─┐",
        " 0   2   5   1",
    ]


@pytest.mark.parametrize(("vocab_size", "depth"), [(2, 1), (6, 2), (128, 3), (200, 4), (12, 6)])
def test_trees_show_what_generate_makes(vocab_size, depth, rng):
    task = get_task("rlm", vocab_size=vocab_size, depth=depth)
    tokens = task.generate(rng(20)).tokens[:, 1:] - FIRST_CONTENT
    drawings = [drawing.split("\n") for drawing in task.trees(rng(20))]
    assert [list(map(int, lines[-1].split())) for lines in drawings] == tokens.tolist()
    assert {len(lines) for lines in drawings} == {2 * depth + 1}
    for lines in drawings:
        levels = [list(map(int, line.split())) for line in lines[::2]]
        assert list(map(len, levels)) == [2**level for level in range(depth + 1)]
        for above, below in itertools.pairwise(levels):
            for at, parent in enumerate(above):
                assert task.rules[parent, below[2 * at], below[2 * at + 1]] > 0


def test_trees_of_certain_rules_follow_them(rng):
    task = get_task("rlm", vocab_size=6, depth=3, beta=20, root_prior=(0, 0, 1, 0, 0, 0))
    for drawing in task.trees(rng(5)):
        levels = [list(map(int, line.split())) for line in drawing.split("\n")[::2]]
        assert levels[0] == [2]
        for above, below in itertools.pairwise(levels):
            for at, parent in enumerate(above):
                likeliest = np.unravel_index(task.rules[parent].argmax(), (6, 6))
                if task.rules[parent].max() > 0.999:
                    assert (below[2 * at], below[2 * at + 1]) == likeliest


# No string is wrong


def test_nothing_can_be_verified_or_corrupted(rng):
    task = get_task("rlm", "v6-l2-b2")
    rows = task.rows(0, 4)
    assert not task.verifiable
    assert task.verify("0 1 2", "3") == 0.0
    with pytest.raises(ValueError, match=r"task rlm: .* no text of this task is wrong"):
        task.corrupt(rows, rng(4))
    for view in ("preference", "labelled"):
        with pytest.raises(ValueError, match=f'task rlm: got view "{view}", but no text of this task is wrong'):
            view_table(task, view, 0, 4, split="train", seed=0)


def test_rows_of_two_leaves_are_cut_between_them():
    task = get_task("rlm", vocab_size=6, depth=1, loss="all")
    pairs = view_table(task, "prompt_completion", 0, 20, split="train", seed=0).to_pylist()
    text = view_table(task, "text", 0, 20, split="train", seed=0).to_pylist()
    assert [pair["prompt"] + pair["completion"] for pair in pairs] == [row["text"] for row in text]
    assert all(len(pair["prompt"].split()) == len(pair["completion"].split()) == 1 for pair in pairs)


# Configs


@given(
    vocab_size=st.sampled_from([2, 3, 5, 16, 17, 33]),
    depth=st.integers(1, 5),
    beta=st.sampled_from([0, 0.3, 2, 20]),
    rule_seed=st.sampled_from([0, 1, 2**63 - 1]),
    loss=st.sampled_from(["last", "all"]),
    size=st.sampled_from([0, 1, 3]),
    data=st.data(),
)
def test_every_legal_config_makes_rows_whose_next_tokens_sum_to_one(
    vocab_size, depth, beta, rule_seed, loss, size, data
):
    weights = st.lists(st.floats(0, 1e300), min_size=vocab_size, max_size=vocab_size).filter(any)
    prior = data.draw(st.one_of(st.just(()), weights))
    task = get_task(
        "rlm",
        vocab_size=vocab_size,
        depth=depth,
        beta=beta,
        rule_seed=rule_seed,
        loss=loss,
        size=size,
        root_prior=prior,
    )
    rows = task.rows(0, vocab_size)
    assert rows.tokens.shape == (vocab_size, 1 + 2**depth)
    assert rows.tokens[:, 1:].min() >= 4
    assert rows.tokens.max() < 4 + vocab_size
    log_probs = task.optimal_log_probs(rows)
    assert np.isfinite(log_probs).all()
    assert (log_probs <= 0).all()
    rows.tokens[:, :-1] = rows.tokens[0, :-1]
    rows.tokens[:, -1] = 4 + np.arange(vocab_size)
    with np.errstate(divide="ignore", invalid="ignore"):
        assert np.exp(task.optimal_log_probs(rows)[:, -1]).sum() == pytest.approx(1.0, abs=1e-9)


def test_deepest_tree_has_rows_and_a_floor():
    task = get_task("rlm", vocab_size=2, depth=16)
    rows = task.rows(0, 1)
    assert rows.tokens.shape == (1, 65_537)
    assert -math.log(1e6) < task.optimal_log_probs(rows)[0, -1] < 0


def test_task_is_made_before_its_tables_are():
    assert not {"rules", "_tables", "_inside"} & set(vars(get_task("rlm", vocab_size=512)))


@pytest.mark.parametrize("value", [1, 513, 0, -1, 6.0, True, "6", None])
def test_illegal_vocab_size_is_an_error_that_names_the_field(value):
    with pytest.raises(ValueError, match=r"RlmConfig.vocab_size: got .*, wanted (int|a value from 2 to 512)"):
        get_task("rlm", vocab_size=value)


@pytest.mark.parametrize("value", [0, 17, 1.0, False, "1"])
def test_illegal_depth_is_an_error_that_names_the_field(value):
    with pytest.raises(ValueError, match=r"RlmConfig.depth: got .*, wanted (int|a value from 1 to 16)"):
        get_task("rlm", depth=value)


@pytest.mark.parametrize("value", [-0.1, 20.1, math.nan, math.inf, "2", True])
def test_illegal_beta_is_an_error_that_names_the_field(value):
    with pytest.raises(ValueError, match=r"RlmConfig.beta: got .*, wanted (float|a value from 0.0 to 20.0)"):
        get_task("rlm", beta=value)


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("rule_seed", -1, "a value from 0 to 9223372036854775807"),
        ("rule_seed", 1.5, "int"),
        ("size", -1, "a value from 0 to 1099511627776"),
        ("size", 1.0, "int"),
        ("root_prior", (1, 2), "as many weights as vocab_size=6, or none"),
        ("root_prior", (1,) * 7, "as many weights as vocab_size=6, or none"),
        ("root_prior", (0,) * 6, "finite weights of at least 0, not all of them 0"),
        ("root_prior", (1, 1, 1, 1, 1, -1), "finite weights of at least 0, not all of them 0"),
        ("root_prior", (1, 1, 1, 1, 1, math.nan), "finite weights of at least 0, not all of them 0"),
        ("root_prior", (1, 1, 1, 1, 1, math.inf), "finite weights of at least 0, not all of them 0"),
        ("root_prior", "uniform", "a list of numbers"),
        ("root_prior", None, "a list of numbers"),
        ("root_prior", ["1"] * 6, "a list of numbers"),
    ],
)
def test_other_illegal_value_is_an_error_that_names_the_field(field, value, wanted):
    with pytest.raises(ValueError, match=f"RlmConfig.{field}: got .*, wanted {wanted}"):
        get_task("rlm", vocab_size=6, **{field: value})


@pytest.mark.parametrize("value", ["first", None])
def test_a_loss_that_is_none_is_an_error_that_names_all(value):
    with pytest.raises(ValueError, match=rf"RlmConfig.loss: got {value!r}; Known: all, last\."):
        get_task("rlm", vocab_size=6, loss=value)


def test_prior_is_a_list_in_json_and_its_scale_does_not_matter():
    once = get_task("rlm", "v6-l2-b2", root_prior=[1, 2, 3, 0, 0, 2])
    twice = get_task("rlm", "v6-l2-b2", root_prior=(2, 4, 6, 0, 0, 4.0))
    assert once.config.root_prior == (1.0, 2.0, 3.0, 0.0, 0.0, 2.0)
    assert '"root_prior": [1.0, 2.0, 3.0, 0.0, 0.0, 2.0]' in once.config.to_json()
    assert np.array_equal(once.rows(0, 50).tokens, twice.rows(0, 50).tokens)


def test_padding_changes_no_distribution():
    task = get_task("rlm", "v6-l2-b2")
    rows = task.rows(0, 3, split="test")
    padded = dataclasses.replace(rows, tokens=np.pad(rows.tokens, ((0, 0), (0, 4))))
    assert (task.optimal_distribution(padded, [4]) == task.optimal_distribution(rows, [4])).all()
    assert (task.optimal_log_probs(padded)[:, :-4] == task.optimal_log_probs(rows)).all()


def test_a_root_with_a_prior_of_0_never_comes():
    weights = trees.root_weights(3, (0.0, 1.0, 2.0))
    assert weights[0] == 0
    assert weights.sum() == 1 << (32 + trees.column_bits(3))
    frozen = trees.rule_weights(5, 20.0, 0, 0)
    assert (frozen == 0).any()
    assert frozen.sum() == 1 << (32 + 2 * trees.column_bits(5))
