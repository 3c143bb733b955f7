"""Synthetic documents among canonical ones: by documents at random, or so that a share of the tokens is theirs."""

import fractions

import numpy as np
import pyarrow as pa

from hf_synth.corpora.streams import BLOCK, UNITS, Ratio, Stream, TokenCounter, Unit, count_words, share_of
from hf_synth.kernels import kernel
from hf_synth.rng import RowRandom


def interleave(
    canonical: Stream,
    synthetic: Stream,
    *,
    ratio: Ratio = 0.1,
    unit: Unit = "documents",
    seed: int = 0,
    count_tokens: TokenCounter = count_words,
) -> Stream:
    """Mix synthetic documents into canonical ones; both kinds stay in their order.

    unit="documents": each document is synthetic with probability `ratio`, independently, by (seed, its number).
    unit="tokens": nothing is random; the next document is of the kind that leaves the share of synthetic tokens nearer
    to `ratio`, so that no beginning is off by more than half the tokens of the longer of two documents.

    Raises ValueError where one of the streams ends.
    """
    share = share_of("ratio", ratio)
    if unit not in UNITS:
        raise ValueError(f"unit: got {unit!r}, wanted one of {', '.join(UNITS)}")
    if share in (0, 1):
        return synthetic if share else canonical
    if unit == "documents":
        return _ByDocuments(canonical, synthetic, share, seed)
    return _ByTokens(canonical, synthetic, share, count_tokens)


class _Interleaved(Stream):
    """Two streams, and how many documents were taken of both together."""

    position: tuple[str, ...] = ("number", "canonical", "synthetic")

    def __init__(self, canonical: Stream, synthetic: Stream, share: fractions.Fraction) -> None:
        super().__init__()
        self.canonical, self.synthetic, self.share = canonical, synthetic, share
        self.number = 0

    def _ended(self, synthetic: bool) -> ValueError:
        name = "synthetic" if synthetic else "canonical"
        return ValueError(
            f"interleave: the {name} documents ended after {self.number:,} documents of both kinds; "
            "wanted more of them, or to have them again (repeat=True; on the command line --repeat)"
        )


class _ByDocuments(_Interleaved):
    """Synthetic with a probability, document by document."""

    def __init__(
        self, canonical: Stream, synthetic: Stream, share: fractions.Fraction, seed: int, address: str = ""
    ) -> None:
        super().__init__(canonical, synthetic, share)
        self.seed, self.address = seed, address

    def _next(self) -> pa.Table:
        index = np.arange(self.number, self.number + BLOCK)
        rng = RowRandom(seed=self.seed, split=self.address, purpose="interleave", index=index)
        chosen = rng.integers(0, self.share.denominator, 1)[:, 0] < self.share.numerator
        canonical = self.canonical.read(int((~chosen).sum()))
        synthetic = self.synthetic.read(int(chosen.sum()))
        count = min(_possible(~chosen, canonical.num_rows), _possible(chosen, synthetic.num_rows))
        if not count:
            raise self._ended(bool(chosen[0]))
        self.number += count
        return merged(canonical, synthetic, chosen[:count])

    def shard(self, num_shards: int, index: int) -> "_ByDocuments":
        """Return both streams' parts, interleaved by draws of the part's own."""
        parts = (self.canonical.shard(num_shards, index), self.synthetic.shard(num_shards, index))
        return _ByDocuments(*parts, self.share, self.seed, f"{self.address}{index} of {num_shards}, ")


class _ByTokens(_Interleaved):
    """Synthetic where that brings the share of tokens nearest to what is wanted.

    The balance is whole * (synthetic tokens that are wanted so far - those that there are): exact, and always small.
    """

    position = ("number", "canonical", "synthetic", "balance")

    def __init__(
        self, canonical: Stream, synthetic: Stream, share: fractions.Fraction, count_tokens: TokenCounter
    ) -> None:
        super().__init__(canonical, synthetic, share)
        self.count_tokens = count_tokens
        self.balance = 0

    def _next(self) -> pa.Table:
        """Return the documents that are decided by what both streams have made."""
        canonical, synthetic = self.canonical.rest(), self.synthetic.rest()
        if not (canonical.num_rows and synthetic.num_rows):
            raise self._ended(synthetic.num_rows == 0)
        lengths = (self.canonical.lengths(self.count_tokens), self.synthetic.lengths(self.count_tokens))
        part, rest = self.share.numerator, self.share.denominator - self.share.numerator
        chosen, self.balance = _nearest_share(*lengths, part, rest, self.balance)
        self.synthetic.skip(int(chosen.sum()))
        self.canonical.skip(int((~chosen).sum()))
        self.number += chosen.size
        return merged(canonical, synthetic, chosen)

    def shard(self, num_shards: int, index: int) -> "_ByTokens":
        """Return both streams' parts, each with the same share of tokens."""
        parts = (self.canonical.shard(num_shards, index), self.synthetic.shard(num_shards, index))
        return _ByTokens(*parts, self.share, self.count_tokens)


def merged(others: pa.Table, chosen: pa.Table, flags: np.ndarray) -> pa.Table:
    """Return rows of `chosen` where `flags` (bool [rows]) are set, of `others` elsewhere, each in its order."""
    rows = np.where(flags, others.num_rows + np.cumsum(flags) - 1, np.cumsum(~flags) - 1)
    return pa.concat_tables([others, chosen]).combine_chunks().take(pa.array(rows))


def _possible(wanted: np.ndarray, there: int) -> int:
    """Return how many documents can be served before a missing one is wanted."""
    positions = np.flatnonzero(wanted)
    return wanted.size if positions.size <= there else int(positions[there])


@kernel
def _nearest_share(others, chosen, part, rest, balance):  # type: ignore[no-untyped-def]
    """Decide from lengths int64 [documents] of both kinds until one kind runs out; bool [decided] and the balance."""
    flags = np.zeros(others.size + chosen.size, np.bool_)
    at_others = at_chosen = 0
    while at_others < others.size and at_chosen < chosen.size:
        if 2 * balance >= rest * chosen[at_chosen] - part * others[at_others]:
            flags[at_others + at_chosen] = True
            balance -= rest * chosen[at_chosen]
            at_chosen += 1
        else:
            balance += part * others[at_others]
            at_others += 1
    return flags[: at_others + at_chosen], balance
