"""hf-synth check: good files pass, and each broken promise is the one that is named, with a row."""

import re
from pathlib import Path

import pytest

from hf_synth.checks import PROMISES, promises_of
from hf_synth.cli import main
from hf_synth.tasks import task_class

ROOT = Path(__file__).parents[2]
ZORVAN = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "own_language.md").read_text(encoding="utf-8"), re.DOTALL)[
    1
]
REVERSE = re.search(r"```python\n(\"\"\"Reverse.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[
    1
]
METHOD = "    def vocabulary"  # another method is put before this one
OWN_ROWS = """\
    def rows(self, start, count, *, split='train', seed=0):
        return self.generate(self.row_random(start, count, split=split, seed=seed))

"""
NEVER_REPEATED = """\
    def size(self, split):
        return 37

    def row_random(self, start, count, *, split='train', seed=0):
        index = np.arange(start, start + count, dtype=np.uint64)
        return RowRandom(seed=seed, split=split, purpose='generate', index=index)

"""
NO_CHOICE = """\
    def decision_points(self):
        return (DecisionPoint('on', 'ON', ('OFF',), ('OFF',)),)

"""
CONFIG = "    most: int = bounded(100, 1, 10_000)  # the number of ON is uniform on 1 .. most\n"
DEFECTS = {  # promise: what to change in Zorvan's file to break it
    "rows are well-formed, and the vocabulary has no duplicates": (
        "return framed(words, 2 * count[:, 0],", "return framed(words + 9, 2 * count[:, 0],"
    ),
    "a row is the same alone and in a block": (
        "rng.integers(1, self.config.most + 1, 1)",
        "1 + (rng.integers(0, self.config.most, 1) + rng.rows) % self.config.most",
    ),
    "another split, seed or purpose gives other rows": (
        "rng.integers(1,", 'RowRandom(seed=0, split="train", purpose=rng.purpose, index=rng.index).integers(1,'
    ),
    "every epoch of finite rows has the same rows, in a new order": (METHOD, NEVER_REPEATED + METHOD),
    "text tokenises back to the rows": ('"ON"', '"<zorvan></zorvan>"'),
    "every view shows the rows": ('"wrong_order": Violation(', '"": Violation('),
    "the floor is finite, at most 0, and 0 outside the loss": ("1.0 - turn)", "2.0 - turn)"),
    "the distribution of the next token sums to 1, and agrees with the floor": ("(tokens == _ON)", "(tokens != _OFF)"),
    "right completions are verified 1.0": ("< count, _ON, _OFF", "< count, _OFF, _ON"),
    "completions truncated, extended or empty, and garbage, are verified 0.0": (
        'words == ["ON"] * half + ["OFF"] * half', 'words[:half] == ["ON"] * half'
    ),
    "any text is verified 0.0 or 1.0": ("half = len(words) // 2", 'half = words.index("OFF")'),
    "corrupted rows are verified 0.0; lengths and prompts are kept": (
        "rows.loss_start), _ON)", "rows.loss_start), _OFF)"
    ),
    "violations are verified 0.0, and keep the length if they say so": (
        "np.full(len(rows), 2), rows.lengths - 3", "*np.full((2, len(rows)), 2)"
    ),
    "decision points have valid and invalid words of the vocabulary": (METHOD, NO_CHOICE + METHOD),
    "config fields refuse invalid values, and work at their minimum": (
        CONFIG, CONFIG + "\n    def __post_init__(self):\n        pass\n"
    ),
    'holdout="content" keeps splits apart, or says why it cannot': (METHOD, OWN_ROWS + METHOD),
}  # fmt: skip
WITHOUT_ROW = {  # what is wrong there is not a row
    "another split, seed or purpose gives other rows",
    "every epoch of finite rows has the same rows, in a new order",
    "any text is verified 0.0 or 1.0",
    "decision points have valid and invalid words of the vocabulary",
    "config fields refuse invalid values, and work at their minimum",
}


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
    assert len(lines) == (1 + len(PROMISES)) * len(presets)


def broken(lines: list[str]) -> list[str]:
    """The promises that are broken."""
    return [line.removeprefix("  broken  ") for line in lines if line.startswith("  broken")]


def test_each_promise_has_a_defect_below():
    assert list(DEFECTS) == [promise.name for promise in PROMISES]


@pytest.mark.parametrize(("promise", "change"), DEFECTS.items(), ids=[one.problems.__name__ for one in PROMISES])
def test_broken_promise_is_named_with_a_row(promise, change, check):
    old, new = change
    assert old in ZORVAN
    text = ZORVAN.replace(old, new).replace("import Rows", "import DecisionPoint, Rows")
    code, lines = check(text, "--preset", "default")
    assert code == 1
    assert promise in broken(lines)
    if promise not in WITHOUT_ROW:
        at = lines.index(f"  broken  {promise}")
        assert re.match(r" {10}(train|validation|test) row \d+(, cut)?: <bos> ", lines[at + 2])


def test_nothing_else_is_checked_in_rows_that_are_malformed(check):
    _, lines = check(ZORVAN.replace(*next(iter(DEFECTS.values()))), "--preset", "default")
    assert broken(lines) == [PROMISES[0].name]
    assert len([line for line in lines if line.startswith("  ok")]) == 0


def test_violation_that_depends_on_the_block_breaks_one_promise_alone(check):
    swap = "swapped(rows, np.full(len(rows), 2), rows.lengths - 3)"
    assert swap in ZORVAN
    text = ZORVAN.replace(swap, f"{swap} if len(rows) > 1 else replaced(rows, (2, _OFF))")
    assert broken(check(text, "--preset", "default")[1]) == ["a row is the same alone and in a block"]


def test_corrupt_that_changes_its_argument_is_told_so(check):
    text = REVERSE.replace("wrong = rows.select(np.arange(len(rows)))", "wrong = rows")
    code, lines = check(text)
    assert code == 1
    assert "          corrupt changes the rows that it is given; wanted a copy (rows.select)" in lines
    assert "corrupted rows are verified 0.0; lengths and prompts are kept" in broken(lines)


def test_row_of_two_splits_is_shown_with_both(check):
    promise = 'holdout="content" keeps splits apart, or says why it cannot'
    _, lines = check(ZORVAN.replace(*DEFECTS[promise]), "--preset", "default")
    assert lines[lines.index(f"  broken  {promise}") + 1].strip() == "this row is in the train split as well"


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


@pytest.mark.parametrize(("name", "preset"), [("sort", "8"), ("rlm", "v6-l2-b1")])
def test_installed_task_is_checked_by_name(name, preset, capsys):
    main(("check", name, "--preset", preset))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{name} {preset}", *(f"  ok      {one.name}" for one in promises_of(task_class(name)))]


GENERATED = "return Rows.transduction(given, given[:, ::-1])"
BROKEN = {  # what is wrong: (what to change in my_reverse's file, what the lines say)
    "generate raises": ((GENERATED, "return 1 // 0"), "my_task.py: line 35: ZeroDivisionError"),
    "generate ends Python": ((GENERATED, "raise SystemExit(0)"), "my_task.py: line 35: SystemExit: 0"),
    "fewer rows": (
        (GENERATED, f"{GENERATED}.select(np.arange(min(3, rng.rows)))"),
        "generate: got tokens of shape [3,",
    ),
    "no rows": ((GENERATED, "return None"), "generate: got a NoneType, wanted Rows"),
    "lists": (("[:, ::-1])\n", "[:, ::-1]).tokens.tolist()\n"), "generate: got a list, wanted Rows"),
    "int64": ((GENERATED, "return Rows(*np.ones((4, rng.rows), np.int64))"), "got an array of int64 as tokens"),
    "flat": ((GENERATED, "return Rows(*np.ones((4, rng.rows), np.int32))"), "generate: got tokens of shape"),
    "another dtype": (
        (GENERATED, f"rows = {GENERATED[7:]}; rows.lengths = rows.lengths * 1.0; return rows"),
        "float64",
    ),
    "columns": (("    version = 1", '    version = 1\n    columns = {"kind": "int32"}'), "no column kind of"),
    "large ids": ((GENERATED, "return Rows.transduction(given, given[:, ::-1] + 9)"), "token id"),
    "negative ids": ((GENERATED, "return Rows.transduction(given, given[:, ::-1] - 20)"), "token ids beyond"),
    "vocabulary raises": (("return tuple(map(str", "return tuple(map(nothing"), "NameError: name 'nothing'"),
    "vocabulary of numbers": (("return tuple(map(str, ", "return tuple(map(int, "), "vocabulary: got 0, wanted words"),
    "verify raises": (
        ("*given, separator = prompt", "1 // 0\n        *given, separator = prompt"),
        "is not verified 1.0",
    ),
    "verify ends Python": (("*given, separator = prompt", "exit()\n        *given, separator = prompt"), "SystemExit"),
    "verify says yes": (("return float(asked and", "return float(True or"), "is not verified 0.0"),
    "corrupt is gold": (("wrong.tokens[:, -2] = ", "nothing = "), "a corrupted completion is not verified 0.0"),
    "corrupt returns nothing": (("        return wrong\n", ""), "got a NoneType, wanted Rows"),
    "corrupt has fewer rows": (("        return wrong\n", "        return wrong.select(np.arange(1))\n"), "tokens"),
    "floors are NaN": (("np.zeros(rows.tokens.shape)", "np.full(rows.tokens.shape, np.nan)"), "impossible or NaN"),
    "floors are a list": (("np.zeros(rows.tokens.shape)", "[0.0]"), "got a list, wanted float64"),
    "floors of another shape": (("np.zeros(rows.tokens.shape)", "np.zeros(3)"), "got float64 [3], wanted float64"),
    "floors raise": (
        ("np.zeros(rows.tokens.shape)", "rows.nothing"),
        "AttributeError: 'Rows' object has no attribute",
    ),
    "explanations": (
        ("    def verify", "    def explanations(self):\n        return (3,)\n\n    def verify"),
        "got (3,)",
    ),
    "violations": (
        ("    def verify", "    def violations(self):\n        return {'a': 3}\n\n    def verify"),
        "'int' object",
    ),
    "presets of numbers": (
        ('{"8": ReverseConfig()}', '{"8": 3}'),
        "Reverse.presets: got {'8': 3}, wanted at least one",
    ),
    "presets as a list": (('{"8": ReverseConfig()}', "[ReverseConfig()]"), "Reverse.presets: got [ReverseConfig("),
    "preset out of range": (
        ('{"8": ReverseConfig()}', '{"8": ReverseConfig(length=0)}'),
        "ReverseConfig.length: got 0",
    ),
    "preset with a slash": (('{"8": Rev', '{"a/8": Rev'), "Reverse.presets: got the name 'a/8', wanted letters"),
    "config that can be changed": (("(frozen=True)\nclass", "\nclass"), "cannot inherit non-frozen dataclass"),
    "config that is no dataclass": (("@dataclasses.dataclass(frozen=True)\n", ""), "Reverse.config_class: got"),
    "name with a slash": (('"my_reverse"', '"my/reverse"'), "Reverse.name: got 'my/reverse', wanted letters"),
    "name that is a number": (('"my_reverse"', "7"), "Reverse.name: got 7, wanted letters"),
    "import fails": (("import dataclasses\n", "import dataclasses\nimport no_such_module\n"), "ModuleNotFoundError"),
    "syntax": (("def verify(", "def verify(("), "my_task.py: line"),
    "ends Python": (("import dataclasses\n", "import dataclasses\nimport sys\nsys.exit(0)\n"), "calls sys.exit(0)"),
    "two tasks": (("\nclass Reverse(", "\nclass Two(Task):\n    pass\n\n\nclass Reverse("), "got 2 Task classes"),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_whatever_is_wrong_with_a_task_check_says_broken(defect, check):
    (old, new), said = BROKEN[defect]
    assert old in REVERSE
    code, lines = check(REVERSE.replace(old, new))
    assert code == 1
    assert broken(lines)
    assert [line for line in lines if said in line]
    assert not [line for line in lines if "Traceback" in line]


@pytest.mark.parametrize("defect", ["generate raises", "fewer rows", "large ids", "import fails", "ends Python"])
@pytest.mark.parametrize("command", ["export", "show"])
def test_rows_of_a_broken_task_are_an_error_of_one_line(command, defect, tmp_path, capsys):
    (old, new), said = BROKEN[defect]
    (tmp_path / "my_task.py").write_text(REVERSE.replace(old, new))
    more = ["--output", str(tmp_path / "rows.jsonl")] if command == "export" else []
    with pytest.raises(SystemExit) as ended:
        main([command, str(tmp_path / "my_task.py"), "--size", "1000", *more])
    lines = [line for line in capsys.readouterr().err.splitlines() if "rows/s" not in line and "it/s" not in line]
    assert ended.value.code == 2
    assert len(lines) == 1
    assert said in lines[0]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".jsonl"] == []


def test_corruptions_that_are_fewer_than_rows_are_an_error_of_one_line(tmp_path, capsys):
    text = REVERSE.replace("        return wrong\n", "        return wrong.select(np.arange(1))\n")
    (tmp_path / "my_task.py").write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["export", str(tmp_path / "my_task.py"), "--size", "10", "--view", "preference"])
    assert ended.value.code == 2
    assert "corrupt: got tokens of shape [1, 19], wanted [10, any]" in capsys.readouterr().err
