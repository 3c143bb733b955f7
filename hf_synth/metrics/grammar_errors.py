"""Grammar errors of natural text in any language, found by a checker that the caller passes."""

from collections.abc import Callable, Hashable, Sequence

from .base import SampleMetric
from .intervals import ratio_interval
from .units import entries, sums_by_prompt
from .words import letters_only, words


def grammar_errors(
    texts: Sequence[str], prompts: Sequence[Hashable], *, check: Callable[[str], int]
) -> dict[str, float]:
    """`grammar_errors`: errors per 100 words of all texts together, with its interval over prompts.

    texts: completions. prompts: which prompt each belongs to. check: how many errors a text has; for a formal
    language `validity` says more. A checker of 30 languages, which needs Java:

        tool = language_tool_python.LanguageTool("de-DE")
        grammar_errors(texts, prompts, check=lambda text: len(tool.check(text)))
    """
    counts = [100 * check(text) for text in texts]
    if min(counts, default=0) < 0:
        raise ValueError(f"grammar_errors: check gave {min(counts) // 100}, wanted a number of errors, 0 or more")
    sizes = [len(letters_only(words(text))) for text in texts]
    return entries("grammar_errors", ratio_interval(*sums_by_prompt(counts, sizes, prompts, "grammar_errors")))


class GrammarErrors(SampleMetric):
    """`grammar_errors` as a metric of `evaluate`: `compute(predictions=texts, references=prompts, check=...)`."""

    measure = staticmethod(grammar_errors)
