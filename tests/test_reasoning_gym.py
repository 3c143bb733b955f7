"""Datasets of reasoning-gym as prompts with a reward: splits that never meet, scores that are reasoning-gym's."""

import pytest

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

import reasoning_gym_prompts as adapter

NAMES = ["leg_counting", "chain_sum", "spell_backward", "countdown", "number_sorting"]


@pytest.mark.parametrize("name", NAMES)
def test_splits_never_meet_whatever_the_seed(name):
    parts = [adapter.prompts(name, 100, seed) for seed in (1, 2)]
    by_split = {split: {row["prompt"] for part in parts for row in part[split]} for split in adapter.SPLITS}
    assert sum(map(len, parts[0].values())) == 100
    assert len(set.union(*by_split.values())) == sum(map(len, by_split.values()))
    assert 60 < len(parts[0]["train"]) < 95


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_reasoning_gym(name):
    rows = adapter.prompts(name, 20)["train"]
    made = [adapter.entry(row["item"]) for row in rows]
    asked = {"prompts": [row["prompt"] for row in rows], "item": [row["item"] for row in rows]}
    answers = [entry["answer"] for _, entry in made]
    assert adapter.score(completions=answers, **asked) == [1.0] * len(rows)
    tagged = [[{"role": "assistant", "content": f"So: <answer>{answer}</answer>"}] for answer in answers]
    assert adapter.score(completions=tagged, **asked) == [1.0] * len(rows)
    shifted = [*answers[1:], answers[0]]
    expected = [dataset.score_answer(text, entry) for text, (dataset, entry) in zip(shifted, made, strict=True)]
    assert adapter.score(completions=shifted, **asked) == expected
    assert sum(expected) < len(rows)


def test_what_cannot_be_is_one_line():
    with pytest.raises(ValueError, match="no dataset of reasoning-gym"):
        adapter.prompts("legs", 10)
    with pytest.raises(ValueError, match="config that reasoning-gym refuses"):
        adapter.prompts("leg_counting", 10, no_such_field=1)
    with pytest.raises(ValueError, match="different questions in 5000 draws, wanted 100"):
        adapter.prompts("leg_counting", 100, min_animals=1, max_animals=1, max_instances=1, min_instances=1)
    row = adapter.prompts("leg_counting", 1)["train"] or adapter.prompts("leg_counting", 1)["test"]
    with pytest.raises(ValueError, match="another version of reasoning-gym"):
        adapter.score(["other"], ["1"], [row[0]["item"]])
