"""Publishes small languages and their corpora: python datasets_scripts/grammars.py --repo_id user/repo."""

from collections.abc import Mapping

from hf_synth.hub.command import main
from hf_synth.hub.corpora import offered_corpora
from hf_synth.hub.publication import Offer, Publication, offered_tasks

LANGUAGES = ("start_mid_end", "color_shape", "palindrome", "tivari", "tivari3")


def offers() -> Mapping[str, Offer]:
    """Every preset of every language, and the corpora of each: examples, and 1, 5, 10 and 100 % explanations."""
    return {**offered_tasks(*LANGUAGES, "agreement"), **offered_corpora(*LANGUAGES)}


PUBLICATION = Publication(
    name="grammars",
    title="Small languages and their explanations",
    about="Sentences of small formal languages whose rules fit into a few lines, as examples alone, and as corpora "
    "of examples mixed with explanations of the rule in English.",
    offers=offers,
    languages=("en",),
    columns={"kind": "`example` or `explanation`"},
)

if __name__ == "__main__":
    main(PUBLICATION)
