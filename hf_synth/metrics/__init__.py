"""One metric per file: a pure function, and an `evaluate.Metric` over it where inputs are texts, labels or numbers.

Files import one another relatively. `evaluate.load` copies such imports too, so that a metric loads without hf_synth.
"""

import difflib
from pathlib import Path

_SHARED = {"__init__", "base", "checks", "geometry", "intervals", "words"}  # files that are no metric of `evaluate`
NAMES = tuple(sorted({path.stem for path in Path(__file__).parent.glob("*.py")} - _SHARED))


def path(name: str) -> str:
    """Return the path of a metric's file: `evaluate.load(hf_synth.metrics.path("perplexity"))`."""
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"got no metric named {name!r}; {hint}Known: {', '.join(NAMES)}.")
    return str(Path(__file__).with_name(f"{name}.py"))
