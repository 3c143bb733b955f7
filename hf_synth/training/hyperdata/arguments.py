"""What a hyperdata run trains on: canonical text, a language's documents among it, and explanations among those."""

import dataclasses

from hf_synth.corpora.arms import FORMS
from hf_synth.corpora.shares import UNITS, share_of
from hf_synth.corpora.text import CUTS
from hf_synth.tasks.base import nearest, whole_number

_UNIT_HELP = "a share of the documents, or of their tokens"


@dataclasses.dataclass
class CorpusArguments:
    """The corpus of one arm, a baseline by mix_ratio=0; none of it is read without `canonical`."""

    canonical: str | None = dataclasses.field(
        default=None, metadata={"help": 'Natural text: a file, a folder, an id on the Hub, or "stand_in".'}
    )
    canonical_config: str | None = dataclasses.field(default=None, metadata={"help": "A config of the Hub dataset."})
    canonical_split: str = dataclasses.field(default="train", metadata={"help": "A split of the Hub dataset."})
    canonical_revision: str | None = dataclasses.field(
        default=None, metadata={"help": "A revision of the Hub dataset."}
    )
    canonical_document: str = dataclasses.field(
        default="paragraph", metadata={"help": "What a document of .txt files is: paragraph, article, line or file."}
    )
    canonical_text_column: str = dataclasses.field(
        default="text", metadata={"help": "The column that holds the text, of all other sources."}
    )
    canonical_eval: str = dataclasses.field(
        default="0.05",
        metadata={
            "help": "Held-out natural text: a share of the canonical documents, a file or folder of its own, or the "
            "name of another split of the Hub dataset."
        },
    )
    canonical_eval_tokens: int = dataclasses.field(
        default=65_536, metadata={"help": "The most tokens of held-out natural text that a model is asked about."}
    )
    mix_ratio: float = dataclasses.field(
        default=0.1, metadata={"help": "The share of the language among canonical text; 0 is the baseline."}
    )
    mix_unit: str = dataclasses.field(
        default="documents", metadata={"help": f"What mix_ratio is: documents or tokens, {_UNIT_HELP}."}
    )
    explanation_ratio: float = dataclasses.field(
        default=0.0, metadata={"help": "The share of explanations among the language's documents, 0 to 1."}
    )
    explanation_form: str = dataclasses.field(
        default="source",
        metadata={"help": "statements, one block of all, or as in the source that the language is from."},
    )
    explanation_unit: str = dataclasses.field(
        default="documents", metadata={"help": f"What explanation_ratio is: documents or tokens, {_UNIT_HELP}."}
    )
    block_size: int = dataclasses.field(default=1024, metadata={"help": "Tokens in a block, which is a training row."})
    corpus_tokens: int | None = dataclasses.field(
        default=None,
        metadata={"help": "Tokens of the whole corpus, gone through in epochs; none: as many as the steps need."},
    )

    def __post_init__(self) -> None:
        """Check each value by itself, and that something is left to train on."""
        self.canonical = self.canonical or None
        self.canonical_eval = str(self.canonical_eval)
        for name in ("mix_ratio", "explanation_ratio"):
            share_of(name, getattr(self, name))
        for name, known in _CHOICES.items():
            if (given := getattr(self, name)) not in known:
                raise ValueError(f"{name}: got {given!r}; {nearest(given, known)}")
        least = self.block_size if isinstance(self.block_size, int) else 2
        for name, smallest in (("block_size", 2), ("canonical_eval_tokens", least), ("corpus_tokens", least)):
            if (value := getattr(self, name)) is not None and whole_number(name, value) < smallest:
                raise ValueError(f"{name}: got {value}, wanted at least {smallest} (block_size: {self.block_size})")
        if (share := self.held_out_share) is not None and not 0 < share < 1:
            raise ValueError(f"canonical_eval: got the share {self.canonical_eval}, wanted one above 0 and below 1")

    @property
    def held_out_share(self) -> float | None:
        """The share of the canonical documents that is held out; None where the held-out text is another one."""
        try:
            return float(self.canonical_eval)
        except ValueError:
            return None


_CHOICES = {
    "canonical_document": CUTS,
    "mix_unit": UNITS,
    "explanation_unit": UNITS,
    "explanation_form": FORMS,
}
