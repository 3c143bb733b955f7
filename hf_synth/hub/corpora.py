"""Corpora as configs on the Hub: a language's examples with explanations of its rule among them."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import datasets
import pyarrow as pa

from hf_synth.corpora.arms import FORMS, RATIOS, Arm, corpus_spec
from hf_synth.corpora.streams import FEATURES, UNITS
from hf_synth.hub.facts import said
from hf_synth.hub.publication import ROWS, Choices, Offer, held_out
from hf_synth.tasks import Task, get_task
from hf_synth.tasks.base import words_of

_EXPLAINED = "explanations are the same statements in every split; examples are {}"
_CHOSEN = {"explanation_ratio": "0 to 1", "explanation_form": ", ".join(FORMS), "explanation_unit": ", ".join(UNITS)}

# What one explanation is, where `explanation_form` is "source".
_WHOLE = "An explanation is the whole rule."
_SINGLE = "An explanation is one of {} statements; all come once, in random order, before any comes again."


@dataclasses.dataclass(frozen=True)
class PublishedCorpus:
    """An arm as a config of a dataset on the Hub: columns text and kind."""

    name: str
    task: Task
    explanation_ratio: float
    splits: Mapping[str, int]
    seed: int = 0
    content: ClassVar[str] = "text"
    features: ClassVar[datasets.Features] = FEATURES

    @property
    def group(self) -> str:
        """The task's corpora."""
        return f"{self.task.name} corpora"

    def table(self, split: str, start: int, count: int) -> pa.Table:
        """Documents start .. start + count - 1 of a split."""
        return Arm(self.task, self.explanation_ratio, seed=self.seed, split=split).table(start, count)

    def spec(self, split: str) -> dict[str, Any]:
        """All that a split's documents depend on, as JSON has it."""
        where: dict[str, Any] = {"size": self.splits[split], "split": split, "seed": self.seed}
        return corpus_spec(self.task.name, self.task, self.explanation_ratio, **where)

    def facts(self) -> dict[str, Any]:
        """Without a floor: what follows an explanation is not the generator's to know."""
        apart = self.task.config.holdout == "content"
        examples = _EXPLAINED.format("kept apart by content" if apart else "drawn independently")
        split, number = next(iter(self.splits)), len(self.task.explanations())
        spec = {**self.spec(split), "explanation_ratio": self.explanation_ratio}
        facts = said(self.task, self.seed)
        return {
            **facts,
            "config": {**facts["config"], **{name: spec[name] for name in _CHOSEN}},
            "legal": {**facts["legal"], **_CHOSEN},
            "row": f"{words_of(Arm)} {_WHOLE if number < 2 else _SINGLE.format(number)}",
            "overlap": examples if self.explanation_ratio else "",
            "example": {"split": split, "row": self.table(split, 0, 1).to_pylist()[0]},
        }


def offered_corpora(*names: str, rows: Mapping[str, int] = ROWS) -> dict[str, Offer]:
    """The arms of each task's default preset, from examples alone to explanations alone, under the corpora's names:
    TASK-examples, TASK-explanations-1 and so on. `rows` of a split where the command line says nothing else.
    """
    return {f"{name}-{arm}": functools.partial(published_corpus, name, arm, rows) for name in names for arm in RATIOS}


def published_corpus(name: str, arm: str, rows: Mapping[str, int], choices: Choices) -> PublishedCorpus:
    """One arm of a task, with as many documents as `choices` say, or else `rows`."""
    if choices.view:
        raise ValueError(f"view: got {choices.view!r} for the corpus {name}-{arm}, wanted none: it is text")
    splits = {**rows, **choices.rows}
    task = held_out(get_task(name), choices.holdout, splits)
    return PublishedCorpus(f"{name}-{arm}", task, RATIOS[arm], splits, choices.seed)
