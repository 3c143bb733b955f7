"""Arithmetic on two numbers, digit by digit: `<bos> 1 2 + 3 9 <sep> r5 r1 <eos>`, loss on the result and `<eos>`."""

import dataclasses
from typing import ClassVar, TypeVar

import numpy as np

from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom, below, mix, step_of
from hf_synth.tasks.base import FIRST_CONTENT, Rows, TaskConfig, bounded
from hf_synth.tasks.families.determined import Determined, SizedConfig, parts_of

MOST_DIGITS = 256
_DIGITS = tuple("0123456789")
_SIGN = FIRST_CONTENT + len(_DIGITS)
_FIRST_RESULT = _SIGN + 1


@dataclasses.dataclass(frozen=True)
class ArithmeticConfig(SizedConfig):
    """Operands of `digits` digits; from `min_digits` on, in tests beyond `digits` up to `test_digits`.

    Both have as many, the highest from 1 to 9. With `min_digits` above 0 their number is uniform from there on. With
    `test_digits` above 0 the operands of the test split are longer than any other: of digits + 1 .. test_digits
    digits, uniformly.
    """

    digits: int = bounded(5, 1, MOST_DIGITS)
    min_digits: int = bounded(0, 0, MOST_DIGITS)
    test_digits: int = bounded(0, 0, MOST_DIGITS)

    size_field: ClassVar[str] = "digits"


ArithmeticConfigT = TypeVar("ArithmeticConfigT", bound=ArithmeticConfig)


def arithmetic_presets(config: type[ArithmeticConfig], *digits: int, tested: int) -> dict[str, TaskConfig]:
    """By digits, A as in the paper first; and `A-to-B`: trained on up to A digits, tested on more, up to `tested`."""
    fixed: dict[str, TaskConfig] = {str(number): config(digits=number) for number in digits}
    longer = config(digits=digits[0], min_digits=1, test_digits=tested)
    return fixed | {f"{digits[0]}-to-{tested}": longer}


class ArithmeticTask(Determined[ArithmeticConfigT]):
    """A sum or a product; a subclass says which by its sign, + or *, and in which order digits are written.

    The digits of the result are tokens of their own, r0 .. r9.
    """

    config_class: ClassVar[type[TaskConfig]] = ArithmeticConfig
    presets: ClassVar[dict[str, TaskConfig]] = arithmetic_presets(ArithmeticConfig, 5, 3, 2, tested=8)
    source: ClassVar[str] = "Procedural pretraining, arXiv 2601.21725"
    sign: ClassVar[str]
    lowest_first: ClassVar[bool] = False

    def vocabulary(self) -> tuple[str, ...]:
        """Digits of operands, the sign, digits of results."""
        return (*_DIGITS, self.sign, *(f"r{digit}" for digit in _DIGITS))

    def corruption_ids(self) -> tuple[int, int]:
        """The ids of the result's digits."""
        return _FIRST_RESULT, _FIRST_RESULT + len(_DIGITS)

    def generate(self, rng: RowRandom) -> Rows:
        """Two uniform numbers of as many digits, and their result."""
        fewest, most = self.config.sizes(rng.split)
        digits = rng.integers(fewest, most + 1, 1)[:, 0]
        inputs, target, sizes = _calculate(rng.keys(), digits, most, self.sign == "*", self.lowest_first)
        return Rows.transduction(inputs, target, counts=(2 * digits + 1, sizes))

    def answer(self, prompt: list[str]) -> list[str] | None:
        """The result's digits; operands of any two sizes count, up to MOST_DIGITS."""
        *terms, rest = parts_of(prompt)
        if rest or len(terms) != 1 or terms[0].count(self.sign) != 1:
            return None
        at = terms[0].index(self.sign)
        left, right = (self._turned(digits) for digits in (terms[0][:at], terms[0][at + 1 :]))
        if not (_is_operand(left) and _is_operand(right)):
            return None
        one, other = int("".join(left)), int("".join(right))
        return [f"r{digit}" for digit in self._turned(list(str(one * other if self.sign == "*" else one + other)))]

    def contents(self) -> int | None:
        """The number of pairs of operands, where all have as many digits."""
        digits = self.config.only_size()
        return None if digits is None else (9 * 10 ** (digits - 1)) ** 2

    def content_rank(self, rows: Rows) -> np.ndarray:
        """Both operands, counted from the least of their size, as one number."""
        digits = self.config.digits
        weight = np.int64(10) ** np.arange(digits)
        weight = weight if self.lowest_first else weight[::-1]
        left, right = (
            (rows.tokens[:, start : start + digits].astype(np.int64) - FIRST_CONTENT) @ weight - weight.max()
            for start in (1, digits + 2)
        )
        return left * 9 * weight.max() + right

    def _turned(self, digits: list[str]) -> list[str]:
        """Digits with the highest first in the order of the rows, and back."""
        return digits[::-1] if self.lowest_first else digits


def _is_operand(digits: list[str]) -> bool:
    return 0 < len(digits) <= MOST_DIGITS and digits[0] != "0" and set(digits) <= set(_DIGITS)


@kernel
def _calculate(keys, digits, most, multiplies, lowest_first):  # type: ignore[no-untyped-def]
    rows = keys.size
    inputs, target = np.empty((rows, 2 * most + 1), np.int32), np.empty((rows, 2 * most), np.int32)
    sizes = np.empty(rows, np.int32)
    left, right, result = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(2 * most, np.int64)
    for row in range(rows):
        count, state, step = digits[row], keys[row], step_of(keys[row])
        for position in range(count):  # position 0 is the lowest digit's
            highest = np.int64(position == count - 1)
            state += step
            left[position] = highest + below(mix(state), 10 - highest)
            state += step
            right[position] = highest + below(mix(state), 10 - highest)
        size = _multiply(left, right, count, result) if multiplies else _add(left, right, count, result)
        _write(inputs[row, :count], left, FIRST_CONTENT, lowest_first)
        inputs[row, count] = _SIGN
        _write(inputs[row, count + 1 : 2 * count + 1], right, FIRST_CONTENT, lowest_first)
        _write(target[row, :size], result, _FIRST_RESULT, lowest_first)
        sizes[row] = size
    return inputs, target, sizes


@kernel
def _add(left, right, count, result):  # type: ignore[no-untyped-def]
    """The sum's digits, and how many they are."""
    carry = 0
    for position in range(count):
        total = left[position] + right[position] + carry
        carry = np.int64(total > 9)
        result[position] = total - 10 * carry
    result[count] = carry
    return count + carry


@kernel
def _multiply(left, right, count, result):  # type: ignore[no-untyped-def]
    """The product's digits, as learnt at school, and how many they are."""
    result[:] = 0
    for low in range(count):
        carry = 0
        for position in range(count):
            total = result[low + position] + left[low] * right[position] + carry
            carry = total // 10
            result[low + position] = total - 10 * carry
        result[low + count] = carry
    return 2 * count - np.int64(result[2 * count - 1] == 0)


@kernel
def _write(words, digits, zero, lowest_first):  # type: ignore[no-untyped-def]
    for position in range(words.size):
        words[position if lowest_first else words.size - 1 - position] = zero + digits[position]
