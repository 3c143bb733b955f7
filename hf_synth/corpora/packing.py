"""Documents end to end in blocks of one length, as for continued pretraining."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from hf_synth.corpora.streams import Stream
from hf_synth.errors import whole_number

_BATCH = 256  # documents that are tokenised together, and once more where a stream is resumed within them


class Packed(IterableDataset):
    """Blocks of exactly `block_size` ids: the documents' ids one after another, an end token after each.

    Yields {"input_ids", "labels"}, both int64 [block_size] and equal: models shift the labels themselves. A document
    may begin in one block and end in the next; what fills no block at the end is left out.

    `Trainer` takes it as `train_dataset`. Loader workers take shards of their own; ranks do so only by `shard`, which
    Trainer must not be given, as accelerate deals blocks to ranks itself. `iter` begins where `load_state_dict` said,
    else at the beginning, and `state_dict` is where the last iteration stands: the protocol of
    `datasets.IterableDataset` and `StatefulDataLoader`.
    """

    def __init__(self, stream: Stream, tokenizer: Any, block_size: int) -> None:
        """`tokenizer`: one of transformers, with an end token; special tokens that it would add are left out."""
        if whole_number("block_size", block_size) < 1:
            raise ValueError(f"block_size: got {block_size}, wanted at least 1")
        if tokenizer.eos_token_id is None:
            raise ValueError("tokenizer: got one without an end token; set tokenizer.eos_token")
        self.stream, self.tokenizer, self.block_size = stream, tokenizer, block_size
        self._begin = stream.state_dict(), np.empty(0, np.int64), 0
        self._at = self._begin

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Blocks from the beginning, or from the state that was loaded."""
        stream, (state, rest, made) = self._own_stream(), self._begin
        stream.load_state_dict(state)
        while True:
            before = stream.state_dict()
            texts = stream.read(_BATCH)["text"].to_pylist()
            if not texts:
                return
            ids = np.concatenate([rest, joined(texts, self.tokenizer)[0]])
            blocks = ids[: ids.size // self.block_size * self.block_size].reshape(-1, self.block_size)
            for number in range(made, len(blocks)):
                self._at = (before, rest, number + 1)
                block = torch.from_numpy(blocks[number])
                yield {"input_ids": block, "labels": block.clone()}
            rest, made = ids[blocks.size :], 0

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration stands, in values that JSON holds."""
        before, rest, made = self._at
        return {"stream": before, "rest": rest.tolist(), "blocks": made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let iterations begin where another one stood; at most 256 documents are tokenised again."""
        self._begin = self._at = state["stream"], np.array(state["rest"], np.int64), state["blocks"]

    def shard(self, num_shards: int, index: int) -> "Packed":
        """The blocks of one part of the documents, from its beginning."""
        return Packed(self.stream.shard(num_shards, index), self.tokenizer, self.block_size)

    def _own_stream(self) -> Stream:
        """Of several loader workers each has a part."""
        worker = get_worker_info()
        if worker is None or worker.num_workers == 1:
            return self.stream
        return self.stream.shard(worker.num_workers, worker.id)


def joined(texts: list[str], tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """The ids of texts one after another, an end token after each, and how many each text has; both int64."""
    end = [tokenizer.eos_token_id]
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    parts = [np.array([*ids, *end], np.int64) for ids in encoded]
    return np.concatenate(parts), np.array([part.size for part in parts], np.int64)
