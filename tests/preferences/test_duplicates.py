"""Near duplicates against the slow definition: Jaccard similarity with every text that was kept."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_synth.preferences.duplicates import NearDuplicates, _parts, near_duplicates


def word(number):
    """A word of letters: numbers must be the same."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


@pytest.fixture(scope="module")
def texts():
    """New texts of 5 to 60 words, and earlier ones of which some words, or none, are changed."""
    rng = np.random.default_rng(0)
    made: list[str] = []
    for number in range(600):
        if number % 2:
            words = made[rng.integers(number)].split()
            for _ in range(rng.integers(0, 5)):
                words[rng.integers(len(words))] = word(rng.integers(2000))
        else:
            words = [word(number) for number in rng.integers(2000, size=rng.integers(5, 60))]
        made.append(" ".join(words))
    return made


def runs(text):
    words = text.split()
    return set(zip(words, words[1:], words[2:], strict=False))


@pytest.mark.parametrize("similarity", [0.3, 0.8, 1.0])
def test_against_every_pair(texts, similarity):
    """The search is exact: the first kept text that is similar enough, and how similar it is."""
    index = NearDuplicates(similarity)
    result = index.add(texts)
    kept: list[int] = []
    for row in range(len(texts)):
        of_row = runs(texts[row])
        close = {other: len(of_row & runs(texts[other])) / len(of_row | runs(texts[other])) for other in kept}
        first = next((other for other in kept if close[other] >= similarity), row)
        assert result[row] == first
        if first == row:
            kept.append(row)
            assert row not in index.similarities
        else:
            assert index.similarities[row] == close[first]
    assert 300 < len(kept) < 570


def test_case_punctuation_and_spaces_make_no_difference():
    texts = ["How do I boil an egg?", "how  do I boil\nan EGG", "How do I boil two eggs?", "egg", "EGG!", "", "?!"]
    assert near_duplicates(texts).tolist() == [0, 0, 2, 3, 3, 5, 6]
    long = "How do I boil an egg in a pan of water on the stove?"
    assert near_duplicates([long, long.upper() + " Please.", f"\u201c{long}\u201d"]).tolist() == [0, 0, 0]


CONTEXT = " ".join(f"Rule {i} of the house forbids thing {i} to everybody who lives there." for i in range(30))
QUESTIONS = ("What is 2 plus 2?", "Who wrote Hamlet?", "Is water wet?", "Summarize.", "Translate.", "Why?")
SENTENCE = "In a village of {} houses each of which has a garden with two old trees and a small pond there live people"


@pytest.mark.parametrize(
    "texts",
    [
        [f"What is 12 {sign} 7?" for sign in "+-*/^%"],
        [f"{SENTENCE.format(9)}: what is 12 {sign} 7 there, if every one of them counts?" for sign in "+-*<>="],
        [SENTENCE.format(number) for number in ("nine", "9", "10", "9.5", "\u0669", "9!")],
        [f"Write a hello world program in {name}" for name in ("C", "C++", "C#", "F#", ".NET", "NET")],
        [f"What does x{part} mean in this language?" for part in ("[0]", "(0)", "{0}", "->0", "@0", "&0", "'0'")],
        ["What is 5!", "What is 5?", "What is .5?", "Simplify 3:4", "Simplify 3;4", "Simplify 34"],
        [
            "\u092f\u0939 \u0926\u093f\u0928 \u0915\u0948\u0938\u093e \u0939\u0948",
            "\u092f\u0939 \u0926\u0940\u0928 \u0915\u0948\u0938\u093e \u0939\u0948",
        ],  # day, poor
        ["\u0b95\u0bb2\u0bc8", "\u0b95\u0bb2\u0bbf", "\u0b95\u0bb2\u0bbe"],
        ["\u0e21\u0e32", "\u0e21\u0e35", "\u0e21\u0e37\u0e2d", "\u0e21\u0e36"],
        ["\u1780\u17b6\u179a", "\u1780\u17b7\u179a", "\u0f40\u0f72", "\u0f40\u0f74", "\u05e9\u05b8", "\u05e9\u05b4"],
        ["\U0001f600 or \U0001f622?", "\U0001f622 or \U0001f600?", "\U0001f600 or \U0001f621?"],
        [f"system: {CONTEXT}\n\nuser: {question}" for question in QUESTIONS],
        [f"{CONTEXT} {question}" for question in QUESTIONS],
        [f"{question} Answer by this context: {CONTEXT}" for question in QUESTIONS],
        [f"{CONTEXT}\n{question}\nAnswer in one sentence of at most twenty words." for question in QUESTIONS],
        [f"system: {CONTEXT}\n\nuser: {a}\n\nassistant: Yes.\n\nuser: {b}" for a in QUESTIONS for b in QUESTIONS],
        [
            "def f(x):\n    a(x)\n    return b(x)",
            "def f(x):\n    a(x)\nreturn b(x)",
            "def f(x):\n\ta(x)\n\treturn b(x)",
        ],
        [
            f"I gather recipes of dishes. Can you give me one for {dish}?"
            for dish in ("Kubdari", "Okroshka", "Opor Ayam")
        ],
    ],
)
def test_other_prompts_stay(texts):
    assert near_duplicates(texts).tolist() == list(range(len(texts)))


def test_one_character_in_a_script_without_spaces():
    chinese = (
        "请写一篇关于人工智能在医疗领域应用的文章\uff0c要求不少于八百字\uff0c并举出三个具体的例子来说明你的观点。"
    )
    index = NearDuplicates()
    assert index.add([chinese, chinese.replace("\u4e09", "\u4e24"), chinese[:25]]) == [0, 0, 2]
    assert index.similarities == {1: pytest.approx(40 / 46)}  # of 43 runs each, three differ
    thai = "กรุณาเขียนบทความเกี่ยวกับปัญญาประดิษฐ์ในทางการแพทย์"
    assert near_duplicates([thai, thai.replace("บท", "บธ")]).tolist() == [0, 0]


@given(st.text(alphabet='aB1_ .,;:!?-+"()\t\n', max_size=40))
def test_ascii_is_taken_apart_as_other_text_is(text):
    """The faster expressions are those of Unicode: a letter beyond ASCII, in a line of its own, changes nothing."""
    ascii_only, other = _parts(text), _parts(f"{text}\n\u4e2d\u6587\u5b57")
    if ascii_only.runs != (frozenset([text.strip()]),):
        assert other.runs[: len(ascii_only.runs)] == ascii_only.runs


def test_a_shared_context_costs_no_time():
    """Of thousands of questions under one system prompt, none is compared with all others."""
    texts = [
        f"system: {CONTEXT}\n\nuser: word{n} word{n + 1} word{n + 2} word{n * 7} and what else?" for n in range(2000)
    ]
    index = NearDuplicates()
    assert index.add(texts) == list(range(2000))
    assert max(map(len, index._rows_with.values())) < 50


def test_batches_and_one_call_agree(texts):
    index = NearDuplicates(0.7)
    result = [row for start in range(0, len(texts), 7) for row in index.add(texts[start : start + 7])]
    assert result == near_duplicates(iter(texts), similarity=0.7).tolist()


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
    program = "import sys; from hf_synth.preferences.duplicates import near_duplicates as f\n"
    program += "print(*f(sys.stdin.read().split('\\n')))"
    done = subprocess.run([sys.executable, "-c", program], input="\n".join(texts), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [int(row) for row in done.stdout.split()] == near_duplicates(texts).tolist()
