"""Nothing in this folder needs a network; `tiny` and `structure` are shared by its tests."""

import importlib.util
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """Models this small lose more to threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny():
    """The module tiny.py next to this file, which worker.py imports too."""
    spec = importlib.util.spec_from_file_location("sampling_tiny", Path(__file__).with_name("tiny.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def broken_structure():
    """A checker of TRL's structure: the first fault found in a list of indices, or None."""

    def check(indices, group_size, batch_size, repeat_count):
        block = group_size * batch_size
        if len(indices) % (block * repeat_count):
            return f"{len(indices)} indices are no whole number of repeated batches"
        for start in range(0, len(indices), block * repeat_count):
            batch = indices[start : start + block]
            for first in range(0, block, group_size):
                if len(set(batch[first : first + group_size])) > 1:
                    return f"the group at {start + first} holds several rows"
            for repeat in range(repeat_count):
                if indices[start + repeat * block : start + (repeat + 1) * block] != batch:
                    return f"repeat {repeat} of the batch at {start} differs"
        return None

    return check
