"""Commands of the pages are understood. docs/pretraining.md: its links lead somewhere, no option missing."""

import dataclasses
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
from evaluation import MeasuringArguments

from hf_synth.experiments.arms import ArmsArguments
from hf_synth.training.arguments import parse_recipe
from hf_synth.training.pretraining_data import CurriculumArguments, KeepingArguments, RowsArguments, ScheduleArguments
from hf_synth.training.transfer import TransferArguments

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "pretraining.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if "recipes/" in line]
PAGES = ("README.md", "docs/ecosystem.md", "docs/post_training.md", "docs/weights.md")
OTHERS = [
    line
    for page in PAGES
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if re.search(r"recipes/(sft|reward|dpo|grpo)\.py", line)
]
NAMED = (
    ArmsArguments,
    CurriculumArguments,
    KeepingArguments,
    RowsArguments,
    ScheduleArguments,
    TransferArguments,
)


@pytest.fixture
def recipe(monkeypatch):
    """A recipe's module by its name, as one recipe imports another."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "recipes")])  # behind the library `evaluate`
    yield importlib.import_module
    for name in ("replicate", "pretrain", "sft", "reward", "dpo", "grpo"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command, recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("hf_synth.training.arguments.check_trackers", lambda names: None)  # need not be installed
    words = shlex.split(command)
    place = next(place for place, word in enumerate(words) if word.startswith("recipes/") and word.endswith(".py"))
    name = Path(words[place]).stem
    if name == "evaluation":
        parse_recipe([MeasuringArguments], words[place + 1 :])
        return
    module = recipe(name)
    if name == "replicate":
        parse_recipe([module.ReplicateArguments], words[place + 1 :])
        return
    cpu = ["--use_cpu", "true", "--bf16", "false"]
    arms, *_, args = parse_recipe(module.CLASSES, [*words[place + 1 :], *cpu], module.CONFIG)
    for run in module.planned_runs(arms, Path(args.output_dir), args.seed):
        parse_recipe(module.CLASSES, [*words[place + 1 :], *cpu, *run.flags], module.CONFIG)


@pytest.mark.parametrize("command", OTHERS)
def test_every_command_of_post_training_is_understood(command, recipe, monkeypatch):
    monkeypatch.chdir(ROOT)
    path, *argv = shlex.split(command, comments=True)[2:]
    module = recipe(Path(path).stem)
    cpu = ["--use_cpu", "true", "--bf16", "false"]
    parse_recipe(module.CLASSES, [*argv, *cpu], ROOT / "recipes" / "configs" / "density" / "quickstart.yaml")


def test_every_option_of_pretraining_is_named():
    names = {field.name for part in NAMED for field in dataclasses.fields(part)} - {"quick_args"}
    assert sorted(name for name in names if f"`{name}" not in PAGE and f"--{name}" not in PAGE) == []


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert targets
    assert [target for target in targets if not (ROOT / "docs" / target).exists()] == []
    named = re.findall(r"recipes/configs/[\w/]+\.yaml", PAGE)
    assert [path for path in named if not (ROOT / path).is_file()] == []
