"""What a user would write instead: one row at a time in plain Python, from the definitions. Here to be timed."""

import itertools
import math
import random
from collections.abc import Callable

import numpy as np

Row = list[int] | list[str]


def _numbers(rng: random.Random) -> list[int]:
    return [rng.randint(1, 99) for _ in range(64)]


def sort(rng: random.Random) -> Row:
    """64 numbers below 100, in order."""
    given = _numbers(rng)
    return [*given, 0, *sorted(given)]


def reverse(rng: random.Random) -> Row:
    """64 numbers, from last to first."""
    given = _numbers(rng)
    return [*given, 0, *reversed(given)]


def identity(rng: random.Random) -> Row:
    """64 numbers, again."""
    given = _numbers(rng)
    return [*given, 0, *given]


def distinct(rng: random.Random) -> Row:
    """64 numbers, each once."""
    given = _numbers(rng)
    return [*given, 0, *dict.fromkeys(given)]


def union(rng: random.Random) -> Row:
    """Two times 32 numbers, each of both once."""
    given = _numbers(rng)
    return [*given[:32], 0, *given[32:], 0, *dict.fromkeys(given)]


def delete(rng: random.Random) -> Row:
    """64 numbers without the first occurrence of one."""
    given = _numbers(rng)
    token = rng.choice(given)
    at = given.index(token)
    return [*given, 0, token, 0, *given[:at], *given[at + 1 :]]


def stack(rng: random.Random) -> Row:
    """64 pushes and pops, and what is left."""
    held: list[int] = []
    operations = []
    for step in range(64):
        push = len(held) <= 1 or rng.random() < (0.75 if step < 2 * 64 / 3 else 0.25)
        if push and not (step == 63 and len(held) > 1):
            held.append(rng.choice([number for number in range(1, 100) if number not in held]))
            operations.append(held[-1])
        else:
            held.pop()
            operations.append(0)
    return [*operations, 0, *reversed(held)]


def dyck(rng: random.Random, k: int = 64, length: int = 2_048) -> Row:
    """Balanced brackets of k types."""
    held: list[int] = []
    word = []
    for step in range(length):
        if not held or (len(held) < length - step and rng.random() < 0.49):
            held.append(rng.randrange(k))
            word.append(held[-1])
        else:
            word.append(k + held.pop())
    return word


def dyck_shuffle(rng: random.Random, k: int = 64, length: int = 2_048, max_depth: int = 16) -> Row:
    """Brackets of k types, balanced each for itself."""
    held: dict[int, int] = {}
    depth = 0
    word = []
    for step in range(length):
        if depth == 0 or (depth < min(max_depth, length - step) and rng.random() < 0.5):
            kind = rng.randrange(k)
            held[kind] = held.get(kind, 0) + 1
            depth += 1
            word.append(kind)
            continue
        kind = rng.choice(list(held))
        held[kind] -= 1
        if not held[kind]:
            del held[kind]
        depth -= 1
        word.append(k + kind)
    return word


def eca(rng: random.Random, rule: int = 110, width: int = 16, steps: int = 15) -> Row:
    """States of an elementary cellular automaton."""
    state = [rng.randrange(2) for _ in range(width)]
    cells = list(state)
    for _ in range(steps):
        state = [rule >> (4 * state[at - 1] + 2 * state[at] + state[(at + 1) % width]) & 1 for at in range(width)]
        cells += state
    return cells


def start_mid_end(rng: random.Random) -> Row:
    """START MID{n} END."""
    return ["START", *["MID"] * rng.randint(1, 10), "END"]


def color_shape(rng: random.Random) -> Row:
    """Up to four colours, each with one of its shapes."""
    shapes = {"RED": ("CIRCLE", "SQUARE"), "BLUE": ("TRIANGLE", "DIAMOND")}
    colors = [rng.choice(("RED", "BLUE")) for _ in range(rng.randint(1, 4))]
    return [word for color in colors for word in (color, rng.choice(shapes[color]))]


def palindrome(rng: random.Random, depth: int = 0) -> Row:
    """Nested brackets around palindromes."""
    if depth < 3 and rng.random() < 0.5:
        half = [rng.choice("ABCD") for _ in range(rng.randint(1, 3))]
        return ["[", *half, *palindrome(rng, depth + 1), *half[::-1], "]"]
    half = [rng.choice("ABCD") for _ in range(rng.randint(0, 3))]
    centre = [rng.choice("ABCD")] if half and rng.random() < 0.5 else []
    return ["[", *half, *centre, *half[::-1], "]"]


def tivari(rng: random.Random) -> Row:
    """XAQ ZIV{n} BEK."""
    return ["XAQ", *["ZIV"] * rng.randint(1, 10), "BEK"]


def tivari3(rng: random.Random) -> Row:
    """FEP palindrome GOR."""
    half = [rng.choice(("NUL", "TAS", "WEJ", "KOB")) for _ in range(rng.randint(0, 8))]
    centre = [rng.choice(("NUL", "KOB"))] if half and rng.random() < 0.5 else []
    return ["FEP", *half, *centre, *half[::-1], "GOR"]


def haystack(rng: random.Random) -> Row:
    """Up to 30 keys with values, and the value of one."""
    keys = rng.sample(range(30), rng.randint(1, 30))
    values = [rng.randint(1, 127) for _ in keys]
    wanted = rng.randrange(len(keys))
    return [*itertools.chain(*zip(keys, values, strict=True)), keys[wanted], values[wanted]]


def addition(rng: random.Random, digits: int = 5) -> Row:
    """Two numbers and their sum, digit by digit."""
    one, two = (rng.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
    return list(f"{one}+{two}={one + two}")


def multiplication(rng: random.Random, digits: int = 5) -> Row:
    """Two numbers and their product, digit by digit."""
    one, two = (rng.randrange(10 ** (digits - 1), 10**digits) for _ in range(2))
    return list(f"{one}*{two}={one * two}")


class Grammar:
    """A Random Language Model as its papers' code has it: NumPy's sampler at every node."""

    def __init__(self, vocab_size: int, depth: int, beta: float = 2.0) -> None:
        """Rules P(children | parent) as float64 [V, V * V]."""
        spread = beta * math.sqrt(math.log(vocab_size))
        logits = spread * np.random.default_rng(0).standard_normal((vocab_size, vocab_size**2))
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        self.rules = weights / weights.sum(axis=1, keepdims=True)
        self.vocab_size, self.depth = vocab_size, depth
        self._random = np.random.default_rng(1)

    def row(self, rng: random.Random) -> Row:
        """The leaves of one tree."""
        symbols = [rng.randrange(self.vocab_size)]
        for _ in range(self.depth):
            pairs = [int(self._random.choice(self.vocab_size**2, p=self.rules[symbol])) for symbol in symbols]
            symbols = [child for pair in pairs for child in divmod(pair, self.vocab_size)]
        return symbols

    def last_leaf(self, leaves: list[int]) -> np.ndarray:
        """P(last leaf | all others): one row's inside pass, one einsum a node."""
        rules = self.rules.reshape((self.vocab_size,) * 3)
        likelihood = list(np.eye(self.vocab_size)[leaves[:-1]])
        # What each node on the path to the last leaf makes of its likelihood, given the siblings on its left.
        path = np.eye(self.vocab_size)  # [symbol of the node on the path, last leaf]
        while likelihood:
            *pairs, left = [likelihood[at : at + 2] for at in range(0, len(likelihood), 2)]
            path = np.einsum("ijk,j,kl->il", rules, left[0], path, optimize=True)
            likelihood = [np.einsum("ijk,j,k->i", rules, one, two, optimize=True) for one, two in pairs]
            likelihood = [value / value.max() for value in likelihood]
        joint = path.sum(axis=0)
        return joint / joint.sum()


def dyck_losses(word: list[int], k: int = 64, p_open: float = 0.49) -> list[float]:
    """-ln P of each token of a balanced word."""
    held = 0
    losses = []
    for step, token in enumerate(word):
        opens = 1.0 if not held else 0.0 if held == len(word) - step else p_open
        losses.append(-math.log(opens / k if token < k else 1.0 - opens))
        held += 1 if token < k else -1
    return losses


def dyck_shuffle_losses(word: list[int], k: int = 64, p_open: float = 0.5, max_depth: int = 16) -> list[float]:
    """-ln P of each token of a word in which every type is balanced for itself."""
    held: dict[int, int] = {}
    depth = 0
    losses = []
    for step, token in enumerate(word):
        opens = 1.0 if not depth else 0.0 if depth in (max_depth, len(word) - step) else p_open
        losses.append(-math.log(opens / k if token < k else (1.0 - opens) / len(held)))
        kind, change = (token, 1) if token < k else (token - k, -1)
        held[kind] = held.get(kind, 0) + change
        depth += change
        if not held[kind]:
            del held[kind]
    return losses


def knowledge_graph(rng: random.Random, entities: int, relations: int) -> tuple[int, int]:
    """All atomic and compositional facts of a graph of two mirrored halves, as sets; returns how many there are."""
    half = entities // 2
    atomic = {}
    for head in range(half):
        names = iter(rng.sample(range(relations), half - 1))
        for tail in range(half):
            if tail != head:
                name = next(names)
                atomic[head, name] = tail
                atomic[half + head, name] = half + tail
    leaving: dict[int, list[tuple[int, int]]] = {}
    for (head, name), tail in atomic.items():
        leaving.setdefault(head, []).append((name, tail))
    compositional = {
        (head, first, second, last)
        for (head, first), middle in atomic.items()
        for second, last in leaving[middle]
        if last != head
    }
    return len(atomic), len(compositional)


PLAIN_ROWS: dict[str, Callable[[random.Random], Row]] = {
    "sort": sort,
    "reverse": reverse,
    "identity": identity,
    "set": distinct,
    "union": union,
    "delete": delete,
    "stack": stack,
    "haystack": haystack,
    "addition": addition,
    "multiplication": multiplication,
    "dyck": dyck,
    "dyck_shuffle": dyck_shuffle,
    "eca": eca,
    "start_mid_end": start_mid_end,
    "color_shape": color_shape,
    "palindrome": palindrome,
    "tivari": tivari,
    "tivari3": tivari3,
}
