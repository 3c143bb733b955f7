"""Near duplicates against the slow definition: exact Jaccard similarity with every text that was kept."""

import subprocess
import sys

import numpy as np
import pytest

from hf_synth.preferences import NearDuplicates, near_duplicates
from hf_synth.preferences.prompts import word_runs

ERROR = 0.16  # four and a half standard errors of 128 hashes at a similarity of 0.8


@pytest.fixture(scope="module")
def texts():
    """New texts of 5 to 60 words, and earlier ones of which some words, or none, are changed."""
    rng = np.random.default_rng(0)
    made: list[str] = []
    for number in range(600):
        if number % 2:
            words = made[rng.integers(number)].split()
            for _ in range(rng.integers(0, 5)):
                words[rng.integers(len(words))] = f"w{rng.integers(2000)}"
        else:
            words = [f"w{word}" for word in rng.integers(2000, size=rng.integers(5, 60))]
        made.append(" ".join(words))
    return made


def test_against_every_pair(texts):
    """Whatever is clearly above the threshold is found, whatever is clearly below is not, whichever was kept."""
    found = near_duplicates(texts, similarity=0.8)
    runs = [set(word_runs(text)) for text in texts]
    kept: list[int] = []
    clear = 0
    for row in range(len(texts)):
        close = {other: len(runs[row] & runs[other]) / len(runs[row] | runs[other]) for other in kept}
        best = max(close.values(), default=0.0)
        if found[row] == row:
            assert best < 0.8 + ERROR
            kept.append(row)
        else:
            assert found[row] in close
            assert close[found[row]] > 0.8 - ERROR
            clear += best >= 0.8 + ERROR
    assert clear > 30
    assert len(kept) > 300


def test_case_punctuation_and_spaces_make_no_difference():
    texts = ["How do I boil an egg?", "how  do I boil\nan EGG", "How do I boil two eggs?", "egg", "EGG!", "", "?!"]
    assert near_duplicates(texts).tolist() == [0, 0, 2, 3, 3, 5, 6]


def test_word_runs():
    assert word_runs("One, two three FOUR.") == ["one two three", "two three four"]
    assert word_runs("Hi there!") == ["hi there"]
    assert word_runs(" ?! ") == ["?!"]


def test_batches_and_one_call_agree(texts):
    index = NearDuplicates(0.7)
    found = [row for start in range(0, len(texts), 7) for row in index.add(texts[start : start + 7])]
    assert found == near_duplicates(iter(texts), similarity=0.7).tolist()


def test_the_threshold_counts(texts):
    kept = [(near_duplicates(texts, similarity=at) == np.arange(len(texts))).sum() for at in (0.3, 0.6, 0.9)]
    assert kept[0] < kept[1] < kept[2]


def test_no_text():
    assert near_duplicates([]).tolist() == []


@pytest.mark.parametrize("value", [0, -0.1, 1.1, float("nan")])
def test_a_similarity_out_of_range(value):
    with pytest.raises(ValueError, match=r"similarity is .* wanted a number above 0 and at most 1"):
        NearDuplicates(value)


@pytest.mark.processes
def test_another_process_finds_the_same(texts):
    """No hash depends on the process, as Python's own does."""
    program = "import sys; from hf_synth.preferences import near_duplicates as f\n"
    program += "print(*f(sys.stdin.read().split('\\n')))"
    done = subprocess.run([sys.executable, "-c", program], input="\n".join(texts), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [int(row) for row in done.stdout.split()] == near_duplicates(texts).tolist()
