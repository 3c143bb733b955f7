"""Errors as users should see them: one line and an exit code."""

import contextlib
import errno
import logging
import os
import sys
import warnings
from collections.abc import Iterator

from safetensors import SafetensorError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TORCH_SAYS = ("PytorchStreamWriter failed writing file", "unexpected pos")


@contextlib.contextmanager
def user_errors(
    command: str, interrupted: str = "the same command goes on from the last checkpoint"
) -> Iterator[None]:
    """Turn ValueError and a full disk into one line and exit code 2, and Ctrl-C into one line and exit code 130.

    `interrupted`: what the line says of Ctrl-C, such as how to go on.
    With HF_SYNTH_DEBUG=1 in the environment the traceback is shown as well.
    """
    # What TRL should call by another name is for TRL to know, not for whoever runs a recipe.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
    logging.getLogger("transformers.modeling_utils").addFilter(_needed)
    try:
        yield
    except ValueError as error:
        if os.environ.get("HF_SYNTH_DEBUG") == "1":
            raise
        print(f"{command}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{command}: " + "; ".join(filter(None, ["interrupted", interrupted])), file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        full = no_room(error)
        if full is None or os.environ.get("HF_SYNTH_DEBUG") == "1":
            raise
        print(f"{command}: error: {full}; make room, then give the same command again", file=sys.stderr)
        sys.exit(2)


def _needed(record: logging.LogRecord) -> bool:
    """Not the advice to mask padding, where it stands on the right of a causal model and is seen from nowhere."""
    return "passing in an `attention_mask`" not in str(record.msg)


def no_room(error: BaseException | None) -> BaseException | None:
    """The error that says that a file could not be written in full, of one and those that led to it; or None.

    That is: a disk is full, a quota is used up, or a file has its largest size.
    """
    if error is None or _says_no_room(error):
        return error
    return no_room(error.__cause__ or error.__context__)


def _says_no_room(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    # Neither torch nor safetensors keeps the number of the system's error: they have words of their own.
    if isinstance(error, SafetensorError):
        return any(f"os error {number}" in str(error) for number in _NO_ROOM)
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH_SAYS)
