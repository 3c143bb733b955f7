"""Every field of every dataclass that a recipe parses: honoured by a test that is named, or refused in one line."""

import contextlib
import dataclasses
import importlib
import re
import sys
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from trl import DPOConfig, SFTConfig, SFTTrainer

from hf_synth import build_tokenizer, get_task
from hf_synth.experiments.arms import CompareArguments
from hf_synth.training.arguments import _RULES as RULES
from hf_synth.training.arguments import DataArguments, PolicyArguments, check_honoured, parse_recipe
from hf_synth.training.data import without_long_prompts
from hf_synth.training.models import load_policy

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes"))
RECIPES = {name: importlib.import_module(name) for name in ("sft", "reward", "dpo", "grpo", "pretrain", "density")}
MEASURING = importlib.import_module("evaluation").MeasuringArguments
CLASSES = {name: module.CLASSES for name, module in RECIPES.items()} | {"evaluation": (MEASURING,)}
ALONE = (importlib.import_module("replicate").ReplicateArguments, CompareArguments)  # of parsers without rules
HONOURED = yaml.safe_load((Path(__file__).parent / "honoured.yaml").read_text(encoding="utf-8"))
BY_NAME = {kind.__name__: kind for classes in [*CLASSES.values(), ALONE] for part in classes for kind in part.__mro__}


def own_fields(kind) -> set[str]:
    """The fields that a class adds to those of its parents, and those whose default it changes."""
    inherited = {name for parent in kind.__mro__[1:] if dataclasses.is_dataclass(parent) for name in names(parent)}
    return names(kind) - inherited


def names(kind) -> set[str]:
    return {field.name for field in dataclasses.fields(kind) if field.init}


def honoured(kind: str) -> dict[str, str]:
    return {name: who for who, fields in (HONOURED[kind] or {}).items() for name in fields.split()}


def refused(kinds: set[str]) -> set[str]:
    """Fields that a recipe of these classes refuses whatever stands beside them."""
    return {name for rule in RULES["refused"] if kinds & set(rule["of"].split()) for name in rule["fields"].split()}


def refusals():
    """(recipe, field) for every field that a recipe refuses."""
    for recipe, classes in CLASSES.items():
        kinds = {kind.__name__ for part in classes for kind in part.__mro__} | {f"only:{p.__name__}" for p in classes}
        mine = {name for part in classes for name in names(part)}
        yield from ((recipe, name) for name in sorted(refused(kinds) & mine))


@pytest.mark.parametrize("kind", sorted(BY_NAME.keys() - {"object", "_BaseConfig"}))
def test_every_field_is_decided(kind):
    """A field that a new version of a library adds fails this until someone looked at what it does here."""
    own = own_fields(BY_NAME[kind])
    if kind in ("SFTConfig", "DPOConfig", "RewardConfig", "GRPOConfig"):  # their common parent is TRL's own affair
        own |= own_fields(BY_NAME["_BaseConfig"])
    known = set(honoured(kind))
    always = refused(
        {kind, "_BaseConfig"} if kind in ("SFTConfig", "DPOConfig", "RewardConfig", "GRPOConfig") else {kind}
    )
    by_recipe = refused({"SFTWeightArguments", "RewardArguments", "DPOArguments", "GRPOArguments"})
    assert own - known - always - by_recipe == set(), "neither acted on nor refused"
    assert known - names(BY_NAME[kind]) == set(), "no such field"
    assert known & always == set(), "acted on, and refused"


def test_rules_name_fields_that_there_are():
    every = {name for kind in BY_NAME.values() if dataclasses.is_dataclass(kind) for name in names(kind)}
    for rule in [*RULES["limits"], *RULES["refused"], *RULES["needs"], *RULES["clashes"]]:
        assert set(rule["fields"].split()) <= every
        assert set(rule.get("beside", "").split()) | set(rule.get("given", "").split()) <= every
        assert {kind.removeprefix("only:") for kind in rule.get("of", "").split()} <= BY_NAME.keys()
        assert rule.keys() <= {
            "fields",
            "of",
            "do",
            "beside",
            "given",
            "at_least",
            "at_most",
            "above",
            "below",
            "choices",
            "mapping",
        }
    for flag, cleared in RULES["clears"].items():
        assert {flag, *cleared.split()} <= every


@pytest.mark.parametrize(("recipe", "name"), refusals())
def test_what_a_recipe_would_not_act_on_is_refused(recipe, name):
    with pytest.raises(ValueError, match=rf"^{name}: got 'x'.*, which this recipe does not use; \w+"):
        check_honoured({name: "x"}, CLASSES[recipe], {name})


@pytest.mark.parametrize("recipe", CLASSES)
def test_rules_hold_in_every_parser(recipe):
    """Before any dataclass is made: a library's own complaint would hide them."""
    kinds = {kind.__name__ for part in CLASSES[recipe] for kind in part.__mro__}
    if "TrainingArguments" not in kinds:
        return
    with pytest.raises(ValueError, match=r"^resume_from_checkpoint: got 'a/b', which this recipe does not use"):
        parse_recipe(CLASSES[recipe], ["--resume_from_checkpoint", "a/b", "--bf16", "true"])


@pytest.mark.parametrize(
    ("recipe", "given", "wanted"),
    [
        ("grpo", {"lora_r": 8}, "lora_r: got 8, which says nothing without use_peft"),
        ("grpo", {"lora_r": 8, "use_peft": False}, None),  # switched off by name, as an arm does
        ("grpo", {"prompts": "a", "num_rows": 5}, "num_rows: got 5, which says nothing without task or mixture"),
        ("reward", {"preferences": "a", "num_rows": 5}, "num_rows: got 5"),
        ("grpo", {"task": "sort", "num_rows": 5}, None),
        ("grpo", {"task": "sort", "test_share": 0.5}, "test_share: got 0.5, which says nothing without preferences"),
        ("reward", {"task": "sort", "test_share": 0.5}, None),
        ("grpo", {"reward_max_length": 5}, "reward_max_length: got 5, which says nothing without reward"),
        ("grpo", {"model_name_or_path": "a", "warm_up": "b"}, "warm_up: got 'b' beside model_name_or_path"),
        ("sft", {"gpt2_size": "1_1_8", "model_type": "llama"}, "model_type: got 'llama' beside gpt2_size"),
        ("sft", {"density_from": "a", "density_k": 5}, "density_k: got 5 beside density_from"),
        ("grpo", {"density_from": "a", "density_k": 5}, None),  # of held-out prompts it measures
        (
            "dpo",
            {"model_name_or_path": "a", "new_model": {"n": 1}},
            "new_model: got {'n': 1} beside model_name_or_path",
        ),
        ("reward", {"model_name_or_path": "a", "model_type": "gpt2"}, "model_type: got 'gpt2' beside model_name"),
        ("pretrain", {"model_name_or_path": "a", "gpt2_size": "1_1_8"}, "gpt2_size: got '1_1_8' beside model_name"),
        ("sft", {"hub_model_id": "a/b"}, "hub_model_id: got 'a/b', which says nothing without push_to_hub"),
        ("sft", {"hub_model_id": "a/b", "push_to_hub": False}, None),
        ("dpo", {"hub_revision": "v2"}, "hub_revision: got 'v2', which says nothing without push_to_hub"),
        ("grpo", {"hub_private_repo": True}, "hub_private_repo: got True, which says nothing without push_to_hub"),
        ("grpo", {"hub_private_repo": True, "trackio_space_id": "a/b"}, None),
        ("reward", {"hub_token": "hf_secret"}, "hub_token: got 'a token', which says nothing without push_to_hub"),
        ("sft", {"max_steps": 0}, "max_steps: got 0, wanted at least 1"),
        ("sft", {"max_steps": -7}, "max_steps: got -7"),
        ("sft", {"num_train_epochs": -1.0}, "num_train_epochs: got -1.0"),
        ("sft", {"num_train_epochs": 0.0}, "num_train_epochs: got 0.0"),
        ("sft", {"num_train_epochs": float("inf")}, "num_train_epochs: got inf"),
        ("sft", {"num_train_epochs": float("nan")}, "num_train_epochs: got nan"),
        ("sft", {"num_train_epochs": -1.0, "max_steps": 5}, None),
        ("sft", {"num_train_epochs": -3.0, "max_steps": 5}, "num_train_epochs: got -3.0"),
    ],
)
def test_values_that_say_nothing_beside_others(recipe, given, wanted):
    if wanted is None:
        check_honoured(given, CLASSES[recipe], given)
        return
    with pytest.raises(ValueError, match="^" + re.escape(wanted)):
        check_honoured(given, CLASSES[recipe], given)


@pytest.mark.parametrize(
    ("recipe", "name", "value"),
    [
        *(("sft", name, "-1") for name in ("pad_to_multiple_of", "ddp_timeout", "ddp_bucket_cap_mb", "rows_seed")),
        *(("sft", name, "1e400") for name in ("logging_steps", "save_steps", "eval_steps", "num_train_epochs")),
        *(("pretrain", name, "-1") for name in ("rows_seed", "eval_rows", "curriculum_step", "decay_steps")),
        *(("dpo", name, "nan") for name in ("ld_alpha", "loss_weights", "beta", "label_smoothing", "max_ratio")),
        *(("grpo", name, "-1") for name in ("delta", "off_policy_mask_threshold", "temperature")),
        ("grpo", "num_generations", "0"),
        ("grpo", "reward_weights", "inf"),
        ("sft", "train_sampling_strategy", "group_by_length"),
        ("sft", "train_sampling_strategy", "no such"),
        ("sft", "torch_compile_mode", "no such"),
        ("sft", "optim_args", "no such"),
        ("sft", "dataloader_multiprocessing_context", "no such"),
        ("grpo", "generation_kwargs", "1e-5"),
        ("grpo", "chat_template_kwargs", "[1]"),
        ("grpo", "scale_rewards", "no such"),
        ("grpo", "importance_sampling_level", "no such"),
        ("grpo", "sapo_temperature_neg", "2"),  # without loss_type
        ("dpo", "f_divergence_type", "no such"),
        ("dpo", "f_alpha_divergence_coef", "2"),  # without f_divergence_type
        ("reward", "metric_for_best_model", "accuracy"),  # without load_best_model_at_end
        ("reward", "heads", ""),
    ],
)
def test_nonsense_is_refused_as_it_is_parsed(recipe, name, value, tmp_path):
    argv = ["--output_dir", str(tmp_path), "--task", "sort", "--use_cpu", "true", "--bf16", "false"]
    argv += ["--num_train_epochs", "1", "--max_steps", "-1"] if name != "num_train_epochs" else []
    parse_recipe(CLASSES[recipe], argv)
    with pytest.raises(ValueError, match=rf"{name}|do not go together") as caught:
        parse_recipe(CLASSES[recipe], [*argv, f"--{name}={value}"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "name", "values"),
    [
        ("reward", "heads", "quality null"),
        ("dpo", "loss_weights", "1 null"),
        ("grpo", "reward_weights", "null 1"),
        ("grpo", "source_shares", "a=0.5 null"),
    ],
)
def test_null_is_no_item_of_a_list(recipe, name, values, tmp_path):
    """By flag; YAML refuses it by its type."""
    argv = ["--output_dir", str(tmp_path), "--task", "sort", "--use_cpu", "true", "--bf16", "false"]
    with pytest.raises(ValueError, match=f"^{name}: got null beside other values, wanted it alone"):
        parse_recipe(CLASSES[recipe], [*argv, f"--{name}", *values.split()])


@pytest.mark.parametrize(
    ("recipe", "name", "value"),
    [("reward", "heads", "quality"), ("dpo", "loss_type", "ipo"), ("grpo", "reward", "verifier"),
     ("sft", "sampling_by", "density"), ("pretrain", "train_parts", "mlp")],
)  # fmt: skip
def test_one_name_in_yaml_is_a_list_of_one(recipe, name, value, tmp_path, monkeypatch):
    handed = []
    for part in CLASSES[recipe]:  # as it is before a dataclass makes a list of it
        monkeypatch.setattr(part, "__post_init__", lambda self: handed.append(vars(self).copy()), raising=False)
    (tmp_path / "c.yaml").write_text(f"task: sort\n{name}: {value}\n")
    with contextlib.suppress(Exception):  # of checks that want what __post_init__ makes
        parse_recipe(CLASSES[recipe], ["--config", str(tmp_path / "c.yaml")])
    assert [values[name] for values in handed if name in values] == [[value]]


@pytest.mark.parametrize("value", ["[epoch]", "{a: 1}", "null"])
def test_a_field_of_names_takes_no_list(value, tmp_path):
    (tmp_path / "c.yaml").write_text(f"task: sort\nsave_strategy: {value}\n")
    with pytest.raises(ValueError, match=r"c\.yaml: save_strategy: got .*, wanted SaveStrategy or str"):
        parse_recipe(CLASSES["pretrain"], ["--config", str(tmp_path / "c.yaml")])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--accelerator_config none.json", "accelerator_config: got 'none.json': [Errno 2] No such file"),
        ("--fsdp true --fsdp_config none.json", "fsdp_config: got 'none.json': [Errno 2] No such file"),
        (
            "--run_name none.json --accelerator_config none.json",
            "run_name: got 'none.json' and accelerator_config: ",
        ),
        ("--fsdp none", "Unknown `fsdp` option: none"),
    ],
)
def test_what_a_library_says_of_a_value_names_its_field(flags, message, tmp_path):
    argv = ["--output_dir", str(tmp_path), "--task", "sort", "--use_cpu", "true", "--bf16", "false", *flags.split()]
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}"):
        parse_recipe(CLASSES["pretrain"], argv)


def test_a_reference_computed_before_wants_one_process(tmp_path, monkeypatch):
    argv = f"--output_dir {tmp_path} --task sort --use_cpu true --bf16 false --precompute_ref_log_probs true".split()
    parse_recipe(CLASSES["dpo"], argv)
    monkeypatch.setattr(DPOConfig, "world_size", 2)
    with pytest.raises(ValueError, match=r"^precompute_ref_log_probs: got true on several processes, wanted one"):
        parse_recipe(CLASSES["dpo"], argv)


@pytest.mark.parametrize("recipe", CLASSES)
def test_an_output_directory_has_a_name(recipe):
    for empty in ("", " "):
        with pytest.raises(ValueError, match=r"^output_dir: got an empty name"):
            parse_recipe(CLASSES[recipe], ["--output_dir", empty])


def test_each_honoured_field_names_a_test_that_is_there():
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for kind in HONOURED:
        for name, test in honoured(kind).items():
            assert test.startswith("test:"), f"{kind}.{name} names no test"
            assert f"\ndef {test.removeprefix('test:')}(" in sources, f"{kind}.{name}: {test} is not there"


def test_prompts_that_fill_the_context_are_counted(tmp_path):
    """TRL drops what has nothing left to learn from; the same rows are left out before, with a count."""
    tokenizer = build_tokenizer(get_task("sort"))
    rows = Dataset.from_dict({"prompt": ["1 " * n + "<sep>" for n in range(1, 20)], "completion": [" 1"] * 19})
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    policy, data = PolicyArguments(new_model=shape), DataArguments(task="sort")
    for mode in ("keep_start", "keep_end"):
        args = SFTConfig(
            str(tmp_path), max_length=10, truncation_mode=mode, bf16=False, use_cpu=True, report_to="none"
        )
        kept = without_long_prompts(rows, tokenizer, RECIPES["sft"].longest_prompt(data, args))
        model = load_policy(policy, tokenizer, 0)
        trainer = SFTTrainer(model, args, train_dataset=rows, processing_class=tokenizer)
        assert len(kept) == len(trainer.train_dataset)
        assert len(kept) == (19 if mode == "keep_end" else 7)


def test_a_policy_that_is_not_there_is_named_before_rows_are_made(tmp_path):
    argv = ["--model_name_or_path", str(tmp_path / "none"), "--output_dir", str(tmp_path / "out")]
    for recipe in ("sft", "reward", "dpo"):
        with pytest.raises(ValueError, match=r"^got checkpoint '.*none', which holds no model"):
            RECIPES[recipe].main([*argv, "--task", "agreement", "--bf16", "false", "--use_cpu", "true"])
    assert not (tmp_path / "out").exists()
