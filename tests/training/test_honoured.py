"""What a recipe is given reaches what it trains: a library's own values as they are, and ours by what they change."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import pytest
import transformers
import yaml

from hf_synth import build_tokenizer, get_task
from hf_synth.models import RopeGPTConfig, RopeGPTForCausalLM
from hf_synth.training.arguments import _RULES as RULES
from hf_synth.training.arguments import parse_recipe

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes"))
RECIPES = {name: importlib.import_module(name) for name in ("pretrain", "sft", "dpo", "reward", "grpo")}
VALUES = yaml.safe_load(Path(__file__).with_name("values.yaml").read_text(encoding="utf-8"))
OF_US = {"task": "sort", "preset": "8"}


class ReachedError(Exception):
    """What was to be reached; its argument is the trainer, or the arguments."""


def taken(recipe):
    """The fields of a library's dataclass that a recipe does not refuse."""
    classes = RECIPES[recipe].CLASSES
    kinds = {kind.__name__ for part in classes for kind in part.__mro__} | {
        f"only:{part.__name__}" for part in classes
    }
    refused = [rule["fields"].split() for rule in RULES["refused"] if kinds & set(rule["of"].split())]
    return {field.name for field in dataclasses.fields(classes[-1]) if field.init} - set().union(*refused)


def library_values(recipe):
    """The groups of values that one run takes together, and what only other machines take."""
    names, supervised = taken(recipe), VALUES["supervised"] if recipe in ("sft", "dpo", "reward") else {}
    mine = VALUES["every"] | supervised | VALUES[recipe]
    return {name: {field: value for field, value in group.items() if field in names} for name, group in mine.items()}


def as_flags(values):
    words = []
    for name, value in values.items():
        many = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else str(value)]
        words += [f"--{name}", *map(str, many)]
    return words


@pytest.mark.parametrize("as_flag", [False, True])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_library_is_handed_what_was_given(recipe, as_flag, tmp_path, monkeypatch):
    """Also what only accelerators, clusters and libraries that are not installed here take: they get it unchanged."""

    def stop(args):
        raise ReachedError(vars(args).copy())

    kind = RECIPES[recipe].CLASSES[-1]
    monkeypatch.setattr(kind, "__post_init__", stop)
    values = {name: value for group in library_values(recipe).values() for name, value in group.items()}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(OF_US if as_flag else OF_US | values))
    with pytest.raises(ReachedError) as reached:
        parse_recipe(
            RECIPES[recipe].CLASSES,
            ["--config", str(tmp_path / "config.yaml"), *(as_flags(values) if as_flag else ())],
        )
    handed = reached.value.args[0]
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    assert {name: handed[name] for name in values} == values
    assert [name for name in values if values[name] == defaults[name]] == [], "the default shows nothing"


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A policy for the task sort, untrained."""
    folder, tokenizer = tmp_path_factory.mktemp("policy"), build_tokenizer(get_task("sort", "8"))
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    RopeGPTForCausalLM(RopeGPTConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Run a recipe until its training begins; returns the trainer."""

    def stop(trainer, *args, **kwargs):
        raise ReachedError(trainer)

    monkeypatch.setattr(transformers.Trainer, "train", stop)
    monkeypatch.chdir(tmp_path)

    def launch(recipe, values):
        Path("config.yaml").write_text(yaml.safe_dump(values))
        with pytest.raises(ReachedError) as reached:
            RECIPES[recipe].main(["--config", "config.yaml"])
        return reached.value.args[0]

    return launch


ON_A_CPU = {"use_cpu": True, "bf16": False, "report_to": "none", "output_dir": "run", "max_steps": 4}
GROUPS = [
    (recipe, group)
    for recipe in RECIPES
    for group, values in library_values(recipe).items()
    if values and group not in ("elsewhere", "vllm")
]


@pytest.mark.parametrize(("recipe", "group"), GROUPS)
def test_the_trainer_has_what_was_given(recipe, group, begin, policy):
    """Each as the library's own dataclass makes it of the same values, and loader and optimizer as Trainer's."""
    values = ON_A_CPU | library_values(recipe)[group]
    ours = OF_US if recipe == "pretrain" else {**OF_US, "num_rows": 32, "density_k": 2, "model_name_or_path": policy}
    if recipe == "grpo":
        ours, values = ours | {"eval_prompts": 0}, {"num_generations": 2} | values
    wanted = RECIPES[recipe].CLASSES[-1](**values)
    trainer = begin(recipe, ours | values)
    pairs = {name: (getattr(trainer.args, name), getattr(wanted, name)) for name in taken(recipe)}
    assert {name: pair for name, pair in pairs.items() if pair[0] != pair[1]} == {}
    if group not in ("plain", "momentum"):
        return
    loader = trainer.get_train_dataloader()
    for name in ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor", "multiprocessing_context"):
        value = getattr(loader, name)
        assert getattr(value, "_name", value) == getattr(wanted, f"dataloader_{name}"), name
    made = []
    for each in (trainer, transformers.Trainer(trainer.model, wanted, eval_dataset=trainer.eval_dataset)):
        each.create_optimizer_and_scheduler(4)
        settings = [{**one, "fused": None} for one in each.optimizer.state_dict()["param_groups"]]  # the same numbers
        made.append((type(each.optimizer), settings, each.lr_scheduler.state_dict()["_last_lr"]))
    assert made[0] == made[1]
