"""A knowledge graph in which a functor maps one half to another, and the facts that hold in it, drawn in one go.

A fact is one int64: head (10 bits), first and second label (20 bits each, the second 0 in facts of one label),
tail (10) and kind (3), from high to low. Sorted, the facts of one prompt stand side by side, so that bisection finds
the answers to a prompt, and a fact's prompt, tail and kind are shifts away.
"""

import dataclasses

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, draw, unit
from hf_synth.tasks.base import TaskConfig, bounded

KINDS = (
    "id_atomic",
    "ood_atomic",
    "id_compositional",
    "near_ood_compositional",
    "far_ood_compositional",
    "id_analogical",
    "ood_analogical",
)
_ID_ATOMIC, _OOD_ATOMIC, _ID_COMPOSITIONAL, _NEAR, _FAR, _ID_ANALOGICAL, _OOD_ANALOGICAL = range(len(KINDS))
IN_TRAINING = np.array([kind.startswith("id_") for kind in KINDS])

_MOST_FACTS = 1 << 26  # half a gigabyte of them
_KIND_BITS, _ENTITY_BITS, _LABEL_BITS = 3, 10, 20
_PROMPT = _KIND_BITS + _ENTITY_BITS  # a prompt is what lies above these bits
_ENTITY_MASK, _LABEL_MASK = (1 << _ENTITY_BITS) - 1, (1 << _LABEL_BITS) - 1


@dataclasses.dataclass(frozen=True)
class AnalogyConfig(TaskConfig):
    """`num_entities` entities: E1 and E2 of `sub_size` each, and the rest; `num_relations` relations.

    The ratios say how much of each kind of fact is held out of training: of the atomic facts of E1, of the
    compositions whose hops are both in training (each with that probability), of the functor's facts.
    With `include_f_inverse` the functor's inverse has facts too. With `repeat_relations` a relation may lead from
    one head to several tails, and a prompt have several right answers. Not `mirrored`, a control: E2 has relations of
    its own, none of them E1's, so that nothing tells what the functor's held-out facts are.
    """

    num_entities: int = bounded(10, 2, 1_000)
    num_relations: int = bounded(10_000, 1, 1_000_000)
    sub_size: int = bounded(5, 1, 500)
    atomic_ood_ratio: float = bounded(0.0, 0.0, 1.0)
    compositional_ood_ratio: float = bounded(0.1, 0.0, 1.0)
    analogical_ood_ratio: float = bounded(0.4, 0.0, 1.0)
    include_f_inverse: bool = False
    repeat_relations: bool = False
    graph_seed: int = bounded(0, 0, 2**63 - 1)
    mirrored: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if 2 * self.sub_size > self.num_entities:
            raise self.illegal("sub_size", f"at most half of num_entities={self.num_entities}")
        rest = self.num_entities - 2 * self.sub_size
        facts = 2 * self.sub_size * (self.sub_size - 1) ** 2 + rest * (rest - 1) ** 2
        if facts > _MOST_FACTS:
            raise self.illegal(
                "num_entities",
                f"a graph of at most {_MOST_FACTS:,} facts; with sub_size={self.sub_size} it has {facts:,}",
            )
        most = max(self.sub_size, self.num_entities - 2 * self.sub_size) - 1
        if not self.mirrored:
            if self.atomic_ood_ratio:
                raise self.illegal("atomic_ood_ratio", "0 where E2 does not mirror E1, or mirrored=True")
            if self.num_relations < (fewest := self.sub_size**2):
                raise self.illegal("num_relations", f"at least {fewest}, for two halves that share none")
        if not self.repeat_relations and self.num_relations < most:
            raise self.illegal(
                "num_relations", f"at least {most}, one for each fact of a head, or repeat_relations=True"
            )


@kernel(inline="always")
def prompt_code(head, first, second):  # type: ignore[no-untyped-def]
    """The code of a prompt: an entity and one label (`second` is -1), or two."""
    return (head << (2 * _LABEL_BITS)) | (first << _LABEL_BITS) | (second + 1)


@kernel(inline="always")
def _pack(code, tail, kind):  # type: ignore[no-untyped-def]
    return (code << _PROMPT) | (tail << _KIND_BITS) | kind


@kernel(inline="always")
def unpack(fact):  # type: ignore[no-untyped-def]
    """Head, first label, second label (-1 where there is none) and tail of a fact."""
    prompt = fact >> _PROMPT
    tail = (fact >> _KIND_BITS) & _ENTITY_MASK
    return prompt >> (2 * _LABEL_BITS), (prompt >> _LABEL_BITS) & _LABEL_MASK, (prompt & _LABEL_MASK) - 1, tail


def kinds(facts: np.ndarray) -> np.ndarray:
    """The kind of each fact, an index into KINDS, int64 [facts]."""
    return facts & ((1 << _KIND_BITS) - 1)


def tails(facts: np.ndarray) -> np.ndarray:
    """The last entity of each fact, int64 [facts]."""
    return (facts >> _KIND_BITS) & _ENTITY_MASK


def heads(facts: np.ndarray) -> np.ndarray:
    """The first entity of each fact, int64 [facts]."""
    return facts >> (_PROMPT + 2 * _LABEL_BITS)


def prompts(facts: np.ndarray) -> np.ndarray:
    """The code of each fact's prompt, int64 [facts]."""
    return facts >> _PROMPT


def answer_span(facts: np.ndarray, codes: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Where in sorted facts those of a prompt begin and end, two int64 like `codes`."""
    low = np.asarray(codes, np.int64) << _PROMPT
    return np.searchsorted(facts, low), np.searchsorted(facts, low + (1 << _PROMPT))


def answer_counts(facts: np.ndarray) -> np.ndarray:
    """How many of the sorted facts share each one's prompt, int32 [facts]."""
    first = np.flatnonzero(np.diff(prompts(facts), prepend=-1))
    counts = np.diff(first, append=facts.size)
    return np.repeat(counts, counts).astype(np.int32)


def fact_places(facts: np.ndarray, codes: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """Where in sorted facts those with these prompts and tails stand, int64 like `codes`."""
    return np.searchsorted(facts, (codes << _PROMPT) | (tails.astype(np.int64) << _KIND_BITS))


def holds(facts: np.ndarray, codes: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """Whether sorted facts have one with each prompt and tail, bool."""
    fact = (codes << _ENTITY_BITS) | tails.astype(np.int64)
    return np.asarray(np.searchsorted(facts, fact << _KIND_BITS) < np.searchsorted(facts, (fact + 1) << _KIND_BITS))


@dataclasses.dataclass(frozen=True)
class KnowledgeGraph:
    """Entities 0 .. n - 1 and the facts about them; labels are the relations 0 .. m - 1, then the functor, then its
    inverse.

    first, second: int64 [sub_size], E1 and E2; the functor maps first[i] to second[i].
    facts: int64 [facts], packed, sorted, each once.
    """

    num_entities: int
    first: np.ndarray
    second: np.ndarray
    facts: np.ndarray

    def has_unique_twin(self) -> np.ndarray:
        """Whether exactly one other entity has the same relations leaving it, over training facts; bool [entities]."""
        atomic = self.facts[kinds(self.facts) == _ID_ATOMIC]
        head = heads(atomic)
        leaving = np.full((self.num_entities, self.num_entities), -1, np.int64)
        number = np.arange(head.size) - np.searchsorted(head, head)  # of the head's own facts, by relation
        leaving[head, number] = (prompts(atomic) >> _LABEL_BITS) & _LABEL_MASK
        _, group, size = np.unique(leaving, axis=0, return_inverse=True, return_counts=True)
        return size[group.ravel()] == 2


def build_graph(config: AnalogyConfig) -> KnowledgeGraph:
    """The graph of the config's seed.

    E1, E2 and the rest are complete: each ordered pair of their entities has one relation, uniform among all, or
    (not `repeat`) among those that the head has not used. E2 mirrors E1 except for its held-out facts, which are
    round(ratio * facts); so are the analogical ones, of the functor and of its inverse together. Each composition
    without a held-out hop is near-OOD with its probability.
    """
    keys = RowRandom(seed=config.graph_seed, split="graph", purpose="graph", index=np.arange(5)).keys()
    size = config.sub_size
    order = _chosen(config.num_entities, config.num_entities, keys[0])
    mode = (config.repeat_relations, config.mirrored)
    relations = _relations(config.num_entities, config.num_relations, size, mode, keys[1])
    pairs = size * (size - 1)
    held = _hold_out(relations, size, _chosen(round(config.atomic_ood_ratio * pairs), pairs, keys[2]))
    hops = _hops(order, size, relations, held, (config.compositional_ood_ratio, keys[3]))
    count = size * (2 if config.include_f_inverse else 1)
    unseen = _chosen(round(config.analogical_ood_ratio * count), count, keys[4])
    first, second = order[:size], order[size : 2 * size]
    facts = np.concatenate([hops, _mappings(first, second, config.num_relations, count, unseen)])
    facts.sort()
    if config.repeat_relations:  # a composition by several middles is one fact, far-OOD only if all its paths are
        facts = facts[np.diff(facts >> _KIND_BITS, prepend=-1) != 0]
    return KnowledgeGraph(config.num_entities, first, second, facts)


@kernel
def _chosen(count, size, key):  # type: ignore[no-untyped-def]
    """`count` of the numbers 0 .. size - 1, without repetition, in random order, int64 [count] (Fisher and Yates)."""
    pool = np.arange(size)
    for at in range(count):
        other = at + np.int64(draw(key, at) % np.uint64(size - at))
        pool[at], pool[other] = pool[other], pool[at]
    return pool[:count].copy()


@kernel
def _relations(num_entities, num_relations, sub_size, mode, key):  # type: ignore[no-untyped-def]
    """The relation of each pair of places, int32 [places, places], -1 where none; E2 mirrors E1, or shares none."""
    repeat, mirrored = mode
    out = np.full((num_entities, num_entities), np.int32(-1))
    pool = np.arange(0 if repeat else num_relations)
    of_first = np.zeros(num_relations, np.bool_)  # relations of E1
    drawn = 0
    for start, stop in ((0, sub_size), (sub_size, 2 * sub_size), (2 * sub_size, num_entities)):
        if mirrored and start == sub_size:
            continue
        for head in range(start, stop):
            used = 0
            for tail in range(start, stop):
                if tail == head:
                    continue
                label = np.int64(-1)
                while label < 0 or (start == sub_size and of_first[label]):
                    at = used + np.int64(draw(key, drawn) % np.uint64(num_relations - used))
                    label = at if repeat else pool[at]
                    drawn += 1
                if not repeat:
                    pool[used], pool[at] = pool[at], pool[used]
                    used += 1
                out[head, tail] = label
                if start == 0:
                    of_first[label] = True
                    if mirrored:
                        out[sub_size + head, sub_size + tail] = label
    return out


def _hold_out(relations: np.ndarray, sub_size: int, pairs: np.ndarray) -> np.ndarray:
    """Whether each fact is held out, bool [places, places], of E1's pairs by number; takes them out of the mirror."""
    head, tail = np.divmod(pairs, sub_size - 1)
    tail += tail >= head
    held = np.zeros(relations.shape, bool)
    held[head, tail] = True
    relations[sub_size + head, sub_size + tail] = -1
    return held


@kernel
def _hops(order, sub_size, relations, held, near):  # type: ignore[no-untyped-def]
    """Atomic and compositional facts, packed, not sorted. `order` names the entity at each place: E1, E2, the rest."""
    rest = order.size - 2 * sub_size
    out = np.empty(2 * sub_size * (sub_size - 1) ** 2 + rest * (rest - 1) ** 2, np.int64)
    count = 0
    for start, stop in ((0, sub_size), (sub_size, 2 * sub_size), (2 * sub_size, order.size)):
        for head in range(start, stop):
            for middle in range(start, stop):
                first = relations[head, middle]
                if first < 0:
                    continue
                kind = _OOD_ATOMIC if held[head, middle] else _ID_ATOMIC
                out[count] = _pack(prompt_code(order[head], first, -1), order[middle], kind)
                count += 1
                for tail in range(start, stop):
                    second = relations[middle, tail]
                    if second < 0 or tail == head:
                        continue
                    fact = _pack(prompt_code(order[head], first, second), order[tail], 0)
                    far = held[head, middle] or held[middle, tail]
                    out[count] = fact | (_FAR if far else _composition_kind(fact, near))
                    count += 1
    return out[:count]


@kernel(inline="always")
def _composition_kind(fact, near):  # type: ignore[no-untyped-def]
    """Near-OOD or in training, a matter of the fact alone: all paths to it agree."""
    probability, key = near
    return _NEAR if unit(draw(key, fact)) < probability else _ID_COMPOSITIONAL


def _mappings(first: np.ndarray, second: np.ndarray, functor: int, count: int, unseen: np.ndarray) -> np.ndarray:
    """The functor's facts, and its inverse's where `count` is twice as large; `unseen` numbers those held out."""
    inverse, at = np.divmod(np.arange(count), first.size)
    source, image = np.where(inverse, (second[at], first[at]), (first[at], second[at]))
    facts = _pack(prompt_code(source, functor + inverse, -1), image, _ID_ANALOGICAL)
    facts[unseen] += _OOD_ANALOGICAL - _ID_ANALOGICAL
    return facts
