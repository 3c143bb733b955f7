"""Analogy: facts of a graph and of a functor, a map between its halves."""

import functools
import itertools

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, draw
from hf_synth.tasks.base import BOS, FIRST_CONTENT, PAD, SPLITS, Rows, Task
from hf_synth.tasks.families.knowledge_graph import (
    IN_TRAINING,
    KINDS,
    AnalogyConfig,
    KnowledgeGraph,
    answer_counts,
    answer_span,
    build_graph,
    fact_places,
    heads,
    holds,
    kinds,
    prompt_code,
    tails,
    unpack,
)

_TRAIN, _VALIDATION, _TEST = range(len(SPLITS))
_WIDTH = 5  # <bos> h r1 r2 t
_NAMES = np.array(KINDS, object)


class Analogy(Task[AnalogyConfig]):
    """`<bos> <e_3> <r_7> <e_1>`, `<bos> <e_3> <r_7> <r_2> <e_8>`, `<bos> <e_3> <f> <e_5>`; loss on the last token.

    A finite task: each pass over a split holds every one of its facts once. `train` has the `id_` facts;
    `validation` and `test` have all facts of the graph, as in the paper. With `holdout="content"` they have what
    is not in train, shared out kind by kind: every second fact of a kind's random order goes to `test`.

    The best predictor knows the graph, held-out facts too: its loss is 0 unless relations repeat, where it is the
    logarithm of `answers`. Which held-out facts can be inferred from training is for `follows_from_training` to say.

    >>> task = Analogy()
    >>> entity, image = (task.vocabulary()[token - 4] for token in task.functor()[0])
    >>> task.verify(f"{entity} <f>", image)
    1.0
    """

    name = "analogy"
    version = 1
    config_class = AnalogyConfig
    presets = {
        "e10": AnalogyConfig(),
        "e10-inverse": AnalogyConfig(include_f_inverse=True),
        "e10-atomic-ood": AnalogyConfig(atomic_ood_ratio=0.2),
        "e100": AnalogyConfig(num_entities=100, sub_size=50),
        "e200": AnalogyConfig(num_entities=200, sub_size=100),
    }
    source = "Emergent analogical reasoning in Transformers, arXiv 2602.01992"
    # fact_type: one of KINDS. functor_image: what the functor maps the row's first entity to, "" where that is not in
    # E1. answers: how many facts of the row's split share its prompt.
    columns = {"fact_type": "string", "functor_image": "string", "answers": "int32"}

    def vocabulary(self) -> tuple[str, ...]:
        """All entities, all relations (drawn or not: the vocabulary is that of the config), `<f>` and `<f_inv>`."""
        return self._words

    def generate(self, rng: RowRandom) -> Rows:
        """The facts of the split that `rng.index` numbers."""
        facts, answers = (values[rng.index.astype(np.int64)] for values in self._splits[SPLITS.index(rng.split)])
        tokens, lengths = _tokens(facts, self.config.num_entities)
        columns = {"fact_type": _NAMES[kinds(facts)], "functor_image": self._images[heads(facts)], "answers": answers}
        return Rows(tokens, lengths, lengths - 1, lengths.copy(), columns)

    def verify(self, prompt: str, completion: str) -> float:
        """Whether the completion is one entity, and the prompt followed by it a fact of the graph, held out or not."""
        words = completion.split()
        return float(len(words) == 1 and words[0] in self.answers(prompt))

    def answers(self, prompt: str) -> tuple[str, ...]:
        """The right answers to `h r`, `h r1 r2` or `e <f>` in the whole graph; none where that is no prompt."""
        entities = self.config.num_entities
        head, *labels = [self._numbers.get(word, -1) for word in prompt.split()] or [-1]
        if not 0 <= head < entities or len(labels) not in (1, 2) or min(labels) < entities:
            return ()
        first, second = (*labels, entities - 1)[:2]
        begin, end = answer_span(self.graph.facts, prompt_code(head, first - entities, second - entities))
        return tuple(self._words[tail] for tail in tails(self.graph.facts[begin:end]))

    def corrupt(self, rows: Rows, rng: RowRandom) -> Rows:
        """Any entity that is not a right answer as the last token."""
        wrong = rows.copy()
        codes = _codes(rows.tokens, rows.lengths, self.config.num_entities)
        begin, end = answer_span(self.graph.facts, codes)
        at = (np.arange(len(rows)), rows.lengths - 1)
        wrong.tokens[at] = _wrong_tails(self.graph.facts, begin, end, self.config.num_entities, rng.keys())
        return wrong

    def optimal_probs(self, rows: Rows, positions: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """1 / `answers` for each answer that the row's split has: every fact of a split comes once in a pass."""
        out = rows.have(positions, tokens).astype(np.float64)
        if not self.config.repeat_relations:
            return out
        codes, answers = _codes(rows.tokens, rows.lengths, self.config.num_entities), rows.columns["answers"]
        label = rows.tokens[np.arange(len(rows)), rows.lengths - 1] - FIRST_CONTENT
        entity = tokens - FIRST_CONTENT
        known = (entity >= 0) & (entity < self.config.num_entities)
        for facts, _ in self._splits:  # the row's is one that has its fact, and as many answers beside it
            begin, end = answer_span(facts, codes)
            own = (end - begin == answers) & holds(facts, codes, label)
            right = known[own] & holds(facts, codes[own, None, None], np.where(known[own], entity[own], 0))
            out[own] = right / answers[own, None, None]
        return out

    def explanations(self) -> tuple[str, ...]:
        """Single statements."""
        statements = (
            "An entity and a relation are followed by the entity that the relation leads to.",
            "An entity and two relations are followed by the entity that they lead to one after the other.",
            "An entity and <f> are followed by the entity's image.",
            "A relation that leads from one entity to another leads from the image of the one to that of the other.",
            "An entity and <f_inv> are followed by the entity whose image it is.",
        )
        kept = (True, True, True, self.config.mirrored, self.config.include_f_inverse)
        return tuple(itertools.compress(statements, kept))

    def size(self, split: str) -> int:
        """The number of facts; a split without any is a ValueError."""
        if facts := len(self._splits[SPLITS.index(split)][0]):
            return facts
        if split == "train":
            raise ValueError(f"task {self.name}: the train split is empty: every fact is held out; lower a ratio")
        held = np.count_nonzero(self._split_of_fact)
        raise ValueError(
            f'task {self.name}: holdout="content" leaves the {split} split empty: got {held} facts that are held out '
            'of training, wanted at least 2; raise a ratio, or use holdout="none"'
        )

    def split_of(self, rows: Rows) -> np.ndarray:
        """The split that holds each row's fact under `holdout="content"`, an index into SPLITS, int64 [rows]."""
        return self._split_of_fact[self._places(rows)]

    def follows_from_training(self, rows: Rows) -> np.ndarray:
        """Whether each row's fact follows from training facts by composition or by the functor, bool [rows].

        True for training facts, compositions of two of them, and a functor's fact about an entity that shares the
        relations leaving it (training facts only) with exactly one other entity: its image. Otherwise False, though
        elimination may sometimes help: each pair of entities of E1 has a relation.
        """
        facts = self.graph.facts[self._places(rows)]
        kind = _NAMES[kinds(facts)]
        inferred = (kind == "ood_analogical") & self.graph.has_unique_twin()[heads(facts)]
        return IN_TRAINING[kinds(facts)] | (kind == "near_ood_compositional") | inferred

    def fact_counts(self) -> dict[str, int]:
        """How many facts of each kind the graph has."""
        return dict(zip(KINDS, np.bincount(kinds(self.graph.facts), minlength=len(KINDS)).tolist(), strict=True))

    def entity_ids(self) -> np.ndarray:
        """The token ids of all entities, int64 [num_entities]."""
        return FIRST_CONTENT + np.arange(self.config.num_entities)

    def functor(self) -> np.ndarray:
        """Token ids int64 [sub_size, 2] of each entity of E1 and its image: E1 and E2, column by column."""
        return FIRST_CONTENT + np.stack([self.graph.first, self.graph.second], axis=1)

    @functools.cached_property
    def graph(self) -> KnowledgeGraph:
        """The graph of the config's `graph_seed`."""
        return build_graph(self.config)

    @functools.cached_property
    def _splits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The facts of each split, sorted, and how many of them share each one's prompt."""
        facts = self.graph.facts
        if self.config.holdout == "content":
            shares = [facts[self._split_of_fact == split] for split in range(len(SPLITS))]
            return [(share, answer_counts(share)) for share in shares]
        train, everything = facts[IN_TRAINING[kinds(facts)]], (facts, answer_counts(facts))
        return [(train, answer_counts(train)), everything, everything]

    @functools.cached_property
    def _split_of_fact(self) -> np.ndarray:
        kind = kinds(self.graph.facts)
        held = np.flatnonzero(~IN_TRAINING[kind])
        rng = RowRandom(seed=self.config.graph_seed, split="graph", purpose="holdout", index=held)
        held = held[np.lexsort((rng.keys(), kind[held]))]
        out = np.full(kind.size, _TRAIN)
        out[held[0::2]] = _VALIDATION
        out[held[1::2]] = _TEST
        return out

    def _places(self, rows: Rows) -> np.ndarray:
        """Where in the graph's facts each row's stands, int64 [rows]."""
        codes = _codes(rows.tokens, rows.lengths, self.config.num_entities)
        tail = rows.tokens[np.arange(len(rows)), rows.lengths - 1] - FIRST_CONTENT
        return fact_places(self.graph.facts, codes, tail)

    @functools.cached_property
    def _words(self) -> tuple[str, ...]:
        entities = (f"<e_{number}>" for number in range(self.config.num_entities))
        relations = (f"<r_{number}>" for number in range(self.config.num_relations))
        return (*entities, *relations, "<f>", *["<f_inv>"] * self.config.include_f_inverse)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self._words)}

    @functools.cached_property
    def _images(self) -> np.ndarray:
        """The word of each entity's image, "" outside E1, object [entities]."""
        out = np.full(self.config.num_entities, "", object)
        out[self.graph.first] = [self._words[entity] for entity in self.graph.second]
        return out


def _tokens(facts: np.ndarray, num_entities: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of packed facts: tokens int32 [facts, 5], lengths int32 [facts]."""
    head, first, second, tail = unpack(facts)
    label, last, single = FIRST_CONTENT + num_entities, FIRST_CONTENT + tail, second < 0
    ends = (np.where(single, last, label + second), np.where(single, PAD, last))
    tokens = np.stack([np.full(facts.size, BOS), FIRST_CONTENT + head, label + first, *ends], axis=1)
    return tokens.astype(np.int32), np.where(single, _WIDTH - 1, _WIDTH).astype(np.int32)


def _codes(tokens: np.ndarray, lengths: np.ndarray, num_entities: int) -> np.ndarray:
    """The code of each row's prompt, int64 [rows]."""
    head, first, second = tokens[:, 1:4].T.astype(np.int64) - FIRST_CONTENT
    return prompt_code(head, first - num_entities, np.where(lengths == _WIDTH, second - num_entities, -1))


@kernel
def _wrong_tails(facts, begin, end, num_entities, keys):  # type: ignore[no-untyped-def]
    """The token of an entity, uniform among those that are no tail of facts begin .. end - 1, int32 [rows]."""
    out = np.empty(begin.size, np.int32)
    for row in range(begin.size):
        wrong = num_entities - (end[row] - begin[row])
        entity = np.int64(draw(keys[row], 0) % np.uint64(wrong))
        for at in range(begin[row], end[row]):  # tails ascend: step over each right answer
            entity += unpack(facts[at])[3] <= entity
        out[row] = FIRST_CONTENT + entity
    return out
