"""Publishes rows of random language models: python datasets_scripts/rlm.py --repo_id user/repo."""

from collections.abc import Mapping

from hf_synth.hub.command import main
from hf_synth.hub.publication import Offer, Publication, offered_tasks
from hf_synth.tasks import task_class

DEEP = "v128-l10-b2"  # 1,024 leaves a row, each a product with 128 x 128 x 128 rules at every level above it
DEEP_ROWS = {"train": 20_000, "validation": 2_000, "test": 2_000}


def offers() -> Mapping[str, Offer]:
    """Every preset, with fewer rows of the deepest one; floors of two take 4 and 160 ms a row."""
    quick = [preset for preset in task_class("rlm").presets if preset not in ("v128-l6-b2", DEEP)]
    offered = offered_tasks("rlm", presets=quick, measured=2_000)
    offered |= offered_tasks("rlm", presets=["v128-l6-b2"], measured=2_000, slow=True)
    return offered | offered_tasks("rlm", presets=[DEEP], rows=DEEP_ROWS, measured=200, slow=True)


PUBLICATION = Publication(
    name="rlm",
    title="Random language models",
    about="Leaves of random trees: context-free grammars whose rules are drawn at random, from nearly uniform to "
    "nearly frozen: `beta` sharpens them, and 0 makes all pairs of children equally likely. The last leaf, or each of "
    "them, is to be predicted from those before it.",
    offers=offers,
    citation="""
@article{degiuli2019random,
  title = {Random Language Model},
  author = {DeGiuli, Eric},
  journal = {Physical Review Letters},
  volume = {122},
  pages = {128301},
  year = {2019}
}

@article{degiuli2026scaling,
  title = {Scaling limit of the Random Language Model},
  author = {De Giuli, Eric},
  journal = {arXiv preprint arXiv:2606.28105},
  year = {2026}
}
""",
)

if __name__ == "__main__":
    main(PUBLICATION)
