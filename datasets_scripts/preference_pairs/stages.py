"""What a long command is at, and how long each part of it took."""

import contextlib
import logging
import time
from collections.abc import Iterator

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Log the name now and the seconds afterwards, by the clock and of processor time, at level INFO."""
    logger.info("%s ...", name)
    start, busy = time.perf_counter(), time.process_time()
    yield
    logger.info("%s: %.1f s, %.1f s busy", name, time.perf_counter() - start, time.process_time() - busy)
