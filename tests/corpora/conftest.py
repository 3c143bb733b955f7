"""What the tests of corpora share: streams of numbered documents, and states that went through JSON."""

import json
from collections.abc import Callable

import pyarrow as pa
import pytest

from hf_synth.corpora.streams import Numbered, Stream, of_kind


class Counted:
    """Documents "w w w 17": `words` words, the last of which is the document's number."""

    def __init__(self, size: int | None = None, *, kind: str = "canonical", words: int = 5) -> None:
        self.size, self.kind, self.words = size, kind, words

    def table(self, start: int, count: int) -> pa.Table:
        lead = "w " * (self.words - 1)
        return of_kind(pa.array([f"{lead}{number}" for number in range(start, start + count)], pa.string()), self.kind)


@pytest.fixture(scope="session")
def counted() -> Callable[..., Numbered]:
    """A stream of documents that end in their number."""
    return lambda *size, **options: Numbered(Counted(*size, **options))


@pytest.fixture(scope="session")
def numbers() -> Callable[[pa.Table, str], list[int]]:
    """The numbers of the documents of one kind."""
    return lambda table, kind: [int(row["text"].split()[-1]) for row in table.to_pylist() if row["kind"] == kind]


@pytest.fixture(scope="session")
def resumed() -> Callable[[Stream, Stream], Stream]:
    """Another stream, put where the first one stands by way of JSON."""

    def put(stream: Stream, other: Stream) -> Stream:
        other.load_state_dict(json.loads(json.dumps(stream.state_dict())))
        return other

    return put
