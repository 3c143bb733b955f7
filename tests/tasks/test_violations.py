"""Wrong texts by kind, of every task that discovery finds and of a grammar in a file of a user's own."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hf_synth import load_dataset
from hf_synth.tasks import Task, get_task, list_tasks, task_class
from hf_synth.views import view_table

ROWS = 4_000
NAMES = [name for name in list_tasks() if task_class(name).verifiable]
MY_GRAMMAR = '''
"""As many words RIGHT as words LEFT before them."""

import dataclasses

import numpy as np

from hf_synth.tasks import TaskConfig, Violation
from hf_synth.tasks.base import bounded
from hf_synth.tasks.families.grammars import Grammar, end_chance, framed, random_below, replaced


@dataclasses.dataclass(frozen=True)
class BalanceConfig(TaskConfig):
    most: int = bounded(6, 1, 100)


class Balance(Grammar[BalanceConfig]):
    name = "balance"
    version = 1
    config_class = BalanceConfig
    presets = {"default": BalanceConfig()}
    source = "a test"
    delimiters = ("<b>", "</b>")

    def vocabulary(self):
        return (*self.delimiters, "LEFT", "RIGHT")

    def generate(self, rng):
        left = rng.integers(1, self.config.most + 1, 1)
        words = 6 + (np.arange(2 * self.config.most) >= left)
        return framed(words, 2 * left[:, 0], (4,), (5,))

    def is_sentence(self, words):
        half = len(words) // 2
        return half > 0 and words == ["LEFT"] * half + ["RIGHT"] * half

    def corrupt(self, rows, rng):
        last = rows.lengths - 2
        return replaced(rows, (last, 6))

    def optimal_log_probs(self, rows):
        lefts = np.arange(rows.tokens.shape[1]) - 2
        end = end_chance(lefts, self.config.most)
        half = rows.lengths[:, None] // 2 - 2
        chance = np.where(lefts < half, 1 - end, np.where(lefts == half, end, 1.0))
        return np.log(np.where(rows.loss_mask, chance, 1.0))

    def statements(self):
        return ("LEFT comes first.", "RIGHT comes as often as LEFT.")

    def violations(self):
        return {
            "left_too_late": Violation(lambda rows, rng: replaced(rows, (2, 7)), keeps_length=True),
            "right_too_soon": Violation(self._one_more, keeps_length=True),
            "nothing": Violation(lambda rows, rng: framed(rows.tokens, 0 * rows.lengths, (4,), (5,)), False),
        }

    def _one_more(self, rows, rng):
        return replaced(rows, (rows.lengths // 2 + random_below(rows.lengths // 2 - 2, rng), 6))
'''


@pytest.fixture(scope="module", params=NAMES)
def task(request) -> Task:
    return get_task(request.param)


@pytest.fixture(scope="module")
def labelled(task) -> list[dict]:
    return view_table(task, "labelled", 0, ROWS, split="train", seed=0).to_pylist()


def guessed_by_length(rows: list[dict]) -> float:
    """The balanced accuracy of the best guess from the length, learned on half of the rows and judged on the rest."""
    lengths = np.array([len(row["text"].split()) for row in rows])
    valid = np.array([row["valid"] for row in rows])
    learned = np.arange(len(rows)) % 4 < 2  # valid and invalid rows alternate
    often = [np.bincount(lengths[learned & (valid == kind)], minlength=lengths.max() + 1) for kind in (False, True)]
    guess = often[1][lengths] * often[0].sum() > often[0][lengths] * often[1].sum()
    return float(np.mean([(guess == valid)[~learned & (valid == kind)].mean() for kind in (False, True)]))


def test_length_tells_nothing_about_kinds_that_keep_it(task, labelled):
    kinds = task.violations()
    assert guessed_by_length([row for row in labelled if row["valid"] or kinds[row["violation"]].keeps_length]) < 0.55


def test_length_tells_kinds_that_cannot_keep_it():
    """Which shows that the classifier above finds what there is."""
    rows = view_table(get_task("color_shape"), "labelled", 0, ROWS, split="train", seed=0).to_pylist()
    assert guessed_by_length([row for row in rows if row["violation"] in ("", "odd_length", "too_many_pairs")]) == 1.0


def test_kinds_come_equally_often(task, labelled):
    counts = Counter(row["violation"] for row in labelled if not row["valid"])
    assert set(counts) == set(task.violations())
    assert sum(counts.values()) == ROWS / 2
    if len(counts) > 1:
        assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_wrong_texts_are_many(labelled):
    wrong = [row["text"] for row in labelled if not row["valid"]][:1_000]
    assert len(set(wrong)) > 200


def test_no_wrong_text_is_a_right_one(labelled):
    assert {row["text"] for row in labelled if row["valid"]}.isdisjoint(
        row["text"] for row in labelled if not row["valid"]
    )


# A grammar of a user's own


@pytest.fixture
def my_grammar(tmp_path) -> str:
    path = Path(tmp_path, "my_grammar.py")
    path.write_text(MY_GRAMMAR)
    return str(path)


def test_file_with_a_grammar_has_the_labelled_view(my_grammar):
    rows = load_dataset(my_grammar, split="train", size=ROWS, view="labelled").to_list()
    task = get_task(my_grammar)
    assert [task.verify("", row["text"]) == 1.0 for row in rows] == [row["valid"] for row in rows]
    counts = Counter(row["violation"] for row in rows if row["violation"])
    assert set(counts) == {"left_too_late", "right_too_soon", "nothing"}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4
    assert guessed_by_length([row for row in rows if row["violation"] != "nothing"]) < 0.55


def test_file_with_a_grammar_has_documents_explanations_and_a_floor(my_grammar):
    task = get_task(my_grammar)
    assert task.document("LEFT RIGHT") == "<b> LEFT RIGHT </b>"
    assert task.explanations() == ("LEFT comes first. RIGHT comes as often as LEFT.",)
    losses = -task.optimal_log_probs(task.rows(0, ROWS)).sum(axis=1)
    assert losses == pytest.approx(np.log(6), abs=1e-12)
