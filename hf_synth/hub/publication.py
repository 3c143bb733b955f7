"""What is published: configs with names, splits and rows, each a pure function of its address."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from hf_synth.errors import check_choices
from hf_synth.tasks import Task, get_task, list_tasks, task_class
from hf_synth.tasks.base import SPLITS

if TYPE_CHECKING:  # a config's name is checked without the libraries that make its rows
    import pyarrow as pa
    from datasets import Features

    from hf_synth.hub.corpora import PublishedCorpus

    Published: TypeAlias = "PublishedTask | PublishedCorpus"  # a config of a dataset on the Hub

ROWS = {"train": 100_000, "validation": 10_000, "test": 10_000}
MEASURED_ROWS = 10_000  # of a split, where nothing else is said
_VIEW = "tokens+text+prompt_completion+prompt+floor"
_TRIED_ROWS = 16

Holdout = Literal["auto", "content", "none"]


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the command line says about rows: how many of a split, where that is said; seed, holdout and view."""

    rows: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seed: int = 0
    holdout: Holdout = "auto"
    view: str = ""


Offer = Callable[[Choices], "Published"]


@dataclasses.dataclass(frozen=True)
class Publication:
    """What a script declares. The first config that `offers` names is the one that loads where none is asked for.

    name: of the script, and of its folder under published/. about: one paragraph on top of the card.
    citation: BibTeX of what the tasks come from. columns: what the tasks' own columns hold, in words.
    languages: ISO 639 codes; `zxx` says that there is no language in it.
    """

    name: str
    title: str
    about: str
    offers: Callable[[], Mapping[str, Offer]]
    citation: str = ""
    languages: Sequence[str] = ("zxx",)
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """What the card says of it, as JSON has it: kept in the manifest of each config, whoever makes the card."""
        return json.loads(json.dumps({name: value for name, value in vars(self).items() if name != "offers"}))


@dataclasses.dataclass(frozen=True)
class PublishedTask:
    """A preset of a task: ids, labels, text, prompt, completion, task and floor, or another view; its own columns.

    measured: how many rows of a split the card's facts are measured on. slow: test rows alone have a floor, where it
    takes over 0.6 ms a row. overlap: why splits share rows, where that is meant to be. path: that of the task's
    file, if it is the user's own. firsts: of a split with fewer contents than rows asked for, the number of the first
    row of each content, int64 [contents].
    """

    name: str
    preset: str
    task: Task
    splits: Mapping[str, int]
    seed: int
    measured: int = MEASURED_ROWS
    slow: bool = False
    overlap: str = ""
    view: str = _VIEW
    path: str = ""
    firsts: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def content(self) -> str:
        """The ids, where the view has them; else its text, or its prompt and what comes behind."""
        return "+".join(list(self.features)[: 2 if self.view in ("prompt_completion", "preference") else 1])

    @property
    def group(self) -> str:
        """The task's name."""
        return self.task.name

    @property
    def features(self) -> "Features":
        """Columns of the view, and the task's own."""
        from hf_synth.views import view_features

        return view_features(self.task, self.view)

    def view_of(self, split: str) -> str:
        """The view of a split, without floors where they take too long."""
        return self.view.removesuffix("+floor") if self.slow and split != "test" else self.view

    def table(self, split: str, start: int, count: int) -> "pa.Table":
        """Rows start .. start + count - 1 of a split; null where they have no floor."""
        import pyarrow as pa

        from hf_synth.views import view_table

        made = functools.partial(view_table, self.task, self.view_of(split), split=split, seed=self.seed)
        if split in self.firsts:
            rows = self.firsts[split][start : start + count]
            table = made(int(rows[0]), int(rows[-1] - rows[0]) + 1).take(rows - rows[0])
        else:
            table = made(start, count)
        if self.view_of(split) != self.view:
            table = table.append_column("floor", pa.nulls(count, pa.float32())).select(list(self.features))
        return table

    def spec(self, split: str) -> dict[str, Any]:
        """The cache key of the same rows in a local dataset, with both views."""
        from hf_synth.builder import dataset_spec

        size, name = self.splits[split], self.path or self.task.name
        spec = dataset_spec(name, self.task, split=split, size=size, seed=self.seed, view="tokens")
        once = {"contents": "each once"} if split in self.firsts else {}
        return {**spec, "task": self.task.name, "view": self.view_of(split), **once}

    def facts(self) -> dict[str, Any]:
        """Measured on the rows themselves."""
        from hf_synth.hub.facts import task_facts

        return task_facts(self)


def offered_tasks(
    *names: str, presets: Sequence[str] = (), rows: Mapping[str, int] = ROWS, **more: Any
) -> dict[str, Offer]:
    """The presets of tasks (all of them where none is named) under their names on the Hub, TASK-PRESET.

    Behind each its preference pairs, TASK-PRESET-preference, where some texts are wrong.
    names: of installed tasks, or paths of files; the task of a file cannot have the name of one that is installed.
    rows: of each split, where the command line says nothing else. more: measured, slow, overlap of PublishedTask.
    """
    offers: dict[str, Offer] = {}
    for name in names:
        kind = task_class(name)
        if name.endswith(".py") and kind.name in list_tasks():
            raise ValueError(f"{name}: got the name {kind.name!r}, which an installed task has; wanted another")
        for preset in presets or kind.presets:
            offer = functools.partial(published_task, name, preset, rows, more)
            offers[f"{kind.name}-{preset}"] = functools.partial(offer, "")
            if kind.verifiable:
                offers[f"{kind.name}-{preset}-preference"] = functools.partial(offer, "preference")
    return offers


def published_task(
    name: str, preset: str, rows: Mapping[str, int], more: Mapping[str, Any], view: str, choices: Choices
) -> PublishedTask:
    """A preset of a task, with as many rows as `choices` say, or else `rows`; a finite task has its own sizes.

    A split that has fewer contents has each once.
    """
    asked = {**rows, **choices.rows}
    task = held_out(get_task(name, preset), choices.holdout, asked)
    sizes = {split: task.size(split) for split in SPLITS}
    splits = {split: asked.get(split, 0) if size is None else size for split, size in sizes.items()}
    splits = {split: number for split, number in splits.items() if number}
    known = {split: _firsts(task, split, number, choices.seed) for split, number in splits.items()}
    firsts = {split: first for split, first in known.items() if first is not None}
    splits |= {split: len(rows) for split, rows in firsts.items()}
    more = {**more, "path": name if name.endswith(".py") else "", "firsts": firsts}
    called = f"{task.name}-{preset}"
    if view := choices.view or view:
        from hf_synth.views import VIEW_FEATURES

        check_choices("view", [view], VIEW_FEATURES)
        more["view"], called = view, f"{called}-{view}"
    return PublishedTask(called, preset, task, splits, choices.seed, **more)


def _firsts(task: Task, split: str, number: int, seed: int) -> np.ndarray | None:
    """The first row of each content of a split, int64; None where there are enough contents, or they are unknown.

    A content that a hundred times as many rows do not show is left out.
    """
    contents = None if task.size(split) is not None else task.contents_of(split)
    if contents is None or contents >= number:
        return None
    firsts: dict[int, int] = {}
    block = min(contents + 100, 10_000)
    for start in range(0, 100 * block, block):
        for row, rank in enumerate(task.content_rank(task.rows(start, block, split=split, seed=seed)).tolist(), start):
            firsts.setdefault(rank, row)
        if len(firsts) == contents:
            break
    return np.array(list(firsts.values()))


def held_out(task: Task, holdout: Holdout, splits: Iterable[str]) -> Task:
    """The task with its splits apart by content where `holdout` asks for it.

    "auto": where the task can fill them so; but not where its splits are finite sets that it has laid out itself, and
    not where no text is wrong: there the distribution is all that can be learnt, and taking contents out changes it.
    """
    free, apart = (type(task)(task.config.replace(holdout=kind)) for kind in ("none", "content"))
    if holdout != "auto":
        return apart if holdout == "content" else free
    if not task.verifiable or free.size("train") is not None:
        return free
    try:
        for split in splits:
            apart.rows(0, _TRIED_ROWS, split=split)
    except ValueError:
        return free
    return apart
