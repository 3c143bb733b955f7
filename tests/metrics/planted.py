"""Sampled texts in which one thing is wrong, beside good ones: 40 prompts, 6 completions each."""

import numpy as np

PROMPTS = [f"prompt {number // 6}" for number in range(240)]
_WORDS = [f"{first}{second}{third}" for first in "bdfgk" for second in "aeiou" for third in "lmnrt"]


def sentences(kinds: int, length: int = 15, seed: int = 0) -> list[str]:
    """Random words of the first `kinds` words, up to 125."""
    rng = np.random.default_rng(seed)
    return [" ".join(_WORDS[kind] for kind in row) for row in rng.integers(0, kinds, (len(PROMPTS), length))]


def one_a_prompt(kinds: int = 125) -> list[str]:
    """The completions of a prompt are all the same, those of different prompts are not."""
    texts = sentences(kinds)
    return [texts[number - number % 6] for number in range(len(texts))]


def apart(first: dict[str, float], second: dict[str, float], name: str) -> bool:
    """Whether the first measure is above the second by more than their intervals."""
    return first[f"{name}/low"] > second[f"{name}/high"]
