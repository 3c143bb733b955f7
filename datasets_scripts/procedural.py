"""Publishes procedural tasks: python datasets_scripts/procedural.py --repo_id user/repo --configs sort-64 stack-64."""

from collections.abc import Mapping

from hf_synth.hub.command import main
from hf_synth.hub.publication import Offer, Publication, offered_tasks

SEQUENCES = ("sort", "reverse", "identity", "set", "union", "delete", "stack")
BRACKETS = ("dyck", "dyck_shuffle")
OTHERS = ("eca", "haystack", "addition", "reversed_addition", "multiplication")
LONG_ROWS = {"train": 20_000, "validation": 2_000, "test": 2_000}


def offers() -> Mapping[str, Offer]:
    """Every preset of every task; fewer rows of brackets, of which the paper's own rows have 2,048."""
    return offered_tasks(*SEQUENCES) | offered_tasks(*BRACKETS, rows=LONG_ROWS) | offered_tasks(*OTHERS)


PUBLICATION = Publication(
    name="procedural",
    title="Procedural tasks",
    about="Sequences of symbols made by simple procedures: sorting, sets, stacks, brackets, cellular automata, "
    "retrieval and arithmetic, on which small models are trained before natural language, or instead of it.",
    offers=offers,
    citation="""
@article{jiang2026procedural,
  title = {Procedural Pretraining: Warming Up Language Models with Abstract Data},
  author = {Jiang, Liangze and Shinnick, Zachary and van den Hengel, Anton and Saratchandran, Hemanth and
    Teney, Damien},
  journal = {arXiv preprint arXiv:2601.21725},
  year = {2026}
}
""",
)

if __name__ == "__main__":
    main(PUBLICATION)
