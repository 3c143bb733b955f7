"""Publishes facts, compositions and analogies: python datasets_scripts/analogy.py --repo_id user/repo."""

from collections.abc import Mapping

from hf_synth.hub.command import main
from hf_synth.hub.publication import Offer, Publication, offered_tasks

OVERLAP = (
    "by design: validation and test hold every fact, as in the paper, those of train (`fact_type` `id_...`) included; "
    "`--holdout content` leaves those out"
)


def offers() -> Mapping[str, Offer]:
    """Every preset; the number of rows is that of the facts."""
    return offered_tasks("analogy", overlap=OVERLAP)


PUBLICATION = Publication(
    name="analogy",
    title="Analogical reasoning",
    about="Facts of a knowledge graph, their compositions, and a functor that maps one part of the graph to another: "
    "which facts a model infers that it was never trained on. The three `..._ood_ratio` of a config say how much of "
    "each kind of fact is held out of train.",
    offers=offers,
    columns={
        "fact_type": "what the row is, and whether it is in distribution (`id_...`) or held out of train",
        "functor_image": "what the functor maps the row's first entity to; empty where it maps it nowhere",
        "answers": "how many rows of the split share the prompt",
    },
    citation="""
@article{minegishi2026emergent,
  title = {Emergent Analogical Reasoning in Transformers},
  author = {Minegishi, Gouki and Feng, Jingyuan and Furuta, Hiroki and Kojima, Takeshi and Iwasawa, Yusuke and
    Matsuo, Yutaka},
  journal = {arXiv preprint arXiv:2602.01992},
  year = {2026}
}
""",
)

if __name__ == "__main__":
    main(PUBLICATION)
