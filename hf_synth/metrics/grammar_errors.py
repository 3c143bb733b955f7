"""Grammar errors per 100 words, counted by a checker that the caller passes, in any language."""

from collections.abc import Callable, Hashable, Sequence

from .base import as_metric
from .intervals import entries, ratio_interval
from .words import letters_only, words


def grammar_errors(
    texts: Sequence[str], prompts: Sequence[Hashable], *, check: Callable[[str], int]
) -> dict[str, float]:
    """`grammar_errors`: errors per 100 words of all texts together, with its interval over prompts.

    texts: completions. prompts: which prompt each belongs to. check: returns the number of errors in
    a text. For formal languages use `validity`. A checker for 30 languages, which needs Java:

        tool = language_tool_python.LanguageTool("de-DE")
        grammar_errors(texts, prompts, check=lambda text: len(tool.check(text)))
    """
    counts = [100 * check(text) for text in texts]
    if min(counts, default=0) < 0:
        raise ValueError(f"grammar_errors: check returned {min(counts) // 100}, wanted a number of errors, 0 or more")
    sizes = [len(letters_only(words(text))) for text in texts]
    return entries("grammar_errors", ratio_interval(counts, sizes, prompts, "grammar_errors"))


GrammarErrors = as_metric(grammar_errors)
