"""Which of a run's many measures a table shows, and in which order; and the order of groups of rows."""

from collections.abc import Collection, Iterable

from hf_synth.tasks.families.knowledge_graph import KINDS

_PARTS = ("all", "head", "tail")
# Names in the order of a table; those that end in "/" stand for the three parts of the prompts.
_ORDER = (
    "halves/validity/common", "halves/validity/rare", "halves/sampled_reward/common", "halves/sampled_reward/rare",
    "validity/", "reward/", "pass_at_4/", "variety/", "coverage/",
    "collapse/em_dash", "collapse/not_just", "collapse/tone_spread", "collapse/token_gini", "collapse/distinct_1",
    "collapse/distinct_2", "collapse/compression", "collapse/repetition", "collapse/self_bleu", "collapse/vendi",
    "collapse/variety", "entropy/mean", "kl/mean", "length", "finished",
    "equal_kl/halves/validity/common", "equal_kl/halves/validity/rare", "equal_kl/validity", "equal_kl/sampled_reward",
    "equal_kl/sampled_reward/crowded", "equal_kl/sampled_reward/rare", "equal_kl/entropy", "equal_kl/kl",
    "accuracy/held_out", "accuracy/test", "row_accuracy/test", "loss/held_out", "loss/test", "excess/test",
)  # fmt: skip


def headlines(names: Collection[str]) -> list[str]:
    """Of the names of measures those that a reader looks at first, in the order of a table."""
    order = [f"{name}{part}" for name in _ORDER for part in (_PARTS if name.endswith("/") else ("",))]
    return [name for name in order if name in names]


def in_order(groups: Iterable[str]) -> list[str]:
    """Types of facts as they are learned: memorised, composed, analogised; other groups by name, after them."""
    return sorted(groups, key=lambda name: (KINDS.index(name) if name in KINDS else len(KINDS), name))
