"""The contract of a task: what one file under tasks/ says, and what follows from it."""

import dataclasses
import functools
import hashlib
import inspect
import json
import numbers
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np

from hf_synth.errors import check_choices, whole_number
from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, hash_rows, mix, permute

PAD, BOS, EOS, SEP = range(4)
SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<sep>")
FIRST_CONTENT = len(SPECIAL_TOKENS)

SPLITS = ("train", "validation", "test")
_SPLIT_ENDS = {"train": 0.8, "validation": 0.9, "test": 1.0}
_MOST_RANKED_CONTENTS = 1 << 20
_MOST_ATTEMPTS = 10_000
_FOR_READERS_OF_CODE = re.compile(r"[;,] see `?\w+`?(?=\.(?:\s|$))| See `?[\w.]+?`?\.(?=\s|$)")


def bounded(default: Any, low: float, high: float) -> Any:
    """A config field with a default and an inclusive range."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def choice(default: str, *others: str) -> Any:
    """A config field that takes one of a few words; the first is the default."""
    return dataclasses.field(default=default, metadata={"choices": (default, *others)})


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """The parameters of a task; validates itself. Subclasses add fields made by `bounded` and `choice`.

    A field whose default is a tuple takes any sequence of numbers and keeps them as floats.
    """

    holdout: str = choice("none", "content")

    def __post_init__(self) -> None:
        """Raise ValueError, naming field, value and range, unless every field is legal."""
        for field in dataclasses.fields(self):
            if type(field.default) is int and isinstance(getattr(self, field.name), np.integer):
                object.__setattr__(self, field.name, int(getattr(self, field.name)))
            self._check(field)
            if type(field.default) is float:  # 1 and 1.0 are one config, with one JSON
                object.__setattr__(self, field.name, float(getattr(self, field.name)))

    def illegal(self, name: str, wanted: str) -> ValueError:
        """The error for a field whose value does not go with the others: what was got, and `wanted`."""
        return ValueError(f"{type(self).__name__}.{name}: got {getattr(self, name)!r}, wanted {wanted}")

    def _check(self, field: dataclasses.Field) -> None:
        if isinstance(field.default, tuple):
            object.__setattr__(self, field.name, self._floats(field.name))
            return
        value, where = getattr(self, field.name), f"{type(self).__name__}.{field.name}"
        if choices := field.metadata.get("choices"):
            check_choices(where, [value], choices)
            return
        kind = type(field.default)
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{where}: got {value!r} ({type(value).__name__}), wanted {kind.__name__}")
        if (bounds := field.metadata.get("range")) and not bounds[0] <= value <= bounds[1]:
            raise ValueError(f"{where}: got {value}, wanted a value from {bounds[0]} to {bounds[1]}")

    def _floats(self, name: str) -> tuple[float, ...]:
        values = getattr(self, name)
        if not isinstance(values, (list, tuple)) or not all(
            isinstance(value, numbers.Real) and not isinstance(value, bool) for value in values
        ):
            raise self.illegal(name, "a list of numbers")
        return tuple(map(float, values))

    def replace(self, /, **changes: Any) -> "TaskConfig":
        """A copy with other values; an unknown name is an error that names the nearest field."""
        known = [field.name for field in dataclasses.fields(self)]
        check_choices(type(self).__name__, list(changes), known, "unknown field ")
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """The one canonical form: every field, sorted, defaults included."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


@dataclasses.dataclass
class Rows:
    """A block of rows: token ids and the positions that carry loss.

    tokens: int32 [rows, width], right-padded with `<pad>`, each row starting with `<bos>`.
    lengths: int32 [rows]. loss_start, loss_stop: int32 [rows], the half-open span of tokens that carry loss.
    columns: further named arrays [rows].
    """

    tokens: np.ndarray
    lengths: np.ndarray
    loss_start: np.ndarray
    loss_stop: np.ndarray
    columns: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def transduction(cls, *parts: np.ndarray, counts: Sequence[np.ndarray | None] | None = None) -> "Rows":
        """`<bos> part <sep> ... part <eos>` from blocks int32 [rows, any]; loss on the last part and `<eos>`.

        `counts`: for each part how many of its tokens each row has, int [rows], or None where a row has them all.
        """
        rows = parts[0].shape[0]
        part_counts = counts if counts is not None else [None] * len(parts)
        sizes = [
            np.full(rows, part.shape[1], np.int32) if count is None else count.astype(np.int32, copy=False)
            for part, count in zip(parts, part_counts, strict=True)
        ]
        start = 1 + sum(size + 1 for size in sizes[:-1]) + np.zeros(rows, np.int32)
        stop = (start + sizes[-1] + 1).astype(np.int32)
        tokens = np.zeros((rows, int(stop.max(initial=0))), np.int32)
        tokens[:, :1] = BOS
        at = np.ones(rows, np.int32)
        for number, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            _place(tokens, at, part, size, EOS if number == len(parts) - 1 else SEP)
        return cls(tokens, stop, start.astype(np.int32), stop.copy())

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def loss_mask(self) -> np.ndarray:
        """True where a token carries loss, bool [rows, width]."""
        position = np.arange(self.tokens.shape[1])
        return (position >= self.loss_start[:, None]) & (position < self.loss_stop[:, None])

    def select(self, index: np.ndarray) -> "Rows":
        """The rows at `index` (positions or a mask), as copies."""
        columns = {name: column[index] for name, column in self.columns.items()}
        return Rows(self.tokens[index], self.lengths[index], self.loss_start[index], self.loss_stop[index], columns)

    def copy(self) -> "Rows":
        """Rows that share no array with these."""
        return self.select(np.arange(len(self)))

    def changed(self, kernel: Callable[..., Any], *arguments: Any) -> "Rows":
        """A copy, its tokens changed in place by `kernel(tokens, lengths, loss_start, *arguments)`."""
        rows = self.copy()
        kernel(rows.tokens, rows.lengths, rows.loss_start, *arguments)
        return rows

    def have(self, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Whether the token at each of `positions`, int [rows, positions], is this one, bool like `tokens`."""
        return np.asarray(tokens == np.take_along_axis(self.tokens, positions, axis=1)[:, :, None])

    def by_span(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield, for each loss span, which rows have it, and its positions, both int64."""
        spans, numbers = np.unique(np.stack([self.loss_start, self.loss_stop]), axis=1, return_inverse=True)
        for number, (start, stop) in enumerate(spans.T):
            yield np.flatnonzero(numbers == number), np.arange(start, stop)

    def assign(self, index: np.ndarray, other: "Rows") -> None:
        """Overwrite the rows at `index` with those of `other`, widening the block where they are longer."""
        extra = other.tokens.shape[1] - self.tokens.shape[1]
        if extra > 0:
            self.tokens = np.pad(self.tokens, ((0, 0), (0, extra)), constant_values=PAD)
        self.tokens[index] = PAD
        self.tokens[index, : other.tokens.shape[1]] = other.tokens
        for name in ("lengths", "loss_start", "loss_stop"):
            getattr(self, name)[index] = getattr(other, name)
        for name, column in other.columns.items():
            self.columns[name][index] = column


@kernel
def _place(tokens, at, part, sizes, end):  # type: ignore[no-untyped-def]
    """Write the first `sizes` tokens of each row of `part`, and `end`, from `at` on, which moves behind them."""
    for row in range(tokens.shape[0]):
        first, size = at[row], sizes[row]
        for column in range(size):
            tokens[row, first + column] = part[row, column]
        tokens[row, first + size] = end
        at[row] = first + size + 1


class UnknownIdsError(ValueError):
    """Rows with token ids that no word has: `rows`, and which of them are `wrong`, bool [rows]."""

    def __init__(self, message: str, rows: Rows, wrong: np.ndarray) -> None:
        super().__init__(message)
        self.rows, self.wrong = rows, wrong


class NoDistributionError(ValueError):
    """A task that says how likely its rows' own tokens are, and not how likely others would be."""


class DecisionPoint(NamedTuple):
    """A place in a language where some next tokens are right and others are wrong."""

    name: str
    prefix: str
    valid: tuple[str, ...]
    invalid: tuple[str, ...]


class Violation(NamedTuple):
    """A kind of invalid text: how to make it from valid rows, and whether it keeps each row's length."""

    make: Callable[[Rows, RowRandom], Rows]
    keeps_length: bool = True


def shuffled(index: np.ndarray, size: int, address: str) -> np.ndarray:
    """The numbers 0 .. size - 1 in an order that `address` and the pass (index // size) choose, int64 like `index`."""
    passes, positions = np.divmod(index.astype(np.int64), size)
    out = np.empty_like(positions)
    for number in np.unique(passes):
        key = hashlib.blake2b(f"{address}\0{number}".encode(), digest_size=8).digest()
        inside = passes == number
        out[inside] = permute(positions[inside], size, np.uint64(int.from_bytes(key, "little")))
    return out


ConfigT = TypeVar("ConfigT", bound=TaskConfig)


class Task(ABC, Generic[ConfigT]):
    """A task: what a row is, which completions are right, and how well a row can be predicted at best.

    A subclass names itself and writes the abstract methods; datasets, tokenizer, rewards and floor follow.
    `hf-synth check` holds it to what they promise. For a language, families/grammars.py has a base that verifies and
    explains: Grammar.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    config_class: ClassVar[type[TaskConfig]]
    presets: ClassVar[dict[str, TaskConfig]]
    source: ClassVar[str]
    verifiable: ClassVar[bool] = True
    columns: ClassVar[Mapping[str, str]] = {}  # what `Rows.columns` holds, by dtype; datasets carry them in every view

    def __init__(self, config: ConfigT | None = None) -> None:
        """`config`: an instance of `config_class`; the first preset where it is None."""
        chosen = config if config is not None else next(iter(self.presets.values()))
        if not isinstance(chosen, self.config_class):
            wanted = self.config_class.__name__
            raise ValueError(f"task {self.name}: got a {type(chosen).__name__} as config, wanted a {wanted}")
        self.config: ConfigT = chosen  # type: ignore[assignment]

    @abstractmethod
    def vocabulary(self) -> tuple[str, ...]:
        """Content tokens in id order; the first has id 4."""

    @abstractmethod
    def generate(self, rng: RowRandom) -> Rows:
        """`rng.rows` valid rows; nothing but `rng` is random. Raise `version` whenever its output changes.

        Of a finite task `rng.index` are numbers below `size(rng.split)`, each once in a pass, in an order of its own.
        """

    @abstractmethod
    def verify(self, prompt: str, completion: str) -> float:
        """1.0 if `completion` is right after `prompt`, else 0.0. Malformed text is 0.0 and never raises.

        A right completion with words appended, dropped or doubled is 0.0, as is the empty one: what ends too early
        or goes on is wrong, even where it is the beginning of something right.
        """

    @abstractmethod
    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Plausible and wrong rows: the loss-bearing content changed, at the same length, with the same tokens
        where that is possible, and all that stands before `loss_start` untouched.
        """

    def optimal_probs(self, rows: Rows, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """P(token | all before its position) of the best predictor, exact, float64 like `tokens`.

        positions: int [rows, positions]; tokens: ids [rows, positions, any]. A task writes this or, where each token
        that carries loss is determined by those before it, `optimal_log_probs` alone. What it says of a position
        without loss, or of rows that `generate` cannot make, is not defined.
        """
        if np.take_along_axis(self.optimal_log_probs(rows), positions, axis=1).any():
            raise NoDistributionError(
                f"task {self.name}: got no distribution of the next token, wanted a method optimal_probs; "
                "optimal_log_probs alone suffices where it is 0 everywhere"
            )
        return rows.have(positions, tokens).astype(np.float64)

    def optimal_log_probs(self, rows: Rows) -> np.ndarray:
        """Ln P(token | all before it) of the best predictor, exact, float64 [rows, width]; 0 where no loss is.

        What `optimal_probs` says of the rows' own tokens. The predictor knows the generator and the config, not which
        contents `holdout="content"` gives to a split: that could save ln(1/share) nats a row.
        """
        out, mask = np.zeros(rows.tokens.shape), rows.loss_mask
        span = slice(int(rows.loss_start.min(initial=mask.shape[1])), int(rows.loss_stop.max(initial=0)))
        positions = np.broadcast_to(np.arange(mask.shape[1]), mask.shape)[:, span]
        probs = self.optimal_probs(rows, positions, rows.tokens[:, span, None])[:, :, 0]
        np.log(probs, out=out[:, span], where=mask[:, span])
        return out

    def optimal_distribution(self, rows: Rows, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return P(id | all before it) of the best predictor for every id, float64 [rows, positions, ids].

        positions: int [positions], or [rows, positions] where they differ from row to row; of tokens that carry loss,
        others are a ValueError. ids: those of the rows, special tokens first. Probabilities, not their logarithms:
        what cannot follow has exactly 0, and the row's own token exp(optimal_log_probs).
        """
        at: np.ndarray = np.asarray(positions)
        shape: tuple[int, ...] = at.shape
        if shape not in (shape[-1:], (len(rows), *shape[-1:])) or not shape or at.dtype.kind not in "iu":
            wanted = f"whole numbers, [positions] or [{len(rows)}, positions]"
            raise ValueError(f"task {self.name}: got positions {at.dtype} {list(shape)}, wanted {wanted}")
        at = np.broadcast_to(at.astype(np.int64), (len(rows), shape[-1]))
        outside = (at < rows.loss_start[:, None]) | (at >= rows.loss_stop[:, None])
        for row, column in np.argwhere(outside)[:1]:
            wanted = f"{rows.loss_start[row]} to {rows.loss_stop[row] - 1}"
            got = f"got position {at[row, column]} of row {row}, which carries no loss"
            raise ValueError(f"task {self.name}: {got}; wanted {wanted}")
        ids = np.arange(self._known_ids, dtype=np.int32)
        return self.optimal_probs(rows, at, np.broadcast_to(ids, (*at.shape, ids.size)))

    def to_json(self) -> str:
        """What a dataset's column `task` says of a row: the name and the whole config; `task_from_json` reads it."""
        return json.dumps({"name": self.name, "config": dataclasses.asdict(self.config)}, sort_keys=True)

    def explanations(self) -> tuple[str, ...]:
        """The rule in words, each a document of a corpus: single statements or one block, as in the source."""
        return ()

    def statements(self) -> tuple[str, ...]:
        """The rule in single statements, each able to stand alone; joined by spaces they are its other form, a block.

        `explanations()` where a task has no others.
        """
        return self.explanations()

    def document(self, text: str) -> str:
        """`text` between the delimiters that the language puts around an example, if it has any."""
        return text

    def violations(self) -> Mapping[str, Violation]:
        """Named kinds of invalid text."""
        return {"corrupted": Violation(self.corrupt)}

    def decision_points(self) -> tuple[DecisionPoint, ...]:
        """Prefixes after which only some tokens are right."""
        return ()

    def content_hash(self, rows: Rows) -> np.ndarray:
        """A hash of what `holdout="content"` keeps apart, uint64 [rows]: the row, unless a part determines it."""
        return hash_rows(rows.tokens, rows.lengths)

    def trees(self, rng: RowRandom) -> list[str]:
        """The derivation of each row that `generate` makes of the same `rng`, drawn in text; where rows have one."""
        raise ValueError(f"task {self.name}: its rows have no tree; those of rlm and dyck have")

    def size(self, split: str) -> int | None:
        """How many rows a finite task has in `split`; None where rows never end."""
        return None

    def contents(self) -> int | None:
        """The number of distinct contents, where it can be counted."""
        return None

    def content_rank(self, rows: Rows) -> np.ndarray:
        """The number of each row's content, int64 [rows] in 0 .. contents() - 1; for tasks that count them."""
        raise ValueError(f"task {self.name}: contents are not ranked; wanted contents() to be None")

    def rows(self, start: int, count: int, *, split: str = "train", seed: int = 0) -> Rows:
        """Rows start .. start + count - 1 of a split: a pure function of (task, config, version, seed, split, row)."""
        rng = self.row_random(start, count, split=split, seed=seed)
        rows = self.sound(self.generate(rng), count, "generate")
        if self.config.holdout == "content":
            self._redraw_foreign(rows, rng.index, split, rng.seed)
        return rows

    def sound(self, rows: Rows, count: int, method: str) -> Rows:
        """The same rows; ValueError, naming the method that made them, unless they are `count` rows of known ids."""
        where = f"task {self.name}: {method}"
        if not isinstance(rows, Rows):
            raise ValueError(f"{where}: got a {type(rows).__name__}, wanted Rows")
        for name in ("tokens", "lengths", "loss_start", "loss_stop"):
            array = getattr(rows, name)
            if not isinstance(array, np.ndarray) or array.dtype != np.int32:
                kind = getattr(array, "dtype", type(array).__name__)
                raise ValueError(f"{where}: got an array of {kind} as {name}, wanted an array of int32")
            if array.ndim != 1 + (name == "tokens") or len(array) != count:
                wanted = f"[{count}, any]" if name == "tokens" else f"[{count}]"
                raise ValueError(f"{where}: got {name} of shape {list(array.shape)}, wanted {wanted}: {count} rows")
        for name in self.columns:
            if name not in rows.columns or len(rows.columns[name]) != count:
                raise ValueError(f"{where}: got no column {name} of {count} rows, wanted what `columns` says")
        if rows.tokens.view(np.uint32).max(initial=0) >= self._known_ids:  # as unsigned, negative ids are large
            wrong = np.any((rows.tokens < 0) | (rows.tokens >= self._known_ids), axis=1, keepdims=True)[:, 0]
            ids = f"got token id {rows.tokens[wrong].max()}, wanted 0 to {self._known_ids - 1}"
            raise UnknownIdsError(f"{where}: {ids}: token ids beyond the vocabulary", rows, wrong)
        return rows

    @functools.cached_property
    def _known_ids(self) -> int:
        return FIRST_CONTENT + len(self.vocabulary())

    def row_random(self, start: int, count: int, *, split: str = "train", seed: int = 0) -> RowRandom:
        """What `generate` makes these rows of; a finite task's numbers come in the order of their pass."""
        check_choices(f"task {self.name}", [split], SPLITS, "split ")
        start, count, seed = (
            whole_number(name, value) for name, value in (("start", start), ("count", count), ("seed", seed))
        )
        if start < 0 or count < 0 or start + count > 2**63:
            raise ValueError(
                f"task {self.name}: got start={start}, count={count}, wanted both at least 0, and rows below 2**63"
            )
        index = np.arange(start, start + count, dtype=np.uint64)
        if (size := self.size(split)) is not None:
            index = shuffled(index, size, f"{seed}\0{split}")
        return RowRandom(seed=seed, split=split, purpose="generate", index=index)

    def split_of(self, rows: Rows) -> np.ndarray:
        """The split that `holdout="content"` gives each row's content, an index into SPLITS, int64 [rows]."""
        if self._content_position is not None:
            share = (self._content_position[self.content_rank(rows)] + 0.5) / self._content_position.size
        else:
            share = self.content_hash(rows) / 2.0**64
        return np.searchsorted([_SPLIT_ENDS[split] for split in SPLITS[:-1]], share, side="right")

    def contents_of(self, split: str) -> int | None:
        """How many distinct contents a split can have; None where they are not counted."""
        if self.config.holdout == "none" or self._content_position is None:
            return self.contents() if self.config.holdout == "none" else None
        shares = (np.arange(self._content_position.size) + 0.5) / self._content_position.size
        ends = [_SPLIT_ENDS[name] for name in SPLITS[:-1]]
        return int((np.searchsorted(ends, shares, side="right") == SPLITS.index(split)).sum())

    @functools.cached_property
    def _content_position(self) -> np.ndarray | None:
        """Where contents are few: the place of each rank in a fixed shuffle, so that the fractions are exact."""
        contents = self.contents()
        if contents is None or contents > _MOST_RANKED_CONTENTS:
            return None
        order = np.argsort(mix(np.arange(1, contents + 1, dtype=np.uint64)), kind="stable")
        return np.argsort(order)

    def _redraw_foreign(self, rows: Rows, index: np.ndarray, split: str, seed: int) -> None:
        """Replace rows whose content belongs to another split by further draws, each at an address of its own."""
        wanted = SPLITS.index(split)
        if self.contents_of(split) == 0:
            raise ValueError(
                f'task {self.name}: holdout="content" leaves the {split} split empty: got {self.contents()} '
                'distinct contents, wanted at least 10; widen the config, or use holdout="none"'
            )
        pending = np.flatnonzero(self.split_of(rows) != wanted)
        for attempt in range(1, _MOST_ATTEMPTS):
            if not pending.size:
                return
            purpose = f"generate again {attempt}"
            again = RowRandom(seed=seed, split=split, purpose=purpose, index=index[pending])
            drawn = self.sound(self.generate(again), again.rows, "generate")
            rows.assign(pending, drawn)
            pending = pending[self.split_of(drawn) != wanted]
        raise ValueError(
            f"task {self.name}: {pending.size} rows of the {split} split were not found in {_MOST_ATTEMPTS} draws "
            'each; this config has too few distinct contents for holdout="content"'
        )


def is_language(task: Task, rows: Rows) -> bool:
    """Return whether whole rows carry loss and some texts are wrong: then strings can be sampled and judged."""
    return task.verifiable and bool((rows.loss_start == 1).all())


def about(task: Task | type[Task]) -> str:
    """The first line of the file of a task."""
    kind = task if isinstance(task, type) else type(task)
    return (inspect.getdoc(sys.modules[kind.__module__]) or task.name).strip().splitlines()[0]


def words_of(documented: type) -> str:
    """The first paragraph of a class's docstring, on one line and without what it tells readers of code to see."""
    first = (inspect.getdoc(documented) or "").split("\n\n")[0].split(">>>")[0]
    return _FOR_READERS_OF_CODE.sub("", " ".join(first.split()))
