"""hf-synth check: good files pass, and each broken promise is the one that is named, with a row."""

import re
from pathlib import Path

import pytest

from hf_synth import list_tasks
from hf_synth.cli import main

ROOT = Path(__file__).parents[2]
ZORVAN = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "own_language.md").read_text(encoding="utf-8"), re.DOTALL)[
    1
]
REVERSE = re.search(r"```python\n(\"\"\"Reverse.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[
    1
]
UNLIKE = {  # promise: what to change in Zorvan's file to break it
    "rows are well-formed": ("return framed(words, 2 * count[:, 0],", "return framed(words + 9, 2 * count[:, 0],"),
    "a row is the same alone and in a block": (
        "rng.integers(1, self.config.most + 1, 1)", "np.full((rng.rows, 1), 1 + rng.rows % 5)"
    ),
    "the floor is finite": ("1.0 - turn)", "2.0 - turn)"),
    "right completions": ("< count, _ON, _OFF", "< count, _OFF, _ON"),
    "completions truncated": ('== ["ON"] * half + ["OFF"] * half', '[:half] == ["ON"] * half'),
    "corrupted rows are verified 0.0": ("rows.loss_start), _ON)", "rows.loss_start), _OFF)"),
    "violations are verified 0.0": ("np.full(len(rows), 2), rows.lengths - 3", "*np.full((2, len(rows)), 2)"),
}  # fmt: skip


@pytest.fixture
def check(tmp_path, capsys):
    """Exit code, and the lines that `check` prints, for a file of this text."""

    def run(text: str, *arguments: str) -> tuple[int, list[str]]:
        path = tmp_path / "my_task.py"
        path.write_text(text, encoding="utf-8")
        code = 0
        try:
            main(("check", str(path), *arguments))
        except SystemExit as ended:
            code = ended.code
        out = capsys.readouterr()
        return code, [*out.out.splitlines(), *out.err.splitlines()]

    return run


@pytest.mark.parametrize(
    ("text", "presets"), [(ZORVAN, ["zorvan default", "zorvan short"]), (REVERSE, ["my_reverse 8"])]
)
def test_tasks_of_the_pages_keep_every_promise(text, presets, check):
    code, lines = check(text)
    assert code == 0
    assert [line for line in lines if not line.startswith("  ok ")] == presets
    assert len(lines) == 10 * len(presets)


@pytest.mark.parametrize(("promise", "change"), UNLIKE.items(), ids=UNLIKE)
def test_broken_promise_is_named_with_a_row(promise, change, check):
    old, new = change
    assert ZORVAN.count(old) == 1
    code, lines = check(ZORVAN.replace(old, new), "--preset", "default")
    assert code == 1
    at = next(number for number, line in enumerate(lines) if line.startswith("  broken  "))
    assert lines[at].startswith(f"  broken  {promise}")
    assert re.match(r" {10}(train|validation|test) row \d+(, cut)?: <bos> ", lines[at + 2])


def test_row_that_depends_on_the_block_breaks_one_promise_alone(check):
    _, lines = check(ZORVAN.replace(*UNLIKE["a row is the same alone and in a block"]), "--preset", "default")
    assert [line for line in lines if line.startswith("  broken")] == [
        "  broken  a row is the same alone and in a block"
    ]


def test_corrupt_that_changes_its_argument_is_told_so(check):
    text = REVERSE.replace("wrong = rows.select(np.arange(len(rows)))", "wrong = rows")
    code, lines = check(text)
    assert code == 1
    assert "          corrupt changes the rows that it is given; wanted a copy (rows.select)" in lines
    assert [line for line in lines if line.startswith("  broken")] == [
        "  broken  corrupted rows are verified 0.0; lengths and prompts are kept"
    ]


def test_holdout_that_is_not_held_is_broken(check):
    own = "    def rows(self, start, count, *, split='train', seed=0):\n        return self.generate(self.row_random(start, count, split=split, seed=seed))\n\n"  # fmt: skip # noqa: E501
    code, lines = check(ZORVAN.replace("    def vocabulary", own + "    def vocabulary"), "--preset", "default")
    assert code == 1
    at = lines.index('  broken  holdout="content" keeps splits apart, or says why it cannot')
    assert lines[at + 1].strip() == "this row is in the train split as well"


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (ZORVAN, ("--preset", "shot"), "got unknown preset 'shot'; did you mean 'short'?"),
        (ZORVAN.replace("is_sentence", "is_one"), (), "my_task.py: class Zorvan lacks is_sentence; see 'Add a task'"),
    ],
)
def test_mistake_of_the_user_is_one_line_and_exit_code_2(text, arguments, message, check):
    code, lines = check(text, *arguments)
    assert code == 2
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("name", list_tasks())
def test_default_preset_of_every_task_keeps_every_promise(name, capsys):
    from hf_synth.tasks import task_class

    main(("check", name, "--preset", next(iter(task_class(name).presets))))
    assert "broken" not in capsys.readouterr().out
