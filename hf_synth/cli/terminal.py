"""What a terminal shows and a pipe does not: weight of letters, and lines no longer than it is wide."""

import os
import shutil
from typing import TextIO


class Terminal:
    """Emphasis for a stream that is a terminal; plain text for a pipe, a file, and wherever NO_COLOR is set.

    `width`: the columns of a terminal, else None.
    """

    def __init__(self, stream: TextIO) -> None:
        """`stream`: where the text goes."""
        self.width = shutil.get_terminal_size().columns if stream.isatty() else None
        self.styled = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def strong(self, text: str) -> str:
        """In bold."""
        return f"\x1b[1m{text}\x1b[0m" if self.styled else text

    def faint(self, text: str) -> str:
        """In a lighter shade."""
        return f"\x1b[2m{text}\x1b[0m" if self.styled else text
