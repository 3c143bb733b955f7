"""Errors as users should see them: one line and an exit code."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def user_errors(
    command: str, interrupted: str = "the same command goes on from the last checkpoint"
) -> Iterator[None]:
    """Turn ValueError into one line and exit code 2, and Ctrl-C into one line and exit code 130.

    `interrupted`: what the line says of Ctrl-C, such as how to go on.
    With HF_SYNTH_DEBUG=1 in the environment the traceback is shown as well.
    """
    # What TRL should call by another name is for TRL to know, not for whoever runs a recipe.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
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
