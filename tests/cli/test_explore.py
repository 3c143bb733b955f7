"""The explorer: what stands behind its tabs, and the page in a real browser."""

import importlib.util
import json
import math
import shutil

import pytest

from hf_synth.cli.recipes import shipped
from hf_synth.tasks import get_task, list_tasks

spec = importlib.util.spec_from_file_location("explorer", shipped("spaces", "explorer", "app.py"))
explore = importlib.util.module_from_spec(spec)
spec.loader.exec_module(explore)
CHROMIUM = shutil.which("chromium")
PLOTS = "img[alt*=plot]:visible"


DAILY = ("sort", "dyck", "analogy")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in DAILY else pytest.mark.nightly) for name in list_tasks()]
)
def test_every_task_is_shown(name):
    task = get_task(name)
    table = explore.rows_table(task, "test", 1)
    assert [row for row, *_ in table] == list(range(8))
    assert math.isfinite(sum(floor for *_, floor in table))
    assert "nats in the row" in explore.coloured(task, "test", 1, 3)
    assert explore.tree(task, "test", 1, 3)


def test_tokens_are_coloured_by_their_floor():
    text = explore.coloured(get_task("dyck", "k2-l16"), "train", 0, 0)
    assert text.count("<code>") == 18
    assert text.count("#dddddd") == 2  # <bos> carries no loss
    assert "<code>&lt;bos&gt;</code>" in text
    assert "0.69" in text  # ln 2: an opening that must be one, of two types


def test_trees_are_those_of_the_rows_shown():
    dyck, rlm = get_task("dyck", "k2-l16"), get_task("rlm")
    for row in (0, 5):
        words = explore.row_words(dyck, dyck.rows(row, 1, seed=2), 0)
        assert explore.tree(dyck, "train", 2, row).split() == words[1:-1]
        leaves = explore.row_words(rlm, rlm.rows(row, 1, seed=2), 0)[1:]
        assert explore.tree(rlm, "train", 2, row).splitlines()[-1].split() == leaves
    assert "no tree" in explore.tree(get_task("sort"), "train", 0, 0)
    assert "drawn more than once" in explore.tree(get_task("dyck", "k2-l16", holdout="content"), "train", 0, 0)


@pytest.mark.parametrize(
    ("completion", "said"),
    [("1 2 3", "right"), ("1 3 2", "wrong"), ("", "wrong"), ("1 2 six", "wrong; no words of the task: six")],
)
def test_typed_text_is_judged(completion, said):
    assert explore.verdict(get_task("sort", "8"), "3 1 2 <sep>", completion) == said


def test_of_a_task_without_verifier_nothing_is_wrong():
    assert explore.verdict(get_task("rlm"), "1", "2") == "No text of rlm is wrong."


def test_prompts_of_a_file_are_mapped(tmp_path):
    path = tmp_path / "prompts.jsonl"
    crowd = [f"sort the numbers {number} and {number + 1}" for number in range(30)]
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in [*crowd, "a poem on rain, please"]))
    with path.open("a") as file:
        file.write("no JSON\n")
    used, figure, rarest, crowded = explore.density_map(str(path), 5)
    assert used == "31 prompts; 1 left out: not JSON"
    assert figure.axes[0].collections[0].get_offsets().shape == (31, 2)
    assert rarest[0][1] == "a poem on rain, please"
    assert float(rarest[0][0]) < float(crowded[0][0])
    with pytest.raises(ValueError, match="prompts: got no file"):
        explore.density_map(None, 5)


@pytest.fixture
def runs(tmp_path):
    """Two finished runs in folders below one place."""
    for name, values in (("a/seed-0", (3.0, 2.0)), ("b", (3.0, 1.0))):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        history = [{"step": step, "loss": loss, name[0]: 1.0} for step, loss in enumerate(values)]
        (folder / "training_log.json").write_text(json.dumps({"history": history, "seconds": 1.0}))
    return tmp_path


def test_runs_are_compared_over_steps(runs):
    assert explore.run_folders(runs) == ["a/seed-0", "b"]
    assert explore.logged(runs, ["a/seed-0"]) == ["a", "loss"]
    assert explore.logged(runs, ["a/seed-0", "b"]) == ["loss"]
    lines = explore.over_steps(runs, ["a/seed-0", "b"], "loss").axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[3.0, 2.0], [3.0, 1.0]]


@pytest.mark.nightly
@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed")
@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed")
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_every_tab_in_a_real_browser(runs, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"say {number} twice"}) + "\n" for number in range(40)))
    page_of = explore.app(runs)
    _, address, _ = page_of.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", server_port=None)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1200, "height": 1600})
            errors = []
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(address)
            expect(page.get_by_text("per token with loss")).to_be_visible(timeout=60_000)
            page.get_by_role("button", name="Is it right?").click()
            expect(page.get_by_label("Verdict")).to_have_value("right", timeout=60_000)
            page.get_by_label("Completion").fill("(0 (0")
            page.get_by_role("button", name="Is it right?").click()
            expect(page.get_by_label("Verdict")).to_have_value("wrong", timeout=60_000)
            page.screenshot(path=tmp_path / "tasks.png", full_page=True)
            page.get_by_role("tab", name="Prompts by density").click()
            with page.expect_file_chooser() as chooser:
                page.get_by_text("Click to Upload").click()
            chooser.value.set_files(prompts)
            expect(page.get_by_text("prompts.jsonl")).to_be_visible(timeout=60_000)
            page.get_by_role("button", name="Measure").click()
            expect(page.locator(PLOTS)).to_have_count(1, timeout=60_000)
            page.screenshot(path=tmp_path / "prompts.png", full_page=True)
            page.get_by_role("tab", name="Runs").click()
            page.get_by_label("a/seed-0").check()
            page.get_by_label("b", exact=True).check()
            expect(page.get_by_label("Logged quantity")).to_have_value("loss", timeout=60_000)
            expect(page.locator(PLOTS)).to_have_count(1, timeout=60_000)
            page.screenshot(path=tmp_path / "runs.png", full_page=True)
            browser.close()
    finally:
        page_of.close()
    assert errors == []
