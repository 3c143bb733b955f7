"""A report's settings make the same run again: each shipped config, as it is and with ten values changed."""

import contextlib
import dataclasses
import enum
import importlib
import os
import random
import re
import sys
import typing
import warnings
from pathlib import Path
from types import NoneType, UnionType
from unittest import mock

import pytest
import yaml

from hf_synth.errors import check_fields
from hf_synth.experiments.arms import CompareArguments, as_flags, planned_runs, split_config
from hf_synth.reports.comparison import settings_lines
from hf_synth.reports.tables import code_block, render
from hf_synth.training.arguments import check_honoured, limits_of, parse_recipe, read_yaml
from hf_synth.training.run_directory import FREE, RESOLVED_CONFIG, check_run, open_run

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "recipes" / "configs"
DENSITY = {"agreement": "density", "quickstart": "grpo", "own_prompts": "grpo"}
FILES = {
    str(path.relative_to(CONFIGS).with_suffix("")): path
    for path in sorted(CONFIGS.rglob("*.yaml"))
    if path.parent.name != "accelerate"
}
RECIPE = {
    name: (DENSITY.get(path.stem) or path.stem.split("_")[-1]) if path.parent.name == "density" else "pretrain"
    for name, path in FILES.items()
} | {name: "compare" for name, path in FILES.items() if "\nprimary:" in path.read_text(encoding="utf-8")}
TEXTS = [
    "1e-5",
    "no",
    "2024-01-01",
    "0x1F",
    "null",
    "~",
    "1_000",
    "a: b",
    "# c",
    " d ",
    "'",
    "é🙂\u2028",
    "a\nb\n",
    "`",
    "[e",
    "{f",
]
LEFT = FREE | {"hub_token", "arms", "seeds"}


@pytest.fixture(scope="module", autouse=True)
def surroundings():
    """The recipes can be imported, and what transformers writes into the environment is taken back."""
    path = [*sys.path, str(ROOT / "recipes")]  # behind the library `evaluate`
    with mock.patch.dict(os.environ), mock.patch.object(sys, "path", path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def classes_of(recipe):
    return importlib.import_module(recipe).CLASSES


def resolved(parts):
    """All values of a run that count."""
    result = {
        field.name: getattr(part, field.name) for part in parts for field in dataclasses.fields(part) if field.init
    }
    return {name: value for name, value in result.items() if name not in FREE | {"hub_token"}}


def saved(text, path):
    """The lines that a report shows, saved as it says."""
    ((_, lines),) = re.findall(r"^(`{3,})yaml\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE)
    path.write_text(lines, encoding="utf-8")
    return path


def assert_comes_back(recipe, parts, settings, folder):
    """Through the run's directory, the report and a new config; the directory takes it for the same run, too."""
    open_run(str(folder / "run"), *parts, recipe=recipe, settings=settings)
    kept = yaml.safe_load((folder / "run" / RESOLVED_CONFIG).read_text(encoding="utf-8"))
    assert kept["recipe"] == recipe
    assert not kept["settings"].keys() & (FREE | {"hub_token"})
    path = saved(render("again", recipe=recipe, settings=kept["settings"]), folder / "my.yaml")
    classes = classes_of(recipe)
    parsed = parse_recipe(classes, ["--config", str(path), "--output_dir", str(folder / "run")])
    same = [part for part in parsed if type(part) in {type(one) for one in parts}]
    assert resolved(same) == resolved(parts)
    (folder / "run" / "checkpoint-1").mkdir()
    check_run(str(folder / "run"), *same)
    assert parsed.settings == {**kept["settings"], "output_dir": str(folder / "run")}


def another(hint, value, choose):
    """Another value of a field's type."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType) else [hint]
    kind = choose.choice([kind for kind in kinds if kind is not NoneType or value is not None])
    if kind is NoneType:
        return None
    if kind is bool:
        return not value
    if kind is int:
        return (value if isinstance(value, int) else 0) + choose.randint(1, 4)
    if kind is float:
        return choose.choice([1e-5, 0.3, 1.0, 2.5e7])
    if typing.get_origin(kind) is typing.Literal:
        return choose.choice(typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return choose.choice(list(kind)).value
    if (typing.get_origin(kind) or kind) is dict:
        return {"no": choose.choice(TEXTS), "n": 1e-5, "deep": {"2024-01-01": [None, True, "on"]}}
    if typing.get_origin(kind) is list:
        return [another(typing.get_args(kind)[0], None, choose) for _ in range(choose.randint(1, 2))]
    return choose.choice(TEXTS)


def with_changes(classes, config, count, choose):
    """The config with other values of so many fields, each of which its dataclass takes."""
    fields = [
        (part, field.name, typing.get_type_hints(part)[field.name], field.metadata.get("choices"))
        for part in classes
        for field in dataclasses.fields(part)
        if field.init and field.name not in LEFT
    ]
    changed, picked = dict(config), set()
    for part, name, hint, choices in choose.sample(3 * fields, 3 * len(fields)):  # a first value may be refused
        if count == 0:
            break
        if name in picked:
            continue
        own = {field.name for field in dataclasses.fields(part)}
        value = choose.choice([*choices]) if choices else another(hint, changed.get(name), choose)
        before = {key: item for key, item in changed.items() if key in own}
        try:
            one, other = part(**before), part(**{**before, name: value})
            check_fields(other, limits_of(part))
            check_honoured({**changed, name: value}, classes, {*changed, name})
        except Exception:
            continue
        if resolved([one]) != resolved([other]):
            changed[name], count = value, count - 1
            picked.add(name)
    assert count == 0, f"{count} changes too few"
    return changed


def variants(name, folder):
    """Command lines: the config as it is, on the CPU, which some would not take; and it with ten values changed."""
    classes, choose = classes_of(RECIPE[name]), random.Random(name)
    words = ["--config", str(FILES[name]), *(["--use_cpu", "true"] if RECIPE[name] != "density" else [])]
    words += ["--prompts", "mine.jsonl"] if name == "density/own_prompts" else []
    yield words
    values, path = parse_recipe(classes, words).settings, folder / "changed.yaml"
    for _ in range(20):
        path.write_text(yaml.safe_dump(with_changes(classes, values, 10, choose)), encoding="utf-8")
        with contextlib.suppress(ValueError):  # of changes that are valid one by one, and not together
            parse_recipe(classes, ["--config", str(path)])
            yield ["--config", str(path)]
            return
    raise AssertionError("no ten changes go together")


@pytest.mark.parametrize("name", [name for name, recipe in RECIPE.items() if recipe != "compare"])
def test_the_settings_of_a_report_make_the_same_run_again(name, tmp_path):
    recipe, classes = RECIPE[name], classes_of(RECIPE[name])
    for number, words in enumerate(variants(name, tmp_path)):
        parsed = parse_recipe(classes, words)
        assert_comes_back(recipe, parsed, parsed.settings, tmp_path / f"{number}-whole")
        if recipe != "pretrain" or number:
            continue
        run = planned_runs(parsed[0], tmp_path / "out", parsed[-1].seed)[-1]
        _, settings = importlib.import_module(recipe).settings_of(run, words)
        parts = parse_recipe(classes, [*words, *run.flags])[2:]  # "{seed}" is filled in later, now and then
        assert_comes_back(recipe, parts, settings, tmp_path / f"{number}-one")
        if parsed[0].quick_args:
            quick = parse_recipe(classes, [*as_flags(parsed[0].quick_args), *words, "--quick"])
            assert_comes_back(recipe, quick, quick.settings, tmp_path / f"{number}-quick")


@pytest.mark.parametrize("name", [name for name, recipe in RECIPE.items() if recipe == "compare"])
def test_the_settings_of_a_comparison_make_the_same_one_again(name, tmp_path):
    compare, own = importlib.import_module("compare"), {field.name for field in dataclasses.fields(CompareArguments)}
    values, base = split_config(["--config", str(FILES[name])], own)
    classes = classes_of(values.get("recipe", "grpo"))
    changes = with_changes(classes, {"task": "sort", "use_cpu": True}, 10, random.Random(name))
    more = {
        "title": "no",
        "better": "lower",
        "smallest_effect": 1e-5,
        "noise": 2.5e7,
        "page_prompts": 3,
        "primary": "~",
    }
    for changed, changed_base in ((values, base), ({**values, **more}, {**base, **changes})):
        arguments = CompareArguments(**changed)
        compare.preregister(arguments, changed_base, tmp_path, begun=False)
        path = saved(code_block(settings_lines(tmp_path), "yaml"), tmp_path / "my.yaml")
        values_again, base_again = split_config(["--config", str(path)], own)
        assert CompareArguments(**values_again) == arguments
        assert base_again == changed_base


MOVED = (  # once they lay in folders by recipe
    ("grammars/tivari3.yaml", "hyperdata/tivari3.yaml"),
    ("grammars/pythia.yaml", "hyperdata/pythia.yaml"),
    ("grpo/quickstart.yaml", "density/quickstart.yaml"),
    ("sft/quickstart.yaml", "density/quickstart_sft.yaml"),
    ("grpo/own_prompts.yaml", "density/own_prompts.yaml"),
    ("sft/hh_rlhf.yaml", "density/hh_rlhf_sft.yaml"),
    ("reward/hh_rlhf.yaml", "density/hh_rlhf_reward.yaml"),
    ("dpo/hh_rlhf.yaml", "density/hh_rlhf_dpo.yaml"),
    ("grpo/hh_rlhf.yaml", "density/hh_rlhf_grpo.yaml"),
    ("testbed/sft.yaml", "density/testbed_sft.yaml"),
    ("testbed/reward.yaml", "density/testbed_reward.yaml"),
    ("testbed/grpo.yaml", "density/testbed_grpo.yaml"),
    ("testbed/verifier.yaml", "density/testbed_verifier.yaml"),
    ("testbed/proxy.yaml", "density/testbed_proxy.yaml"),
    ("preferences/sft.yaml", "density/preferences_sft.yaml"),
    ("preferences/reward.yaml", "density/preferences_reward.yaml"),
    ("preferences/compare.yaml", "density/preferences_compare.yaml"),
    ("replicate/rlm_v128.yaml", "rlm/replicate_v128.yaml"),
    ("replicate/rlm_l3.yaml", "rlm/replicate_l3.yaml"),
    ("replicate/hyperdata.yaml", "hyperdata/replicate.yaml"),
    ("replicate/procedural.yaml", "procedural/replicate.yaml"),
    ("replicate/downstream.yaml", "procedural/replicate_downstream.yaml"),
    ("replicate/warmups.yaml", "procedural/replicate_warmups.yaml"),
)


@pytest.mark.parametrize(("old", "new"), MOVED, ids=lambda name: str(name))
def test_the_old_path_of_a_config_names_its_new_one(old, new):
    assert (CONFIGS / new).is_file()
    with pytest.raises(ValueError, match=re.escape(f"did you mean {CONFIGS / new}?")):
        read_yaml(CONFIGS / old)
