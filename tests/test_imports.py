"""Who may import whom, what importing costs, how much there is to read, and that nothing here runs data as code."""

import ast
import importlib
import json
import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import transformers

import hf_synth
from hf_synth import corpora, sampling

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hf_synth"
FILES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(path for folder in ("recipes", "datasets_scripts") for path in (ROOT / folder).rglob("*.py"))

# From below: a part may import those under it, and nothing of its own layer but itself.
LAYERS = [
    {"errors", "kernels"},
    {"rng", "io"},
    {"tasks", "models", "preferences", "sampling", "metrics"},
    {"tokenization"},
    {"views"},
    {"builder", "online", "rewards"},
    {"checks"},
    {"corpora"},
    {"evaluation"},
    {"training"},
    {"experiments"},
    {"reports"},
    {"hub"},
    {"cli"},
]
# These stand alone: models and metrics are copied out of the package, and sampling serves any trainer.
ALONE: dict[str, set[str]] = {
    "models": set(),
    "metrics": set(),
    "sampling": {"errors", "io", "kernels"},
    "preferences": {"errors", "io", "rng"},
}


def part(module: str) -> str:
    """`hf_synth.tasks.sort` -> `tasks`."""
    return module.split(".")[1]


def name_of(path: Path) -> str:
    """hf_synth/tasks/sort.py -> `hf_synth.tasks.sort`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in the file; names taken from hf_synth itself by their home."""
    result: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            result |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name_of(path).split(".")[: -node.level] if node.level else []
            module = ".".join([*package, *filter(None, [node.module])])
            result |= {home_of(alias.name) for alias in node.names} if module == "hf_synth" else {module}
    return result - {"hf_synth", "hf_synth.__version__", "hf_synth.lazy_names"}


def home_of(name: str) -> str:
    return hf_synth._HOMES.get(name, f"hf_synth.{name}")


def allowed(importer: str) -> set[str]:
    """The parts of hf_synth that a part may import."""
    if importer in ALONE:
        return {importer} | ALONE[importer]
    level = next(level for level, layer in enumerate(LAYERS) if importer in layer)
    return set().union(*LAYERS[:level]) | {importer}


@pytest.mark.parametrize("path", [path for path in FILES if path != PACKAGE / "__init__.py"], ids=name_of)
def test_module_imports_only_its_own_layer_and_those_below(path):
    importer = part(name_of(path))
    assert importer in set().union(*LAYERS), f"{importer} has no place in the order of layers"
    inside = {module for module in imported(path) if module.startswith("hf_synth.")}
    assert {part(module) for module in inside} <= allowed(importer)


def test_a_forbidden_import_is_found(tmp_path, monkeypatch):
    """The check above, on files that break the rule in each way an import can be written."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "hf_synth" / "tasks" / "bad.py"
    path.parent.mkdir(parents=True)
    for line in (
        "import hf_synth.builder",
        "from hf_synth.builder import load_dataset",
        "from hf_synth import load_dataset",
        "from hf_synth import builder",
        "from .. import builder",
        "from ..builder import load_dataset",
        "def late():\n    import hf_synth.builder",
    ):
        path.write_text(line)
        assert {part(module) for module in imported(path)} == {"builder"}, line
    assert "builder" not in allowed("tasks")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_imports_recipes_or_scripts(path):
    assert not {module.split(".")[0] for module in imported(path)} & {
        "recipes",
        "datasets_scripts",
        "tests",
        "benchmarks",
    }


@pytest.mark.processes
def test_importing_the_package_has_no_effect_and_loads_no_heavy_library():
    program = """import os, sys
before = [*sys.meta_path], {**os.environ}
import hf_synth
print(*sorted(sys.modules))
import hf_synth.tasks
assert ([*sys.meta_path], {**os.environ}) == before
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "hf_synth" in done.stdout.split()
    assert not {"torch", "transformers", "datasets", "numpy", "numba", "trl"} & set(done.stdout.split())


def test_names_of_corpora_load_and_others_are_attribute_errors():
    assert {"Arm", "Packed", "interleave", "load_corpus", "write_corpus"} < set(corpora.__all__)
    assert all(getattr(corpora, name).__name__ == name for name in corpora.__all__)
    with pytest.raises(AttributeError, match=r"module 'hf_synth\.corpora' has no attribute 'Pack'"):
        _ = corpora.Pack


@pytest.mark.parametrize("package", [hf_synth, corpora, sampling], ids=lambda package: package.__name__)
def test_a_type_checker_sees_the_names_that_load_on_first_use(package):
    tree = ast.parse(Path(package.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: getattr(importlib.import_module(node.module), alias.name)
            for node in block.body for alias in node.names}  # fmt: skip
    assert seen == {name: getattr(package, name) for name in package.__all__ if name != "__version__"}


@pytest.mark.processes
def test_rows_need_neither_torch_nor_transformers_nor_datasets():
    program = "import sys, hf_synth; hf_synth.get_task('sort', '8').rows(0, 2); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "datasets"} & set(done.stdout.split())


def test_every_public_name_loads():
    assert all(getattr(hf_synth, name) is not None for name in hf_synth.__all__)
    assert set(hf_synth._HOMES) <= set(hf_synth.__all__)


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'hf_synth' has no attribute 'load_datasets'"):
        _ = hf_synth.load_datasets


# How much there is to read


def reached(path: Path) -> set[Path]:
    """All files of hf_synth that a file imports, directly or not; names that a package exports lazily count, too."""
    seen: set[Path] = set()
    pending = [path]
    while pending:
        source = pending.pop()
        seen.add(source)
        pending += [target for target in direct_imports(source) if target not in seen]
    return seen - {path}


def direct_imports(path: Path) -> set[Path]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = name_of(path).split(".")[: -node.level] if node.level else []
            module = ".".join([*package, *filter(None, [node.module])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
            lazy = getattr(sys.modules.get(module), "_HOMES", {})
            names |= {lazy[alias.name] for alias in node.names if alias.name in lazy}
    files = {
        ROOT / folder / Path(*name.split(".")[:depth])
        for name in names
        for depth in range(1, name.count(".") + 2)
        for folder in ("", "recipes")
    }
    return {file for stem in files for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.is_file()}


def test_recipes_can_be_read_by_one_person():
    assert len(reached(ROOT / "recipes" / "grpo.py")) <= 95


def lines_of(paths) -> int:
    return sum(len(path.read_text().splitlines()) for path in paths)


def test_the_package_stays_small():
    assert lines_of([*FILES, *PACKAGE.rglob("*.j2")]) <= 27_739  # a ceiling for now: 22,500 is what it is to become
    assert lines_of(SCRIPTS) <= 3_800


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A policy for the task sort, untrained."""
    from hf_synth.models import RopeGPTConfig, RopeGPTForCausalLM

    folder, tokenizer = tmp_path_factory.mktemp("policy"), hf_synth.build_tokenizer(hf_synth.get_task("sort", "8"))
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    RopeGPTForCausalLM(RopeGPTConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class TrainingReachedError(Exception):
    """Training was about to begin."""


@pytest.mark.parametrize("recipe", ["sft", "reward", "dpo", "grpo", "pretrain"])
def test_few_calls_lie_between_a_recipe_and_the_trainer(recipe, policy, tmp_path, monkeypatch):
    def stop(trainer, *args, **kwargs):
        raise TrainingReachedError

    monkeypatch.setattr(transformers.Trainer, "train", stop)
    monkeypatch.chdir(tmp_path)
    values = {"task": "sort", "preset": "8", "output_dir": "run", "use_cpu": True, "bf16": False, "report_to": "none"}
    values |= (
        {"max_steps": 2}
        if recipe == "pretrain"
        else {"num_rows": 32, "density_k": 2, "model_name_or_path": str(policy)}
    )
    values |= {"eval_prompts": 0, "num_generations": 2} if recipe == "grpo" else {}
    Path("config.yaml").write_text(json.dumps(values))
    with pytest.raises(TrainingReachedError) as stopped:
        importlib.import_module(recipe).main(["--config", "config.yaml"])
    frames = traceback.extract_tb(stopped.tb)
    ours = [frame for frame in frames if ROOT in Path(frame.filename).parents and "tests" not in frame.filename]
    assert len(ours) <= 4, ours
    assert len({frame.filename for frame in ours}) <= 3, ours


# Nothing runs code that is data

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "np.load",
    "numpy.load",
    "os.system",
    "yaml.load",
}


def unsafe(source: str) -> list[str]:
    """What in a source would unpickle, or run text as code; `model.eval()` and a loader's `exec_module` are fine."""
    result = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            result += [alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom):
            result += [node.module] if (node.module or "").split(".")[0] in UNSAFE_MODULES else []
            result += [
                name for name in (f"{node.module}.{alias.name}" for alias in node.names) if name in UNSAFE_CALLS
            ]
        elif isinstance(node, ast.Call):
            result += [ast.unparse(node.func)] if ast.unparse(node.func) in UNSAFE_CALLS else []
            result += [word.arg for word in node.keywords if word.arg and is_unsafe_argument(word)]
    return result


def is_unsafe_argument(word: ast.keyword) -> bool:
    banned = {"trust_remote_code", "allow_pickle", "shell"}
    return word.arg in banned and not (isinstance(word.value, ast.Constant) and word.value.value is False)


@pytest.mark.parametrize("path", [*FILES, *SCRIPTS], ids=name_of)
def test_nothing_unpickles_or_runs_text_as_code(path):
    assert unsafe(path.read_text()) == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes").rglob("*.y*ml")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_recipe_trusts_remote_code(path):
    assert not re.search(r"trust_remote_code\s*:\s*(true|yes|on|1)", path.read_text(), re.IGNORECASE)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=flag)",
    ],
)
def test_unsafe_code_is_found(source):
    assert unsafe(source)


@pytest.mark.parametrize(
    "source", ["model.eval()", "spec.loader.exec_module(module)", "re.compile('a')", "f(trust_remote_code=False)"]
)
def test_safe_code_is_let_through(source):
    assert not unsafe(source)
