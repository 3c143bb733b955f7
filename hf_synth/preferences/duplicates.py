"""Near duplicates: texts that share nearly all of their runs of three words, found by MinHash."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

_WORD = re.compile(r"\w+")
_RUN = 3  # words: a shared word says little, a shared run of three says that text was copied
_HASHES = 128
_BANDS = 16  # of eight hashes each: 95 in 100 pairs of texts of similarity 0.8 meet in one, and 999 in 1,000 of 0.9
_SEED = 0
_BATCH = 1024


class NearDuplicates:
    """Texts one batch after the other, and for each the first kept text that it nearly repeats.

    Similarity is Jaccard's: of all runs of three words of two texts, the share that both have. Words are compared
    without case and punctuation; a text of fewer than three words is one run. It is estimated from 128 hashes, with a
    standard error of at most 0.044 (0.035 at 0.8), so texts near the threshold may fall on either side of it, on all
    machines on the same one. Memory: about three kilobytes for each text that repeats none.

    Source: Broder (1997), On the resemblance and containment of documents.
    """

    def __init__(self, similarity: float = 0.8) -> None:
        """`similarity`: from which two texts are near duplicates, above 0 and at most 1."""
        if not 0 < similarity <= 1:
            raise ValueError(f"similarity is {similarity}: wanted a number above 0 and at most 1, such as 0.8.")
        from rensa import RMinHash, RMinHashDeduplicator

        self._sketches = RMinHash.from_token_sets
        self._kept = RMinHashDeduplicator(similarity, _HASHES, use_lsh=True, num_bands=_BANDS, seed=_SEED)
        self._rows = 0

    def add(self, texts: Sequence[str]) -> list[int]:
        """For each text its own number, counted over all calls, or that of the first kept text that it repeats."""
        found = []
        for sketch in self._sketches([word_runs(text) for text in texts], num_perm=_HASHES, seed=_SEED):
            if self._kept.add(str(self._rows), sketch):
                found.append(self._rows)
            else:
                found.append(min(map(int, self._kept.get_duplicates(sketch))))
            self._rows += 1
        return found


def near_duplicates(texts: Iterable[str], *, similarity: float = 0.8) -> np.ndarray:
    """For each of N texts the row of the first kept text that it nearly repeats, or its own row: [N] int64.

    A text is kept when it repeats none that was kept before it; see `NearDuplicates` for what similarity is.

    Raises:
        ValueError: a similarity that is not above 0 and at most 1.
    """
    index = NearDuplicates(similarity)
    found: list[int] = []
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            found += index.add(batch)
            batch.clear()
    return np.array(found + index.add(batch), dtype=np.int64)


def word_runs(text: str) -> list[str]:
    """The runs of three words of a text, in lower case and without punctuation; of a shorter text all of it."""
    words = _WORD.findall(text.lower())
    if len(words) < _RUN:
        return [" ".join(words) or text.strip()]
    return [" ".join(run) for run in zip(words, words[1:], words[2:], strict=False)]
