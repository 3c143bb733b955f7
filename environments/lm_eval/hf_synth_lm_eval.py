"""Any task of hf_synth for lm-eval: generated completions, judged by the task's verifier.

lm-eval decodes without special tokens, so that a stray `<sep>` is not seen. Nor is it seen whether a completion was
cut off: one with more words than the longest right completion of these rows counts as cut off.
"""

from typing import Any

from datasets import Dataset

from hf_synth import get_task, load_dataset
from hf_synth.tasks import task_from_json


def rows(name: str = "sort", preset: str | None = None, size: int = 1_000, **_: Any) -> dict[str, Dataset]:
    """The first rows of the test split: prompt, target, the task as JSON, and the most words of a target."""
    pairs = load_dataset(name, preset, split="test", size=size, view="prompt_completion").to_list()
    task, longest = get_task(name, preset).to_json(), max(len(pair["completion"].split()) for pair in pairs)
    of_task = {"task": task, "longest": longest}
    return {
        "test": Dataset.from_list([{"prompt": one["prompt"], "target": one["completion"], **of_task} for one in pairs])
    }


def verified(row: dict[str, Any], results: list[str]) -> dict[str, float]:
    """1.0 for a right completion, else 0.0."""
    (text,) = results
    right = len(text.split()) <= row["longest"] and task_from_json(row["task"]).verify(row["prompt"], text)
    return {"validity": float(right)}
