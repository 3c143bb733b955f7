"""The model that is measured: loaded on its device, its tokenizer matched with the words of a task."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_synth import models as _registered  # noqa: F401 - the Auto classes know our own models by it
from hf_synth.sampling.language_models import most_tokens, progress
from hf_synth.tasks import Task
from hf_synth.tasks.base import Rows
from hf_synth.tasks.families.grammars import Grammar
from hf_synth.tokenization import all_words

ResultT = TypeVar("ResultT")


@dataclasses.dataclass(frozen=True)
class Measured:
    """A causal language model, its tokenizer, how many rows it takes at once, and the top_p of what it samples."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int = 128
    top_p: float = 1.0

    @property
    def positions(self) -> int | None:
        """Return the most tokens that a row may have, where there is a limit."""
        return most_tokens(self.model)


def map_over_processes(work: Callable[[int], ResultT], count: int, description: str) -> list[ResultT]:
    """Return work(0) .. work(count - 1): every process does its part, and all of them get all results."""
    state = PartialState()
    numbers = progress(description, range(state.process_index, count, state.num_processes))
    mine = [(number, work(number)) for number in numbers]
    return [result for _, result in sorted(gather_object(mine), key=lambda pair: pair[0])]


def word_ids(measured: Measured, task: Task) -> np.ndarray | None:
    """Return the tokenizer's id of each word of a task, special tokens first, int32 [words]; None if it splits words.

    A tokenizer for text can measure languages only. Raises ValueError, naming words, where one for tasks lacks some.
    """
    vocabulary, known = all_words(task), measured.tokenizer.get_vocab()
    missing = [word for word in vocabulary if word not in known]
    if not missing:
        return np.array([known[word] for word in vocabulary], np.int32)
    if isinstance(task, Grammar):  # a tokenizer for text can write words that are no tokens of its own
        try:
            spelled = measured.tokenizer(missing, add_special_tokens=False)["input_ids"]
        except Exception:  # the class that the `tokenizers` library has for a word that it does not know
            spelled = []
        if [measured.tokenizer.decode(ids).strip() for ids in spelled] == missing:
            return None
    some = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
    raise ValueError(
        f"the tokenizer lacks {len(missing)} of the {len(vocabulary)} words of task {task.name}: {some}; "
        "wanted a model that was trained on this task, with these task_args"
    )


def check_positions(measured: Measured, rows: Rows, name: str) -> None:
    """Raise ValueError where a row is longer than the model's positions."""
    longest, most = int(rows.lengths.max()), measured.positions
    if most is not None and longest > most:
        raise ValueError(
            f"{name}: got rows of {longest} tokens, and a model of {most} positions; wanted shorter rows, or a model "
            "made with more max_position_embeddings"
        )


@dataclasses.dataclass(frozen=True)
class Setting:
    """One config of a task; `length` is the value that sets it apart, None where the config is measured as it is."""

    name: str
    task: Task
    length: int | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """All settings, the seed of their rows, the field that differs, and its value in training where that is known."""

    settings: tuple[Setting, ...]
    rows_seed: int
    length_field: str | None = None
    trained_length: int | None = None

    @property
    def task_name(self) -> str:
        """Return the task of all settings."""
        return self.settings[0].task.name
