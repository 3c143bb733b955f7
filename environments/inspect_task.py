"""Any task of hf_synth as a task of inspect-ai: its prompts, scored by its verifier.

inspect eval environments/inspect_task.py -T name=dyck -T preset=k2-l16 --model hf/org/model
"""

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState, generate, system_message

from hf_synth import get_task, load_dataset
from hf_synth.tasks import task_from_json
from hf_synth.tasks.base import about


@scorer(metrics=[accuracy(), stderr()])
def verified() -> Scorer:
    """1.0 for a right and finished completion, else 0.0."""

    async def score(state: TaskState, target: Target) -> Score:
        text, judge = state.output.completion, task_from_json(state.metadata["task"])
        finished = state.output.stop_reason == "stop"
        return Score(value=judge.verify(state.input_text, text) if finished else 0.0, answer=text)

    return score


@task
def hf_synth(name: str = "sort", preset: str | None = None, split: str = "test", size: int = 100) -> Task:
    """`size` rows of a split; a task of your own is `name` = the path of its file."""
    described = get_task(name, preset)
    rows = load_dataset(name, preset, split=split, size=size, view="prompt_completion")
    samples = [
        Sample(input=row["prompt"], target=row["completion"].strip(), metadata={"task": described.to_json()})
        for row in rows
    ]
    rule = "\n".join(
        [about(described), *described.explanations(), "Reply with the words that follow, and nothing else."]
    )
    return Task(dataset=MemoryDataset(samples), solver=[system_message(rule), generate()], scorer=verified())
