"""How alike completions are: self-BLEU, Vendi and variety against slow definitions, and planted collapses."""

import collections
import itertools
import math
import re
import sys

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from hf_synth.errors import install_hint
from hf_synth.metrics.self_bleu import self_bleu
from hf_synth.metrics.variety import variety
from hf_synth.metrics.vendi import vendi

ONE = [1.0] * 240


def every_measure(texts, prompts):
    return {**self_bleu(texts, prompts), **vendi(texts, prompts), **variety(texts, ONE, prompts)}


@pytest.mark.parametrize(
    ("name", "sign"), [("self_bleu", 1), ("self_bleu/across", 1), ("vendi", -1), ("vendi/across", -1)]
)
def test_few_words_are_told_from_many_both_ways(planted, name, sign):
    good, bad = (every_measure(planted.sentences(kinds), planted.PROMPTS) for kinds in (125, 4))
    first, second = (bad, good) if sign > 0 else (good, bad)
    assert planted.apart(first, second, name)
    assert not planted.apart(second, first, name)


def test_a_policy_with_one_answer_a_prompt_shows_within_prompts_and_not_across(planted):
    good, bad = (
        every_measure(texts, planted.PROMPTS) for texts in (planted.sentences(125), planted.one_a_prompt(125))
    )
    assert planted.apart(bad, good, "self_bleu")
    assert planted.apart(good, bad, "vendi")
    assert planted.apart(good, bad, "variety")
    assert bad["self_bleu"] == pytest.approx(1)
    assert bad["vendi"] == pytest.approx(1)
    assert bad["variety"] == pytest.approx(1 / 6)
    for name in ("self_bleu/across", "vendi/across"):
        assert not planted.apart(good, bad, name)
        assert not planted.apart(bad, good, name)


def test_pairs_by_hand():
    """Of a b c d and a b c e: 3 of 4 words match, 2 of 3 pairs, 1 of 2 triples; no four, which counts half of one."""
    wanted = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)
    assert self_bleu(["a b c d", "a b c e"], ["p", "p"])["self_bleu"] == pytest.approx(wanted)
    assert self_bleu(["a b", "a c"], ["p", "p"])["self_bleu"] == pytest.approx((1 / 2 * 1 / 2) ** (1 / 2))
    assert self_bleu(["", ""], ["p", "p"])["self_bleu"] == 1
    assert self_bleu(["", "a b"], ["p", "p"])["self_bleu"] == 0


def test_self_bleu_is_the_mean_over_all_pairs_where_they_are_few(planted):
    texts, prompts = planted.sentences(12)[:12], ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    judge = BLEU(effective_order=True, tokenize="none", force=True)
    score = {(one, two): judge.sentence_score(one, [two]).score / 100 for one, two in itertools.permutations(texts, 2)}
    means = [np.mean([score[pair] for pair in itertools.permutations(texts[at : at + 4], 2)]) for at in (0, 4, 8)]
    assert self_bleu(texts, prompts)["self_bleu"] == pytest.approx(np.mean(means))
    fewer = self_bleu(texts, prompts, pairs=5)
    assert fewer["self_bleu"] != pytest.approx(np.mean(means), abs=1e-9)
    assert fewer["self_bleu"] == self_bleu(texts, prompts, pairs=5)["self_bleu"]


def test_more_samples_do_not_raise_self_bleu(planted):
    """Against all others at once, as it is often done, it would."""
    texts = planted.sentences(30, seed=1)
    few, many = (self_bleu(texts, [number // size for number in range(240)]) for size in (3, 24))
    assert not planted.apart(many, few, "self_bleu")
    assert not planted.apart(few, many, "self_bleu")


def test_what_comes_after_the_first_tokens_makes_no_text_more_alike(planted):
    """Many words, and after 64 of them always the same."""
    texts = planted.sentences(30, 64)
    short, long = (every_measure(some, planted.PROMPTS) for some in (texts, [f"{text} so it is" for text in texts]))
    assert long == short
    assert planted.apart(
        self_bleu([f"{text} so it is" for text in texts], planted.PROMPTS, first=68), short, "self_bleu"
    )


def profile(text):
    grams = [tuple(text[start : start + n]) for n in range(1, 5) for start in range(len(text) - n + 1)]
    return collections.Counter(grams or [()])


def by_definition(texts):
    profiles = [profile(text.split()) for text in texts]
    inner = [[sum(one[gram] * two[gram] for gram in one) for two in profiles] for one in profiles]
    sizes = np.sqrt(np.diag(inner))
    similar = np.array(inner) / np.outer(sizes, sizes)
    chances = [value for value in np.linalg.eigvalsh(similar / len(texts)) if value > 1e-12]
    return math.exp(-sum(value * math.log(value) for value in chances))


def test_vendi_against_its_definition(planted):
    texts = [*planted.sentences(10)[:9], "", "", "one two"]
    prompts = [number // 4 for number in range(12)]
    wanted = np.mean([by_definition(texts[start : start + 4]) for start in (0, 4, 8)])
    assert vendi(texts, prompts)["vendi"] == pytest.approx(wanted, rel=1e-6)


def test_vendi_of_embeddings_counts_directions():
    corners = np.eye(3)[[0, 0, 1, 1]]
    assert vendi(["a"] * 4, ["p"] * 4, embeddings=corners * 7)["vendi"] == pytest.approx(2)
    same = vendi(["a", "b"] * 2, ["p", "p", "q", "q"], embeddings=corners, prompts_at_once=2)
    assert same["vendi"] == pytest.approx(1)
    assert same["vendi/across"] == pytest.approx(2)


def test_variety_by_hand():
    texts = ["a", "a", "b", "c", "c", "c"]
    right = [1, 1, 0, 1, 1, 0]
    result = variety(texts, right, ["p", "p", "p", "q", "q", "q"])
    assert result["variety"] == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert result["variety/any"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_what_cannot_be_compared():
    assert list(self_bleu(["a", "b"], ["p", "q"])) == [f"self_bleu/across{end}" for end in ("", "/low", "/high")]
    assert self_bleu(["a", "b"], ["p", "p"]).keys() == {"self_bleu", "self_bleu/low", "self_bleu/high"}
    assert vendi(["a"], ["p"]) == {}
    with pytest.raises(ValueError, match="got a prompt with one completion"):
        variety(["a", "b"], [1, 1], ["p", "q"])
    with pytest.raises(ValueError, match=r"got embeddings of shape \(2,\) for 2 texts"):
        vendi(["a", "b"], ["p", "p"], embeddings=[1.0, 2.0])
    for bad in (0.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinity in row 1"):
            vendi(["a", "b"], ["p", "p"], embeddings=[[1.0], [bad]])


def test_without_sacrebleu_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    hint = f"self_bleu: {install_hint('sacrebleu', 'metrics')}"  # in its own words: metrics import nothing of ours
    with pytest.raises(ValueError, match=f"^{re.escape(hint)}$"):
        self_bleu(["a", "b"], ["p", "p"])
