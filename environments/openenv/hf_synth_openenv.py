"""Any task of hf_synth as an OpenEnv environment: an episode is one prompt and one completion.

    HF_SYNTH_TASK=dyck HF_SYNTH_PRESET=k2-l16 uvicorn hf_synth_openenv:app

`reset(seed=N)` asks for row N of the train split; without a seed each reset asks for the next row.
"""

import os
from typing import Any

from openenv.core import EnvClient
from openenv.core.client_types import StepResult
from openenv.core.env_server.http_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

from hf_synth import get_task
from hf_synth.tasks.base import about
from hf_synth.views import view_table


class Completion(Action):
    """The text, and whether the model ended it by itself; what was cut off is wrong."""

    text: str
    finished: bool = True


class Prompt(Observation):
    """What is to be continued, and the rule in words."""

    prompt: str = ""
    rule: str = ""


class HfSynthEnvironment(Environment[Completion, Prompt, State]):
    """The reward of the one step is the task's verdict: 1.0 or 0.0."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self.task = get_task(os.environ.get("HF_SYNTH_TASK", "sort"), os.environ.get("HF_SYNTH_PRESET"))
        self.row, self.asked, self._state = -1, Prompt(), State()

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> Prompt:
        self.row = self.row + 1 if seed is None else seed
        prompt = view_table(self.task, "prompt_completion", self.row, 1, split="train", seed=0)["prompt"][0].as_py()
        rule = "\n".join([about(self.task), *self.task.explanations()])
        self._state = State(episode_id=episode_id, step_count=0)
        self.asked = Prompt(prompt=prompt, rule=rule)
        return self.asked

    def step(self, action: Completion, timeout_s: float | None = None, **kwargs: Any) -> Prompt:
        self._state.step_count += 1
        reward = self.task.verify(self.asked.prompt, action.text) if action.finished else 0.0
        return self.asked.model_copy(update={"done": True, "reward": reward})

    @property
    def state(self) -> State:
        return self._state


class HfSynthClient(EnvClient[Completion, Prompt, State]):
    """Asks a server: `with HfSynthClient(base_url="http://localhost:8000").sync() as env: env.reset()`."""

    def _step_payload(self, action: Completion) -> dict[str, Any]:
        return action.model_dump()

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[Prompt]:
        outcome = {"reward": payload.get("reward"), "done": payload.get("done", False)}
        return StepResult(observation=Prompt(**{**payload["observation"], **outcome}), **outcome)

    def _parse_state(self, payload: dict[str, Any]) -> State:
        return State(**payload)


app = create_app(HfSynthEnvironment, Completion, Prompt, env_name="hf_synth_openenv", max_concurrent_envs=64)


def main() -> None:
    """Serve on port 8000."""
    import uvicorn

    uvicorn.run(app, host="0.0.0.0", port=8000)
