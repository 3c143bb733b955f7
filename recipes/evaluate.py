"""Measure a checkpoint on a task: how far from the floor it is, what it writes, and at which lengths that holds.

    accelerate launch recipes/evaluate.py --model_name_or_path runs/procedural/sort --lengths 8 16 24 32
    accelerate launch recipes/evaluate.py --model_name_or_path ORG/MODEL --task sort --task_args '{"length": 16}'

Any checkpoint will do whose tokenizer knows the task's words; for a language of words any tokenizer will. Nothing is
trained. With --lm_eval FOLDER the same rows are written as tasks for lm-eval, whose numbers are the same.
"""

from collections.abc import Sequence
from pathlib import Path

from hf_synth.training.arguments import parse_recipe
from hf_synth.training.errors import user_errors
from hf_synth.training.locks import is_main_process
from hf_synth.training.measuring.arguments import MeasuringArguments
from hf_synth.training.measuring.run import evaluate


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the recipe; returns the output directory."""
    [arguments] = parse_recipe([MeasuringArguments], argv, about=__doc__)
    folder = evaluate(arguments)
    if is_main_process():
        print(f"Report: {folder / 'report.html'}")
    return folder


if __name__ == "__main__":
    with user_errors("evaluate.py", interrupted="nothing was measured"):
        main()
