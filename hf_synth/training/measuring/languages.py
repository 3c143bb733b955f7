"""What a model knows of a language: strings that it samples, and what it expects at the points of decision."""

from typing import Any

import numpy as np
import torch

from hf_synth.metrics.completion import completion
from hf_synth.metrics.generation import generation
from hf_synth.tasks.base import BOS, EOS, Rows, Task
from hf_synth.tasks.families.grammars import Grammar
from hf_synth.tokenization import all_words
from hf_synth.training.hyperdata.scores import language_scores
from hf_synth.training.measuring.generating import completions, texts
from hf_synth.training.measuring.model import Measured
from hf_synth.training.measuring.rows import share_of
from hf_synth.training.measuring.sharing import shared


def is_language(task: Task, rows: Rows) -> bool:
    """Whether whole rows are to be foretold, and some texts are wrong: then strings can be sampled and judged."""
    return task.verifiable and bool((rows.loss_start == 1).all())


def language_measures(
    measured: Measured, task: Task, rows: Rows, ids: np.ndarray | None, *, split: str, samples: int, seed: int
) -> dict[str, float]:
    """Measures of a language, each `language/NAME`: those of `language_scores` for a Grammar, of any tokenizer.

    seed: of rows and of samples.
    Other languages, such as dyck: validity, distinct and coverage of sampled strings, and the completion tests.
    """
    if isinstance(task, Grammar):
        asked: dict[str, Any] = {"rows": min(len(rows), samples), "split": split, "rows_seed": seed}
        asked |= {"samples": samples, "seed": seed}
        model, tokenizer, size = measured.model, measured.tokenizer, measured.batch_size
        # One process does it: its samples come in an order that batches on several would change.
        found = shared(lambda _: language_scores(model, tokenizer, task, batch_size=size, **asked), 1)[0]
    else:
        assert ids is not None  # only grammars are read by tokenizers that split words
        found = {**_sampled(measured, task, rows, ids, samples, seed), **_decided(measured, task, ids)}
    found |= share_of("validity", np.arange(samples) < round(found["validity"] * samples))
    return {f"language/{name}": value for name, value in found.items()}


def _sampled(measured: Measured, task: Task, rows: Rows, ids: np.ndarray, samples: int, seed: int) -> dict[str, float]:
    end, longest = int(ids[EOS]), int(rows.lengths.max())
    written = completions(measured, [[int(ids[BOS])]] * samples, [2 * longest] * samples, end=end, seed=seed)
    strings = texts(measured, written, end)
    valid = [float(text is not None and task.verify("", text) == 1.0) for text in strings]
    contents, one_length = task.contents(), (rows.lengths == longest).all()
    counts = {longest - 2: contents} if contents and one_length else None
    return generation(strings, valid, counts=counts)


@torch.no_grad()
def _decided(measured: Measured, task: Task, ids: np.ndarray) -> dict[str, float]:
    """P(next word) at each decision point."""
    points = task.decision_points()
    if not points:
        return {}
    id_of = dict(zip(all_words(task), ids.tolist(), strict=True))
    chances = []
    for point in points:
        given = [int(ids[BOS]), *(id_of[word] for word in point.prefix.split())]
        logits = measured.model(input_ids=torch.tensor([given], device=measured.model.device)).logits[0, -1]
        chances.append(logits.double().softmax(-1).cpu().numpy())
    right, wrong = (
        [chance[[id_of[word] for word in words]].tolist() for chance, words in zip(chances, side, strict=True)]
        for side in ([point.valid for point in points], [point.invalid for point in points])
    )
    return completion([point.name for point in points], right, wrong)
