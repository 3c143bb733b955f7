"""Other people's environments give our verifier's rewards to right, corrupted, random and unfinished answers."""

import asyncio
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from hf_synth import build_tokenizer, get_task, load_dataset
from hf_synth.rewards import verifier
from hf_synth.tasks import list_tasks, task_class

ROOT = Path(__file__).resolve().parents[1] / "environments"
TASKS = [name for name in list_tasks() if task_class(name).verifiable]
COUNTS = [12, pytest.param(1_000, marks=pytest.mark.nightly)]


class Answer(NamedTuple):
    """A completion of row `row`; `finished`: whether the model ended it."""

    row: int
    prompt: str
    text: str
    finished: bool


def answers(name, count, split="train"):
    """A quarter each: right, corrupted, random words, and right but cut off or running on without an end."""
    pairs, words = load_dataset(name, split=split, size=count, view="preference"), get_task(name).vocabulary()
    rng = np.random.default_rng(0)
    longest = max(len(pair["chosen"].split()) for pair in pairs)
    made = []
    for row, pair in enumerate(pairs):
        some = " ".join(rng.choice(words, rng.integers(1, longest + 1)))
        right = pair["chosen"].strip()
        running_on = " ".join([*right.split(), *rng.choice(words, longest)][: longest + 1])
        texts = (right, pair["rejected"].strip(), some, right if row % 8 == 3 else running_on)
        made.append(Answer(row, pair["prompt"], texts[row % 4], row % 4 != 3))
    return made


def expected(name, made):
    """The rewards that our recipes give to the same answers."""
    tokenizer = build_tokenizer(get_task(name))
    end = [tokenizer.eos_token_id]
    ids = [tokenizer(one.text, add_special_tokens=False).input_ids + end * one.finished for one in made]
    given = verifier(get_task(name), tokenizer)([one.prompt for one in made], [one.text for one in made], ids)
    assert 0 < sum(given) < len(given)
    return given


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    for folder in (ROOT, ROOT / "verifiers", ROOT / "openenv", ROOT / "lm_eval"):
        monkeypatch.syspath_prepend(str(folder))


def of_verifiers(name, made, monkeypatch):
    vf = pytest.importorskip("verifiers.v1", reason="verifiers is not installed")
    from verifiers.v1.utils.loaders import load_taskset, taskset_class

    config = taskset_class("hf-synth-verifiers").__orig_bases__[0].__args__[1]
    tasks = load_taskset(config(id="hf-synth-verifiers", task_name=name, size=len(made)))

    async def scores():
        given = []
        for task, one in zip(tasks, made, strict=True):
            assert task.data.prompt == one.prompt
            told = vf.Trace.model_construct(
                task=None, stop_condition=None, root_reply=one.text, rewards={}, metrics={}, nodes=[],
                calls=[vf.ModelCall(finish_reason="stop" if one.finished else "length")],
            )  # fmt: skip
            await task.score(told)
            given.append(told.rewards["verified"].value)
        return given

    return asyncio.run(scores())


def of_openenv(name, made, monkeypatch):
    pytest.importorskip("openenv.core", reason="openenv-core is not installed")
    from hf_synth_openenv import Completion, HfSynthEnvironment

    monkeypatch.setenv("HF_SYNTH_TASK", name)
    environment, given = HfSynthEnvironment(), []
    for one in made:
        assert environment.reset(seed=one.row).prompt == one.prompt
        seen = environment.step(Completion(text=one.text, finished=one.finished))
        assert seen.done
        given.append(seen.reward)
    return given


def of_inspect(name, made, monkeypatch):
    pytest.importorskip("inspect_ai", reason="inspect-ai is not installed")
    from inspect_ai.model import ModelName, ModelOutput
    from inspect_ai.solver import TaskState
    from inspect_task import hf_synth

    task = hf_synth(name, split="train", size=len(made))
    (score,) = task.scorer

    async def scores():
        given = []
        for sample, one in zip(task.dataset, made, strict=True):
            assert sample.input == one.prompt
            output = ModelOutput.from_content("mockllm/model", one.text, "stop" if one.finished else "max_tokens")
            state = TaskState(
                model=ModelName("mockllm/model"), sample_id=one.row, epoch=0, input=sample.input, messages=[],
                output=output, metadata=sample.metadata,
            )  # fmt: skip
            given.append((await score(state, None)).value)
        return given

    return asyncio.run(scores())


def of_lm_eval(name, made, monkeypatch):
    """Only texts are seen: one that is cut off is longer than every right one."""
    from hf_synth_lm_eval import rows, verified

    told = rows(name, size=made[-1].row + 1)["test"]
    assert all(told[one.row]["prompt"] == one.prompt for one in made)
    return [verified(told[one.row], [one.text])["validity"] for one in made]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("of", [of_verifiers, of_openenv, of_inspect], ids=["verifiers", "openenv", "inspect"])
def test_environments_give_our_rewards(of, name, count, monkeypatch):
    made = answers(name, count)
    assert of(name, made, monkeypatch) == expected(name, made)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", TASKS)
def test_lm_eval_gives_our_rewards(name, count, monkeypatch):
    made = [one for one in answers(name, count, "test") if one.row % 8 != 3]
    assert of_lm_eval(name, made, monkeypatch) == expected(name, made)
