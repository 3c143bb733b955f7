"""How hf_synth comes to a machine: the wheel with its recipes, the container's steps, the headers of the recipes."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from hf_synth.cli import main
from hf_synth.errors import install_hint

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*") if path.suffix in (".py", ".yaml"))
STEPS = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())


def steps(kind: str) -> list[str]:
    """What follows a word of the Dockerfile, in order."""
    return re.findall(rf"^{kind} (.*)$", STEPS, re.MULTILINE)


def test_recipes_are_copied_into_a_new_folder_only(tmp_path, capsys):
    main(["recipes", str(tmp_path / "mine")])
    copied = {path.relative_to(tmp_path / "mine"): path.read_bytes() for path in (tmp_path / "mine").rglob("*.*")}
    assert copied == {path.relative_to(ROOT / "recipes"): path.read_bytes() for path in RECIPES}
    assert str(tmp_path / "mine" / "grpo.py") in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["recipes", str(tmp_path / "mine")])
    assert left.value.code == 2


def test_the_wheel_gets_every_recipe_and_config():
    shipped = PROJECT["tool"]["setuptools"]["data-files"]
    result = {path: folder for folder, patterns in shipped.items() for one in patterns for path in ROOT.glob(one)}
    skill = ROOT / ".agents" / "skills" / "hf-synth" / "SKILL.md"
    assert result.keys() == {*RECIPES, skill, ROOT / "spaces" / "explorer" / "app.py"}
    assert result.pop(skill) == "share/hf_synth/skills/hf-synth"
    assert all(folder == f"share/hf_synth/{path.parent.relative_to(ROOT)}" for path, folder in result.items())


def test_what_is_missing_can_be_installed_before_there_is_a_release():
    """Errors name the package, and the extra of a clone that holds it; no index has hf_synth."""
    code = "".join(path.read_text() for path in (ROOT / "hf_synth").rglob("*.py"))
    assert not re.search(r"pip install .{0,2}hf_synth", code)
    hints = re.findall(r"install_hint\(['\"]([\w-]+)['\"], ['\"](\w+)['\"]\)", code)
    assert len(hints) == code.count("install_hint(") - 1 == 5
    for package, extra in hints:
        needs = [re.split("[<>=]", one)[0] for one in PROJECT["project"]["optional-dependencies"][extra]]
        assert package in needs
        hint = f"run pip install {package}, or in a clone of hf_synth pip install '.[{extra}]'"
        assert install_hint(package, extra) == f"{package} is not installed; {hint}"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.py")), ids=lambda path: path.stem)
def test_a_recipe_says_what_it_needs(path):
    header = re.search(r"\A# /// script\n((?:# .*\n)+)# ///\n", path.read_text())
    needs = tomllib.loads(re.sub(r"^# ", "", header[1], flags=re.MULTILINE))
    assert needs == {"requires-python": PROJECT["project"]["requires-python"], "dependencies": ["hf_synth"]}


def test_the_container_is_pinned_and_its_files_are_there():
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", steps("FROM")[0])
    copied = {source for step in steps("COPY") for source in step.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    carried = [file for files in PROJECT["tool"]["setuptools"]["data-files"].values() for file in files]
    assert {file.split("/")[0] for file in carried} <= copied, "pip cannot build the wheel without them"
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert (ROOT / services["data"]["command"][0]).is_file()
    assert (ROOT / json.loads(steps("CMD")[0])[0]).is_file()
    assert all(".env" in (ROOT / name).read_text().split() for name in (".dockerignore", ".gitignore"))


def test_workflows_run_what_contributors_run():
    tests = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    commands = [step.get("run", "") for job in tests.values() for step in job["steps"]]
    assert {"make lint", "make test PYTHON=python"} <= set(commands)
    assert tests["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"]


@pytest.mark.nightly
@pytest.mark.processes
def test_the_steps_of_the_container_end_in_a_trained_model(tmp_path):
    """The Dockerfile's steps in a clean folder, with a new environment of the same Python in place of its base."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "base")], check=True)
    app = tmp_path / "app"
    app.mkdir()
    path = f"{tmp_path / 'base' / 'bin'}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "PIP_FIND_LINKS"):
        environment |= {name: os.environ[name]} if name in os.environ else {}
    for step in re.findall(r"^(COPY|RUN) (.*)$", STEPS, re.MULTILINE):
        if step[0] == "COPY":
            *sources, target = step[1].split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, app / target)
                else:
                    shutil.copy(ROOT / source, app / target)
        else:
            subprocess.run(step[1], shell=True, check=True, cwd=app, env=environment)
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    data = [*services["data"]["entrypoint"], *services["data"]["command"], "--rows", "train=100", "test=10"]
    train = [*json.loads(steps("ENTRYPOINT")[0]), "recipes/pretrain.py", "--max_steps", "2", "--report_to", "wandb"]
    for command in (data, [*train, "--eval_rows", "8", "--test_rows", "8", "--output_dir", "runs/sort"]):
        subprocess.run(command, check=True, cwd=app, env=environment | {"WANDB_MODE": "offline"})
    assert (app / "published" / "procedural" / "README.md").is_file()
    assert (app / "runs" / "sort" / "model.safetensors").is_file()
    assert [*app.rglob("*.wandb")]
