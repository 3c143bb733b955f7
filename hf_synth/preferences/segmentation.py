"""Texts taken apart, a block at a time, for the search of near duplicates: parts, and runs of three tokens."""

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import regex
from numba import njit

_U = np.uint64

# What a character can be, one bit each. Tokens are those of Unicode's word segmentation (UAX 29): words with their
# vowel signs, characters of scripts without spaces, single symbols.
_PATTERNS = {
    "SPACE": r"\s",
    "LETTER": r"[\p{WB=ALetter}\p{WB=Hebrew_Letter}\p{WB=Katakana}\p{WB=ExtendNumLet}]",
    "DIGIT": r"\p{WB=Numeric}",
    "EXTEND": r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]",
    "IN_WORD": r"[[\p{WB=MidLetter}\p{WB=MidNumLet}']--[[\p{Term}\p{QMark}]--[\x00-\x7f]]]",
    "IN_NUMBER": r"[[\p{WB=MidNum}\p{WB=MidNumLet}']--[[\p{Term}\p{QMark}]--[\x00-\x7f]]]",
    "END": r"[.?!:;]",  # ends a part before a space
    "STOP": r"[[\p{STerm}\uff1a\uff1b\u2026]--[\x00-\x7f]]",  # ends a part anywhere
    "QUOTE": r"['\p{QMark}]",  # says nothing beside a space, and may follow the end of a part, as closing brackets may
    "SILENT": r"[[\p{Term}\p{QMark}\u00bf\u00a1]--[\x00-\x7f]]",
    "EXACT": r"\p{N}",  # a text that differs in numbers or symbols asks for something else
    "SYMBOL": r"[\p{S}\p{P}]",
}
_BITS = {regex.compile(pattern, regex.V1): 1 << bit for bit, pattern in enumerate(_PATTERNS.values())}
SPACE, LETTER, DIGIT, EXTEND, IN_WORD, IN_NUMBER, END, STOP, QUOTE, SILENT, EXACT, SYMBOL = _BITS.values()
_KNOWN = 1 << len(_BITS)
_KINDS = np.zeros(0x110000, np.uint32)  # of each character; 0 before it is first seen


@njit(cache=True)
def _mix(value: Any) -> Any:
    """Return a 64-bit hash of 64 bits (splitmix64)."""
    value = (value ^ (value >> _U(30))) * _U(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> _U(27))) * _U(0x94D049BB133111EB)
    return value ^ (value >> _U(31))


@njit(cache=True)
def _token_end(kinds: Any, start: int, stop: int) -> int:
    last, at = kinds[start], start + 1
    while at < stop:
        kind, following = kinds[at], kinds[at + 1] if at + 1 < stop else np.uint32(0)
        inside = (kind & IN_WORD and last & following & LETTER) or (kind & IN_NUMBER and last & following & DIGIT)
        if kind & EXTEND:  # a mark on the character before
            at += 1
        elif inside or (last & (LETTER | DIGIT) and kind & (LETTER | DIGIT)):
            last = following if inside else kind
            at += 2 if inside else 1
        else:
            break
    return at


@njit(cache=True)
def _part_end(codes: Any, kinds: Any, at: int, start: int, stop: int) -> int:
    """Return where the marks stop that end a part, or `at` where none do."""
    if kinds[at] & STOP:
        return at + 1
    if codes[at] == ord("!") and at > start and (kinds[at - 1] & DIGIT or codes[at - 1] in (ord(")"), ord("]"))):
        return at  # a factorial
    after = at
    while after < stop and kinds[after] & END:
        after += 1
    if after == at:
        return at
    while after < stop and (kinds[after] & QUOTE or codes[after] in (ord(")"), ord("]"))):
        after += 1
    return after if after == stop or kinds[after] & SPACE else at


@njit(cache=True)
def _tokens(codes: Any, kinds: Any, start: int, stop: int, hashes: Any, lengths: Any, pieces: Any) -> tuple[int, Any]:
    """Fill in the tokens of a text, and the sentence or line that each is in; return how many, and a hash.

    The hash is of what has to be the same: numbers, symbols and indentation.
    """
    count, piece, at, after_space, exact = 0, 0, start, True, _U(0)
    while at < stop:
        code, kind = codes[at], kinds[at]
        end = _part_end(codes, kinds, at, start, stop)
        if code == ord("\n"):
            at += 1
            piece, after_space, indent, first = piece + 1, True, _U(0), at
            while at < stop and codes[at] != ord("\n") and kinds[at] & SPACE:
                indent = _mix(indent + _U(codes[at]) + _U(1))
                at += 1
            if at < stop and codes[at] != ord("\n") and codes[first] in (ord("\t"), ord(" ")):
                exact = _mix(exact + indent)
        elif kind & SPACE:
            at, after_space = at + 1, True
        elif end > at:
            at, piece, after_space = end, piece + 1, True
        else:
            marks = at
            while marks < stop and (kinds[marks] & QUOTE or codes[marks] == ord(",")):
                marks += 1
            if marks > at and (
                marks == stop or kinds[marks] & SPACE or _part_end(codes, kinds, marks, start, stop) > marks
            ):
                at = marks
            elif kind & QUOTE and after_space:
                while at < stop and kinds[at] & QUOTE:
                    at += 1
            elif kind & SILENT:
                at += 1
            else:
                end = _token_end(kinds, at, stop)
                said, number = _U(0), False
                for place in range(at, end):
                    said = _mix(said + _U(codes[place]) + _U(1))
                    number |= kinds[place] & EXACT != 0
                if number or kind & SYMBOL:
                    exact = _mix(exact + said)
                hashes[count], lengths[count], pieces[count] = said, end - at, piece
                count, at = count + 1, end
            after_space = False
    return count, exact


@njit(cache=True)
def _take_apart(codes: Any, kinds: Any, starts: Any, similarity: float) -> Any:
    """Return the parts of texts that begin at `starts`; the last of these is where the last one ends.

    runs, run_stops: the runs of three tokens of each part. others: for each part, a hash of all other parts, and of
    what has to be the same. short: parts of one or two tokens, which were added to the ones before. keys: of the runs
    that a near duplicate shares one of. stops: where each text stops in these.
    """
    most, texts = len(codes) + len(starts), len(starts) - 1
    hashes, lengths, pieces = np.empty(most, np.uint64), np.empty(most, np.int64), np.empty(most, np.int64)
    runs, others, short, keys = np.empty((4, most), np.uint64)
    run_stops, begins = np.empty(most, np.int64), np.empty(most + 1, np.int64)
    stops = np.zeros((texts + 1, 4), np.int64)  # of each text: in runs, others, short, keys
    run_count = part_count = short_count = key_count = 0
    for text in range(texts):
        start, stop = starts[text], starts[text + 1]
        count, exact = _tokens(codes, kinds, start, stop, hashes, lengths, pieces)
        if not count:  # marks that say nothing are all there is
            hashes[0], lengths[0], pieces[0], count = _U(0), stop - start, 0, 1
            for place in range(start, stop):
                hashes[0] = _mix(hashes[0] + _U(codes[place]) + _U(2))
        parts, token = 0, 0
        while token < count:
            first, said = token, _U(0)
            while token < count and pieces[token] == pieces[first]:
                said = _mix(said + hashes[token])
                token += 1
            if parts and token - first < 3:  # `Please.`, `user:`
                short[short_count] = said
                short_count += 1
            else:
                begins[parts] = first
                parts += 1
        begins[parts] = count
        total, first_part, run_of_part = _mix(exact), part_count, run_count
        for part in range(parts):
            begin, end = begins[part], begins[part + 1]
            made = max(1, end - begin - 2)
            for number in range(made):
                said, length = _U(0), 0
                for token in range(begin + number, min(begin + number + 3, end)):
                    said = _mix(said + hashes[token])
                    length += lengths[token]
                # Long runs come first in the order, as they are rare
                runs[run_count + number] = (_U(1023 - min(length, 1023)) << _U(54)) | (said >> _U(10))
            runs[run_count : run_count + made].sort()
            said, distinct = _U(0), run_count
            for number in range(run_count, run_count + made):
                if distinct == run_count or runs[number] != runs[distinct - 1]:
                    runs[distinct] = runs[number]
                    said += _mix(runs[number])
                    distinct += 1
            run_count = run_stops[part_count] = distinct
            others[part_count] = _mix(said)
            total += others[part_count]
            part_count += 1
        for part in range(first_part, part_count):
            others[part] = _mix(total - others[part])
            size = run_stops[part] - run_of_part
            for run in runs[run_of_part : run_of_part + size - int(np.ceil(similarity * size - 1e-9)) + 1]:
                keys[key_count] = _mix(run ^ others[part])
                key_count += 1
            run_of_part = run_stops[part]
        stops[text + 1] = run_count, part_count, short_count, key_count
    return runs[:run_count].copy(), run_stops[:part_count].copy(), others, short, keys, stops


class Parts(NamedTuple):
    """A text in parts (sentences, lines, turns): see `_take_apart`."""

    runs: np.ndarray
    run_stops: np.ndarray
    others: list[int]
    short: list[int]
    keys: list[int]


def taken_apart(texts: Sequence[str], similarity: float) -> Iterator[Parts]:
    """Yield the parts of each text; `similarity`: that of the runs of two parts, from which on they share a key."""
    lowered = [text.strip().lower() for text in texts]
    lowered = [
        text if text.isascii() else unicodedata.normalize("NFC", text).replace("\u2019", "'") for text in lowered
    ]
    codes = np.frombuffer("".join(lowered).encode("utf-32-le", "surrogatepass"), np.uint32)
    for code in np.unique(codes[_KINDS[codes] == 0]):
        _KINDS[code] = _KNOWN | sum(bit for pattern, bit in _BITS.items() if pattern.fullmatch(chr(code)))
    starts = np.cumsum([0, *map(len, lowered)])
    runs, run_stops, others, short, keys, stops = _take_apart(codes, _KINDS[codes], starts, similarity)
    for (run, part, few, key), (run_stop, part_stop, few_stop, key_stop) in pairwise(stops.tolist()):
        own = others[part:part_stop].tolist(), short[few:few_stop].tolist(), keys[key:key_stop].tolist()
        yield Parts(runs[run:run_stop], run_stops[part:part_stop] - run, *own)
