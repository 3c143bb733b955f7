"""Any task of hf_synth as a verifiers taskset (v1): its prompts, and its verifier as the reward.

pip install hf_synth-checkout/environments/verifiers, then the id of the taskset is hf-synth-verifiers, and its config
is below. A task of your own is `task_name` = the path of its file.
"""

from collections.abc import Iterator

import verifiers.v1 as vf

from hf_synth import get_task, load_dataset
from hf_synth.tasks import task_from_json
from hf_synth.tasks.base import about

__all__ = ["HfSynthTaskset"]


class HfSynthData(vf.TaskData):
    task: str
    """The task as JSON: its name and config."""
    answer: str
    """A right completion; of a language there are others."""


class HfSynthTask(vf.Task[HfSynthData]):
    @vf.stop
    async def single_turn(self, trace: vf.Trace) -> bool:
        return trace.num_turns >= 1

    @vf.reward(weight=1.0)
    async def verified(self, trace: vf.Trace) -> float:
        """1.0 for a right and finished completion, else 0.0."""
        judge = task_from_json(self.data.task)
        return 0.0 if trace.is_truncated else judge.verify(self.data.prompt_text, trace.last_reply)


class HfSynthConfig(vf.TasksetConfig):
    task_name: str = "sort"
    preset: str | None = None
    split: str = "train"
    size: int = 1_000
    seed: int = 0


class HfSynthTaskset(vf.Taskset[HfSynthTask, HfSynthConfig]):
    def load(self) -> Iterator[HfSynthTask]:
        config = self.config
        task = get_task(config.task_name, config.preset)
        system = "\n".join([about(task), *task.explanations(), "Reply with the words that follow, and nothing else."])
        where = {"split": config.split, "size": config.size, "seed": config.seed}
        for row in load_dataset(config.task_name, config.preset, view="prompt_completion", **where):
            texts = {"prompt": row["prompt"], "answer": row["completion"].strip()}
            yield HfSynthTask(HfSynthData(system_prompt=system, task=task.to_json(), **texts), config.task)
