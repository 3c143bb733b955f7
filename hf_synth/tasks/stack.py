"""Stack: what is left of pushes (numbers) and pops (0), top first."""

import dataclasses

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, below_wide, mix, step_of
from hf_synth.tasks.base import FIRST_CONTENT, Rows, bounded
from hf_synth.tasks.families.sequences import (
    FIRST_NUMBER,
    LARGEST_VOCABULARY,
    SequenceConfig,
    SequenceTask,
    exchange,
    sequence_presets,
)


@dataclasses.dataclass(frozen=True)
class StackConfig(SequenceConfig):
    """`length` counts operations. Two numbers at least, so that one is free wherever a push is due: vocab_size 3."""

    vocab_size: int = bounded(100, 3, LARGEST_VOCABULARY)


class Stack(SequenceTask[StackConfig]):
    """`<bos> 3 1 0 2 <sep> 2 3 <eos>`: a number is pushed, 0 pops; loss on the stack from top to bottom and `<eos>`.

    An operation pushes while at most one number is on the stack; else it pops if it is the last, or if all numbers
    are on the stack; else it pushes with probability 3/4 in the first two thirds (rounded down), with 1/4 after them.
    What is pushed is uniform among the numbers that are not on the stack. `verify` takes every program that pushes no
    number that is on the stack, pops no empty stack and leaves something on it.

    >>> Stack(StackConfig(length=4)).verify("3 1 0 2 <sep>", "2 3")
    1.0
    """

    name = "stack"
    version = 1
    config_class = StackConfig
    presets = sequence_presets(StackConfig)
    least = 0

    def generate(self, rng: RowRandom) -> Rows:
        """Programs, and the stacks that they leave."""
        most, counts = self.config.sizes(rng.split)[1], self.counts(rng)
        sequences, target, sizes = _programs(rng.keys(), counts, most, self.config.vocab_size)
        return Rows.transduction(sequences, target, counts=(counts, sizes))

    def target(self, *inputs: list[str]) -> list[str] | None:
        """The stack from top to bottom; None for a program that is not legal."""
        stack: dict[str, None] = {}
        for word in inputs[0]:
            if word in stack or (word == "0" and not stack):
                return None
            if word == "0":
                stack.popitem()
            else:
                stack[word] = None
        return list(stack)[::-1] or None

    def explanations(self) -> tuple[str, ...]:
        """One sentence."""
        return (
            "Before <sep> each number is put on a stack and each 0 takes the topmost away; after <sep> comes what is "
            "left, from top to bottom.",
        )


@kernel
def _programs(keys, counts, most, vocab_size):  # type: ignore[no-untyped-def]
    """The numbers stand in a line, those on the stack first, from bottom to top: a push fetches one from behind."""
    rows, numbers = keys.size, vocab_size - 1
    sequences, target = np.empty((rows, most), np.int32), np.empty((rows, most), np.int32)
    sizes = np.empty(rows, np.int32)
    moved = np.zeros(numbers, np.int32)
    fetched = np.empty(most, np.int32)  # the places that numbers were fetched from, to put the line in order again
    for row in range(rows):
        count, state, step = counts[row], keys[row], step_of(keys[row])
        early = 2 * count // 3
        depth = pushes = 0
        for at in range(count):
            state += step
            number = mix(state)
            quarters = 3 if at < early else 1
            free = at < count - 1 and depth < numbers and np.int64(number >> np.uint64(62)) < quarters
            if depth > 1 and not free:
                depth -= 1
                sequences[row, at] = FIRST_CONTENT
                continue
            position = depth + below_wide(number << np.uint64(2), numbers - depth)
            sequences[row, at] = FIRST_NUMBER + exchange(moved, depth, position)
            fetched[pushes] = position
            depth += 1
            pushes += 1
        for at in range(depth):
            position = depth - 1 - at
            target[row, at] = FIRST_NUMBER + position + moved[position]
        sizes[row] = depth
        moved[: min(pushes, numbers)] = 0
        for at in range(pushes):
            moved[fetched[at]] = 0
    return sequences, target, sizes
