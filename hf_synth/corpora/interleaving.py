"""Synthetic documents among canonical ones: by documents at random, or so that a fraction of the tokens is theirs."""

import fractions
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hf_synth.corpora.streams import BLOCK, UNITS, Ratio, Stream, TokenCounter, Unit, count_words, share_of
from hf_synth.errors import check_choices
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
    unit="tokens": nothing is random; the next document is of the kind that leaves the fraction of synthetic tokens
    nearer to `ratio`, so that no beginning is off by more than half the tokens of the longer of two documents.

    Raises ValueError where one of the streams ends.
    """
    share = share_of("ratio", ratio)
    check_choices("unit", [unit], UNITS)
    if share in (0, 1):
        return synthetic if share else canonical
    return _Interleaved(canonical, synthetic, _Mixture(share, seed, count_tokens if unit == "tokens" else None))


class _Mixture(NamedTuple):
    """How documents are mixed. count_tokens: none for a fraction of the documents. address: of a shard's own draws."""

    share: fractions.Fraction
    seed: int
    count_tokens: TokenCounter | None
    address: str = ""


class _Interleaved(Stream):
    """Two streams, and how many documents were taken of both together.

    The balance is whole * (synthetic tokens that are wanted so far - those that there are): exact, and always small.
    """

    position = ("number", "balance", "canonical", "synthetic")

    def __init__(self, canonical: Stream, synthetic: Stream, mixture: _Mixture) -> None:
        super().__init__()
        self.canonical, self.synthetic, self.mixture = canonical, synthetic, mixture
        self.number = self.balance = 0

    def _next(self) -> pa.Table:
        share, seed, count_tokens, address = self.mixture
        if count_tokens is not None:
            return self._by_tokens(count_tokens)
        index = np.arange(self.number, self.number + BLOCK)
        rng = RowRandom(seed=seed, split=address, purpose="interleave", index=index)
        chosen = rng.integers(0, share.denominator, 1)[:, 0] < share.numerator
        canonical, synthetic = self.canonical.read(int((~chosen).sum())), self.synthetic.read(int(chosen.sum()))
        count = min(_possible(~chosen, canonical.num_rows), _possible(chosen, synthetic.num_rows))
        if not count:
            raise self._ended(bool(chosen[0]))
        self.number += count
        return merged(canonical, synthetic, chosen[:count])

    def _by_tokens(self, count_tokens: TokenCounter) -> pa.Table:
        """Return the documents that are decided by what both streams have made."""
        canonical, synthetic = self.canonical.rest(), self.synthetic.rest()
        if not (canonical.num_rows and synthetic.num_rows):
            raise self._ended(synthetic.num_rows == 0)
        lengths = (self.canonical.lengths(count_tokens), self.synthetic.lengths(count_tokens))
        part, whole = self.mixture.share.numerator, self.mixture.share.denominator
        chosen, self.balance = _nearest_share(*lengths, part, whole - part, self.balance)
        self.synthetic.skip(int(chosen.sum()))
        self.canonical.skip(int((~chosen).sum()))
        self.number += chosen.size
        return merged(canonical, synthetic, chosen)

    def _ended(self, synthetic: bool) -> ValueError:
        name = "synthetic" if synthetic else "canonical"
        return ValueError(
            f"interleave: the {name} documents ended after {self.number:,} documents of both kinds; "
            "wanted more of them, or to have them again (repeat=True; on the command line --repeat)"
        )

    def shard(self, num_shards: int, index: int) -> "_Interleaved":
        """Return both streams' parts, mixed by draws of the part's own, or each with the same fraction of tokens."""
        parts = (self.canonical.shard(num_shards, index), self.synthetic.shard(num_shards, index))
        address = f"{self.mixture.address}{index} of {num_shards}, "
        return _Interleaved(*parts, self.mixture._replace(address=address))


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
