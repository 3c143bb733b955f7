"""What a recipe is given reaches what it trains: a library's own values as they are, and ours by what they change."""

import dataclasses
import enum
import hashlib
import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from types import NoneType
from typing import get_args, get_origin, get_type_hints

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
import yaml
from datasets import Dataset
from huggingface_hub import constants
from transformers import AutoTokenizer

from hf_synth import build_tokenizer, get_task, preferences
from hf_synth.corpora import splits
from hf_synth.corpora.splits import CorpusArguments
from hf_synth.evaluation import generation
from hf_synth.evaluation.generation import generate
from hf_synth.experiments.arms import COMPARISON, as_flags
from hf_synth.hub import publish
from hf_synth.models import RopeGPTConfig, RopeGPTForCausalLM, RopeGPTForSequenceClassification
from hf_synth.reports import write_report
from hf_synth.training import arguments
from hf_synth.training.arguments import _RULES as RULES
from hf_synth.training.arguments import WeightArguments, parse_recipe, yaml_text
from hf_synth.training.weighting import weigh_rows

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes"))
RECIPES = {name: importlib.import_module(name) for name in ("pretrain", "sft", "dpo", "reward", "grpo")}
VALUES = yaml.safe_load(Path(__file__).with_name("values.yaml").read_text(encoding="utf-8"))
EFFECTS = yaml.safe_load(Path(__file__).with_name("effects.yaml").read_text(encoding="utf-8"))
HONOURED = yaml.safe_load(Path(__file__).with_name("honoured.yaml").read_text(encoding="utf-8"))
ELSEWHERE = ("elsewhere", "vllm")  # groups that a CPU does not take
BY_STEPS = {"logging_strategy", "save_strategy"}  # of rows without end: test_pretraining.py
OF_US = {"task": "sort", "preset": "8"}


class ReachedError(Exception):
    """What was to be reached; its argument is the trainer, or the arguments."""


def refused_by(classes):
    """The fields that a recipe of these dataclasses refuses."""
    kinds = {kind.__name__ for part in classes for kind in part.__mro__} | {
        f"only:{part.__name__}" for part in classes
    }
    return {name for rule in RULES["refused"] if kinds & {*rule["of"].split()} for name in rule["fields"].split()}


def taken(recipe):
    """The fields of a library's dataclass that a recipe does not refuse."""
    classes = RECIPES[recipe].CLASSES
    return {field.name for field in dataclasses.fields(classes[-1]) if field.init} - refused_by(classes)


def library_values(recipe):
    """The groups of values that one run takes together, and what only other machines take."""
    names, supervised = taken(recipe), VALUES["supervised"] if recipe in ("sft", "dpo", "reward") else {}
    mine = VALUES["every"] | supervised | VALUES[recipe]
    return {name: {field: value for field, value in group.items() if field in names} for name, group in mine.items()}


# What a recipe cannot be given, for want of what a rule wants beside it, or because the dataclass itself refuses it.
OUT_OF_REACH = {
    "sft": {"prompts_split"},
    "reward": {"prompts_split"},
    "dpo": {"prompts_split", "model_type", "new_model", "gpt2_size", "tokenizer_vocab_size"},
    "density": {"source_shares"},
}


@pytest.mark.parametrize("recipe", [*RECIPES, "density", "evaluation"])
def test_every_field_is_given_to_every_recipe_that_takes_it(recipe):
    """Those that honoured.yaml says to be held by the tests here."""
    module = importlib.import_module(recipe)
    classes = getattr(module, "CLASSES", None) or (module.MeasuringArguments,)
    here = {"handed": set(), "has": set(), "changes": set()}
    for kind in {kind.__name__ for part in classes for kind in part.__mro__} & HONOURED.keys():
        for test, fields in (HONOURED[kind] or {}).items():
            for name, ending in (("handed", "is_handed_what_was_given"), ("has", "has_what_was_given")):
                here[name] |= set(fields.split()) if test.endswith(ending) else set()
            here["changes"] |= set(fields.split()) if "a_field_of_ours" in test else set()
    groups = library_values(recipe) if recipe in RECIPES else {}
    on_cpu = {name for group, values in groups.items() if group not in ELSEWHERE for name in values}
    refused = refused_by(classes)
    assert here["has"] - on_cpu - refused == (BY_STEPS if recipe == "pretrain" else set())
    assert here["handed"] - {name for values in groups.values() for name in values} - refused == set()
    changed = {name for case in EFFECTS if recipe in case["recipes"] for name in case["changes"]}
    assert here["changes"] - changed - refused == OUT_OF_REACH.get(recipe, set())


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


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_flag_takes_what_yaml_takes(recipe, tmp_path, monkeypatch):
    """Values of each type of a library's field of several types, and null where there may be none."""
    kind, path = RECIPES[recipe].CLASSES[-1], tmp_path / "config.yaml"
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name in taken(recipe)}
    kinds = {name: [one for one in get_args(hint) if one is not NoneType] for name, hint in hints.items()}
    several = {name for name, each in kinds.items() if get_origin(hints[name]) is not list and len(each) > 1}
    cases = {name: VALUES["several"][name] for name in several}
    for name, each in kinds.items():
        if NoneType in get_args(hints[name]) and str not in each:
            cases[name] = [*VALUES["several"].get(name, []), None]
    monkeypatch.setattr(arguments, "check_honoured", lambda *_: None)  # what a field needs beside it

    def stop(args):
        raise ReachedError(vars(args).copy())

    def handed(name, values, flags=()):
        path.write_text(yaml_text(OF_US | values))
        with pytest.raises(ReachedError) as reached:
            parse_recipe(RECIPES[recipe].CLASSES, ["--config", str(path), *flags])
        return repr(reached.value.args[0][name])

    monkeypatch.setattr(kind, "__post_init__", stop)
    for name, value in ((name, value) for name, values in cases.items() for value in values):
        flags = [f"--{name}", "null"] if value is None else as_flags({name: value})
        assert handed(name, {name: value}) == handed(name, {}, flags) == repr(value), name


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_value_that_is_none_of_the_names_is_refused_by_name(recipe, tmp_path):
    """By flag and by YAML alike, of every field that takes names."""
    kind, path = RECIPES[recipe].CLASSES[-1], tmp_path / "config.yaml"
    choices = {name: rule["choices"] for name, rule in arguments.limits_of(kind).items() if "choices" in rule}
    for field in dataclasses.fields(kind):
        enums = [one for one in get_args(get_type_hints(kind)[field.name]) if isinstance(one, enum.EnumMeta)]
        known = [each.value for each in enums[0]] if enums else field.metadata.get("choices")
        choices |= {field.name: known} if known and field.name not in choices else {}
    names = taken(recipe) & choices.keys()
    assert names >= {"optim", "lr_scheduler_type", "save_strategy", "ddp_backend", "debug", "log_level"}
    for name in names:
        nearly = f"{max(map(str, choices[name]), key=len)}s"
        beside = {need: True for rule in RULES["needs"] if name in rule["fields"].split()
                  for need in rule["beside"].split()[:1]}  # fmt: skip
        beside |= {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
        for values, flags in ((OF_US | beside | {name: nearly}, []), (OF_US | beside, [f"--{name}", nearly])):
            path.write_text(yaml_text(values))
            with pytest.raises(ValueError, match=rf"^{name}: got '{nearly}'; did you mean '{nearly[:-1]}'\? Known: "):
                parse_recipe(RECIPES[recipe].CLASSES, ["--config", str(path), *flags])


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A policy for the task sort, untrained."""
    folder, tokenizer = tmp_path_factory.mktemp("policy"), build_tokenizer(get_task("sort", "8"))
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.set_seed(7)  # another than a recipe's, whose new model would be this one
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
    if values and group not in ELSEWHERE
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


CASES = [
    pytest.param(recipe, number, name, value, marks=[pytest.mark.nightly] if later or case.get("nightly") else [])
    for number, case in enumerate(EFFECTS)
    for later, recipe in enumerate(case["recipes"])
    for name, value in case["changes"].items()
]
QUIET = {recipe: {**ON_A_CPU, "per_device_train_batch_size": 2} for recipe in RECIPES}
QUIET["grpo"] |= {"num_generations": 2, "max_completion_length": 4, "eval_prompts": 4, "sample_every": 2}


@pytest.fixture(scope="module")
def data(policy, tmp_path_factory):
    """A folder with whatever the values of effects.yaml name."""
    folder = tmp_path_factory.mktemp("data")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    shutil.copytree(policy, folder / "policy")
    shape = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.set_seed(1)
    RopeGPTForCausalLM(RopeGPTConfig(**shape)).save_pretrained(folder / "other")
    for name, labels in (("reward", ["a"]), ("heads", ["a", "b"])):
        config = RopeGPTConfig(**shape, id2label=dict(enumerate(labels)), pad_token_id=tokenizer.pad_token_id)
        RopeGPTForSequenceClassification(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / "other")
    chat = preferences.train_bpe_tokenizer([f"{row} and {row + 1}" for row in range(200)], vocab_size=300)
    RopeGPTForCausalLM(RopeGPTConfig(**shape | {"vocab_size": len(chat)})).save_pretrained(folder / "chat")
    chat.save_pretrained(folder / "chat")

    def write(path, rows):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def pairs(count, first=0):
        return [
            {"prompt": f"{row} {row % 7}", "chosen": f"{row % 5}", "rejected": f"{row % 5 + 1}"}
            for row in range(first, first + count)
        ]

    def with_source(pair, number):
        user, *answers = ([{"role": "user", "content": pair["prompt"]}], pair["chosen"], pair["rejected"])
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in answers)
        row = {"id": str(number), "prompt_id": str(number), "src": "ab"[number % 2]}
        return row | {"prompt": user, "chosen": chosen, "rejected": rejected}

    aspects = [{"aspect": "ab"[row % 2], "a_chosen": row % 3, "a_rejected": 1, "b_chosen": 1, "b_rejected": 0}
               for row in range(20)]  # fmt: skip
    write("pairs.jsonl", map(with_source, pairs(24), range(24)))
    write("aspects.jsonl", [pair | aspect for pair, aspect in zip(pairs(20), aspects, strict=True)])
    for path, first in (("train", 0), ("test", 20), ("inside/train", 40), ("inside/test", 60)):
        write(f"clone/{path}.jsonl", pairs(20, first))
        if "/" not in path:
            write(f"prompts/{path}.jsonl", [{"prompt": pair["prompt"]} for pair in pairs(20, first)])
    for name, first in (("default", 0), ("other", 100)):
        rows = get_task("sort", "8").rows(first, 20)
        ids = [row[:size].tolist() for row, size in zip(rows.tokens, rows.lengths, strict=True)]
        (folder / "rows" / name).mkdir(parents=True)
        Dataset.from_dict({"input_ids": ids, "labels": ids}).to_parquet(folder / "rows" / name / "train.parquet")
    configs = [{"config_name": name, "data_files": f"{name}/*.parquet"} for name in ("default", "other")]
    (folder / "rows" / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    texts = [f"Line {row} is number {row * row}.\nIt is followed by {row + 1}." for row in range(200)]
    (folder / "text.txt").write_text("\n\n".join(texts))
    (folder / "more.txt").write_text("\n\n".join(f"Another {text}" for text in texts))
    write("table.jsonl", [{"text": text, "other": f"Other {text}"} for text in texts])
    downloaded = Path(constants.HF_HUB_CACHE) / "models--user--small"
    (downloaded / "refs").mkdir(parents=True)
    for revision, name, commit in (("main", "policy", "a" * 40), ("v2", "other", "b" * 40)):
        (downloaded / "refs" / revision).write_text(commit)
        shutil.copytree(folder / name, downloaded / "snapshots" / commit)
    for name, size in (("warm_up", 16), ("other_warm_up", 32)):
        warm_up = {**QUIET["sft"], "new_model": {"hidden_size": size}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(warm_up))
    importlib.import_module("density").main(
        f"--task sort --preset 8 --num_rows 32 --density_k 4 --output_dir {folder / 'density'}".split()
    )
    (folder / "own.py").write_text("def score(completions, **_):\n    return [1.0] * len(completions)\n")
    return folder


@pytest.fixture(scope="module")
def outcomes():
    """What the runs of the bases would train, by recipe and number."""
    return {}


@pytest.mark.parametrize(("recipe", "number", "name", "value"), CASES)
def test_a_field_of_ours_changes_what_is_trained(recipe, number, name, value, begin, data, outcomes, tmp_path):
    """And nothing does where no field is changed."""
    os.chdir(data)

    def trained(**values):
        for folder in (tmp_path / "run", Path("cache"), Path("another")):
            shutil.rmtree(folder, ignore_errors=True)
        values = {"output_dir": str(tmp_path / "run")} | EFFECTS[number]["base"] | values
        if recipe in RECIPES:
            return outcome(begin(recipe, QUIET[recipe] | values))
        Path("config.yaml").write_text(yaml.safe_dump(values))
        return written(importlib.import_module(recipe).main(["--config", "config.yaml"]))

    if (recipe, number) not in outcomes:
        outcomes[recipe, number] = trained()
        assert trained() == outcomes[recipe, number]
    assert trained(**{name: value}) != outcomes[recipe, number]


def outcome(trainer):
    """Digests of all that a trainer trains, and of what our own callbacks do while it does."""
    rows, model = [trainer.train_dataset, trainer.eval_dataset], trainer.model
    callbacks = {each: type(each).__module__ for each in trainer.callback_handler.callbacks}
    ours = [
        each for each, home in callbacks.items() if home.startswith("hf_synth") and not home.endswith("checkpoints")
    ]
    return {
        "rows": [described(each) for each in rows],
        "weights": [described(vars(trainer).get(name)) for name in ("_sampling_weights", "_round_size")],
        "model": [described(model), model.config._attn_implementation, [p.requires_grad for p in model.parameters()]],
        "adapter": str(getattr(model, "peft_config", None)),
        "tokenizer": described(trainer.processing_class),
        "rewards": scores(trainer) if hasattr(trainer, "reward_funcs") else None,
        "schedule": scheduled(trainer) if hasattr(trainer, "schedule") else None,
        "epoch": described(vars(trainer).get("epoch_steps")),
        "callbacks": [described(each) for each in ours],
        "cache": sorted(Path("cache").rglob("*")) if Path("cache").is_dir() else [],
    }


def written(folder):
    """Names of all files that came about, the numbers but for times, and the digests of tables."""
    files = [path for place in (folder, Path("cache"), Path("another")) for path in sorted(place.rglob("*"))]
    numbers = json.loads((folder / "metrics.json").read_text())
    facts = [json.loads(path.read_text()) for path in files if path.name == "density.json"]
    tables = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.suffix == ".parquet"]
    numbers = {name: value for name, value in numbers.items() if "seconds" not in name}
    return [[path.name for path in files], numbers, facts, tables, folder.name]


def scores(trainer):
    """What the rewards give two answers to a row of the data."""
    row = {name: values * 2 for name, values in trainer.train_dataset[:1].items()}
    texts = ["1 2 3 4 5 6 7 <eos>", "3"]
    chats = (
        texts if isinstance(row["prompt"][0], str) else [[{"role": "assistant", "content": text}] for text in texts]
    )
    columns = {"prompts": row.pop("prompt"), "completions": chats, "completion_ids": [[5, 2], [6]]}
    return [(reward.__name__, reward(**columns, **row)) for reward in trainer.reward_funcs]


def scheduled(trainer):
    """The optimizer's groups, and the rates of five steps."""
    trainer.create_optimizer_and_scheduler(4)
    groups = [{**group, "params": len(group["params"])} for group in trainer.optimizer.param_groups]
    return [type(trainer.optimizer).__name__, groups, [trainer.lr_scheduler.lr_lambdas[0](step) for step in range(5)]]


def described(value, above=()):
    """What a value holds, without what belongs to the trainer and without arguments themselves."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if id(value) in above or (dataclasses.is_dataclass(value) and type(value).__name__.endswith("Arguments")):
        return None
    inside = (*above, id(value))
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return hashlib.sha256(np.ascontiguousarray(torch.as_tensor(value).detach().float()).tobytes()).hexdigest()
    if isinstance(value, transformers.PreTrainedModel):
        return [
            value.config.to_json_string(),
            str(value.dtype),
            {n: described(p) for n, p in value.state_dict().items()},
        ]
    if isinstance(value, transformers.PreTrainedTokenizerBase):
        return [value.get_vocab(), value.chat_template]
    if isinstance(value, Dataset):
        return value.to_dict()
    if isinstance(value, dict):
        return {str(name): described(each, inside) for name, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [described(each, inside) for each in value]
    if isinstance(value, transformers.Trainer) or not hasattr(value, "__dict__"):
        return None
    if hasattr(value, "__getitems__"):
        return [len(value), described(value.__getitems__(range(2)), inside)]
    return [
        type(value).__name__,
        getattr(value, "__name__", None),
        {name: described(each, inside) for name, each in vars(value).items()},
    ]


def test_density_is_measured_by_the_backend_named(caplog):
    """Exact ones agree, so the weights do not tell."""
    rows = Dataset.from_dict({"prompt": [f"{number} and {number * number}" for number in range(9)]})
    for backend in ("sklearn", "torch"):
        with caplog.at_level("INFO"):
            weigh_rows(rows, WeightArguments(density_k=2, density_backend=backend), 0)
        assert f"Density of 9 prompts by {backend}" in caplog.text


@pytest.mark.parametrize(
    ("recipe", "values", "name"),
    [
        *((recipe, {"model_name_or_path": "./none"}, "policy_made_by") for recipe in ("dpo", "reward", "grpo")),
        ("grpo", {"model_name_or_path": "policy", "reward": "./none"}, "reward_made_by"),
    ],
)
def test_who_makes_what_is_missing_is_named(recipe, values, name, data, tmp_path, monkeypatch):
    monkeypatch.chdir(data)
    values = {**QUIET[recipe], **OF_US, **values, name: "run this", "output_dir": str(tmp_path / "run")}
    Path("config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=r"got checkpoint '\./none', which holds no model; make it with: run this"):
        RECIPES[recipe].main(["--config", "config.yaml"])


def test_the_repository_is_opened_as_asked_for(tmp_path, monkeypatch):
    opened = []

    class Recorder:
        def __init__(self, name, kind, **options):
            opened.append((name, kind, options))

        def open(self, private, overwrite):
            opened.append((private, overwrite))

    monkeypatch.setattr(publish, "Repository", Recorder)
    flags = "--push_to_hub true --hub_model_id a/b --hub_revision v2 --hub_private_repo true --hub_token secret"
    flags = f"{flags} --overwrite_card true --task sort --output_dir {tmp_path} --use_cpu true --bf16 false".split()
    publish.open_repository(tmp_path, parse_recipe(RECIPES["sft"].CLASSES, flags)[0])
    assert opened == [("a/b", "model", {"token": "secret", "revision": "v2"}), (True, True)]


def test_text_of_the_hub_is_read_as_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(splits, "canonical_text", lambda source, **options: asked.append((source, options)))
    names = {"config": "c", "split": "s", "revision": "r"}
    options = {f"canonical_{name}": value for name, value in names.items()}
    splits.training_text(CorpusArguments(canonical="a/b", canonical_eval="validation", **options), seed=0)
    assert asked[0][0] == "a/b"
    assert names.items() <= asked[0][1].items()


@pytest.mark.parametrize(
    ("recipe", "values", "wanted"),
    [
        ("pretrain", {"eval_rows": 4, "test_rows": 9}, 9),
        (
            "grpo",
            {"model_name_or_path": "policy", "num_rows": 8, "density_k": 2, "eval_prompts": 2, "final_samples": 3},
            6,
        ),
    ],
)
def test_the_result_rests_on_as_many_rows_as_asked_for(recipe, values, wanted, data, tmp_path, monkeypatch):
    monkeypatch.chdir(data)
    values = {**QUIET[recipe], **OF_US, **values, "max_steps": 1, "output_dir": str(tmp_path / "run")}
    Path("config.yaml").write_text(yaml.safe_dump(values))
    folder = RECIPES[recipe].main(["--config", "config.yaml"])
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = metrics["rows/test"] if recipe == "pretrain" else pq.read_metadata(folder / "samples.parquet").num_rows
    assert rows == wanted


def test_strings_of_a_language_are_sampled_as_asked_for(data, tmp_path, monkeypatch):
    monkeypatch.chdir(data)
    sampled = []

    def recorded(*arguments, **options):
        sampled.append(options["top_p"])
        return generate(*arguments, **options)

    monkeypatch.setattr(generation, "generate", recorded)
    values = {**QUIET["pretrain"], "task": "tivari3", "canonical": "text.txt", "block_size": 32, "test_rows": 4}
    values |= {"canonical_eval_tokens": 64, "max_steps": 1, "tokenizer_vocab_size": 300}
    for chosen in ({}, {"top_p": 0.9}):
        folder = tmp_path / str(len(chosen))
        Path("config.yaml").write_text(yaml.safe_dump(values | chosen | {"output_dir": str(folder)}))
        RECIPES["pretrain"].main(["--config", "config.yaml"])
    flags = f"--model_name_or_path chat --task tivari3 --rows 4 --samples 4 --completions 0 --output_dir {tmp_path}/it"
    importlib.import_module("evaluation").main([*flags.split(), "--top_p", "0.8"])
    assert sampled == [1.0, 0.9, 0.8]
    said = [[folder, "top_p 0." in (tmp_path / folder / "report.md").read_text()] for folder in ("0", "1", "it")]
    assert said == [["0", False], ["1", True], ["it", True]]
    assert "sampled with top_p 0.8\n" in (tmp_path / "it" / "report.md").read_text()
    assert "Strings sampled from the model with top_p 0.9 are" in (tmp_path / "1" / "report.md").read_text()
    with pytest.raises(ValueError, match=r"top_p: got 0\.9, which says nothing without canonical"):
        parse_recipe(RECIPES["pretrain"].CLASSES, ["--task", "tivari3", "--top_p", "0.9"])


def test_a_batch_has_as_many_rows_as_asked_for(data, tmp_path, monkeypatch):
    monkeypatch.chdir(data)
    sizes = set()
    forward = RopeGPTForCausalLM.forward

    def counted(model, input_ids=None, **options):
        sizes.add(len(input_ids))
        return forward(model, input_ids=input_ids, **options)

    monkeypatch.setattr(RopeGPTForCausalLM, "forward", counted)
    flags = f"--model_name_or_path policy --task sort --preset 8 --rows 12 --completions 0 --output_dir {tmp_path}"
    importlib.import_module("evaluation").main([*flags.split(), "--batch_size", "5"])
    assert sizes == {5, 2}


def test_progress_bars_are_switched_off(tmp_path, monkeypatch):
    switched = []
    monkeypatch.setattr(arguments, "disable_progress_bars", switched.append)
    measuring = (importlib.import_module("evaluation").MeasuringArguments,)
    sft = (RECIPES["sft"].CLASSES, "--task sort --use_cpu true --bf16 false")
    for classes, needed in (sft, (measuring, "--model_name_or_path a/b")):
        parse_recipe(classes, [*needed.split(), "--output_dir", str(tmp_path), "--disable_tqdm", "true"])
    assert switched == ["hf_synth"] * 2


COMPARED = {
    **{
        "recipe": "pretrain",
        "task": "sort",
        "preset": "8",
        "eval_rows": 4,
        "test_rows": 4,
        "max_steps": 1,
        "seeds": 2,
    },
    **{"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "primary": "loss/test"},
    **{"arms": {"a": {"learning_rate": 1e-3}, "b": {"learning_rate": 1e-2}}, "gpt2_size": "1_1_8"},
}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """The folder of a finished comparison."""
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "compare.yaml").write_text(yaml.safe_dump(COMPARED | {"output_dir": str(folder / "run")}))
    return importlib.import_module("compare").main(["--config", str(folder / "compare.yaml")])


CHANGED = {"against": {"a": ["b"]}, "better": "higher", "smallest_effect": 1e-9, "noise": 5.0, "title": "Another"}


def test_a_pair_whose_arm_has_no_run_has_no_answer(comparison):
    path = comparison / COMPARISON
    before = path.read_text()
    kept = yaml.safe_load(before)
    pairs = {"b": ["a"], "c": ["a"]}
    path.write_text(yaml.safe_dump(kept | {"arms": kept["arms"] | {"c": {}}, "against": pairs}))
    write_report(comparison)
    path.write_text(before)
    report = (comparison / "report.md").read_text()
    assert "- `c` against `a` has **no answer**: no two seeds" in report
    assert report.count("no answer") == 1


@pytest.mark.parametrize("name", CHANGED)
def test_the_report_of_a_comparison_follows_its_arguments(name, comparison):
    """What it says before the values that make the same comparison again."""
    path, reports = comparison / COMPARISON, []
    before = path.read_text()
    for values in ({}, {}, {name: CHANGED[name]}):
        path.write_text(yaml.safe_dump(yaml.safe_load(before) | values))
        write_report(comparison)
        reports.append((comparison / "report.md").read_text().partition("## Run it again")[0])
    path.write_text(before)
    assert reports[0] == reports[1] != reports[2]
