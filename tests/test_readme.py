"""The README taken literally: its snippets run, its task works. Links of all pages lead somewhere."""

import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hf_synth
from hf_synth.rewards import load_rewards
from hf_synth.rng import RowRandom
from hf_synth.views import with_prompts

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in DOCS.glob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TASK = next(block for block in BLOCKS if "class Reverse" in block)


@pytest.fixture
def own_task(tmp_path):
    path = tmp_path / "my_reverse.py"
    path.write_text(TASK, encoding="utf-8")
    return str(path)


@pytest.mark.processes
def test_snippets_run_one_after_the_other(tmp_path):
    trainer = re.compile(r"^trainer = .*\n", re.MULTILINE)  # needs a reward and a run's arguments
    blocks = [trainer.sub("", block) for block in BLOCKS if block is not TASK]
    checks = "assert 0 < floor < 1 and min(prompts['sampling_weight']) < 1 < max(prompts['sampling_weight'])"
    (tmp_path / "snippets.py").write_text("\n".join([*blocks, checks]), encoding="utf-8")
    done = subprocess.run([sys.executable, "snippets.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == re.search(r"print\(rows\[0\]\)  # (.*)", README)[1]
    assert (tmp_path / "my-model" / "modeling_rope_gpt.py").is_file()


@pytest.mark.processes
def test_the_snippets_for_coding_assistants_run(tmp_path):
    skill = (ROOT / ".agents" / "skills" / "hf-synth" / "SKILL.md").read_text(encoding="utf-8")
    (tmp_path / "snippets.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", skill, re.DOTALL)))
    done = subprocess.run([sys.executable, "snippets.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_own_reward_scores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = re.search(r"--reward (my_reward.py:\w+)", README)[1]
    Path("my_reward.py").write_text(next(block for block in BLOCKS if f"def {name.split(':')[1]}(" in block))
    (reward,) = load_rewards([name], {}, None)
    texts = [[{"role": "assistant", "content": "It is 4."}], "5"]
    assert reward(prompts=["2 + 2?"] * 2, completions=texts, completion_ids=[[], []], answer=["4", "4"]) == [1.0, 0.0]


def test_own_task_keeps_the_promises(own_task):
    task = hf_synth.get_task(own_task)
    rows = task.rows(0, 200)
    assert (task.rows(100, 100).tokens == rows.tokens[100:]).all()
    rng = RowRandom(seed=0, split="train", purpose="corrupt", index=range(200))
    pairs = hf_synth.load_dataset(own_task, split="train", size=200, view="preference")
    assert all(task.verify(row["prompt"], row["chosen"]) == 1.0 for row in pairs)
    assert all(task.verify(row["prompt"], row["rejected"]) == 0.0 for row in pairs)
    assert (with_prompts(rows, rng).loss_start == rows.loss_start).all()


def prose(path):
    """A page without its code."""
    return re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(path):
    """What links to a part of a page may name, as GitHub makes it from the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page):
    path = ROOT / page
    links = re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)", prose(path))
    targets = [(path.parent / target if target else path, part) for target, part in links if "://" not in target]
    assert [str(target) for target, _ in targets if not target.exists()] == []
    assert [(str(target), part) for target, part in targets if part and part not in anchors(target)] == []


@pytest.mark.parametrize("page", PAGES)
def test_names_of_the_package_are_there(page):
    names = set(re.findall(r"\bhf_synth(?:\.[A-Za-z_]\w*)+", prose(ROOT / page)))
    assert sorted(name for name in names if pydoc.locate(name) is None) == []


def test_the_index_names_every_page():
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in DOCS.glob("*.md") if f"({path.name}" not in index) == ["README.md"]


def test_the_repository_layout_shows_every_module():
    tree = README.split("## Repository layout")[1].split("```")[1]
    modules = {path.name for path in (ROOT / "hf_synth").iterdir() if not path.name.startswith(("_", "py."))}
    assert sorted(name for name in modules if name.removesuffix(".py") not in tree) == []
