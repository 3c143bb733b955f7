"""One metric per file: a pure function, and an `evaluate.Metric` over it where inputs are texts, labels or numbers.

Files import one another relatively. `evaluate.load` copies such imports too, so that a metric loads without hf_synth.
"""

import difflib
from pathlib import Path

NAMES = (
    "completion", "compression", "coverage", "deciles", "distinct_n", "em_dash", "excess_loss", "fact_types",
    "generation", "grammar_errors", "kl_divergence", "not_just", "pass_at_k", "perplexity", "policy_entropy",
    "policy_kl", "repetition", "self_bleu", "separation", "sequence_accuracy", "token_accuracy", "token_gini",
    "tone_spread", "validity", "variety", "vendi",
)  # fmt: skip


def path(name: str) -> str:
    """Return the path of a metric's file: `evaluate.load(hf_synth.metrics.path("perplexity"))`."""
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"got no metric named {name!r}; {hint}Known: {', '.join(NAMES)}.")
    return str(Path(__file__).with_name(f"{name}.py"))
