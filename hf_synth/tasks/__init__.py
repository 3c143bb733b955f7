"""The registry: finds a task by name (a file here), by entry point (`hf_synth.tasks`), or by the path of its file.

`families/` is no task: it holds what tasks of one kind share.
"""

import ast
import functools
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import re
import sys
from collections.abc import Mapping
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numba

from hf_synth.errors import check_choices, nearest, read_json
from hf_synth.tasks.base import DecisionPoint, Rows, Task, TaskConfig, Violation

__all__ = ["DecisionPoint", "Rows", "Task", "TaskConfig", "Violation"]
__all__ += ["get_task", "list_tasks", "task_class", "task_from_json"]

ENTRY_POINT_GROUP = "hf_synth.tasks"
_NAME, _NAMES = r"\w[\w.-]*", "letters, digits, '_', '-' and '.': names of files and of configs are made of it"
_SAID = ("name", "version", "config_class", "presets", "source")  # what a task's class must have besides its methods


class UnfinishedTaskError(ValueError):
    """A task's class without something that every task must have."""


def list_tasks() -> list[str]:
    """The names of all tasks that are installed, sorted."""
    return sorted([*_own_names(), *_entry_points()])


def get_task(name: str, preset: str | None = None, **config: Any) -> Task:
    """A task by name or by the path of its file: a preset (the first by default) with `config` put over it.

    Raises ValueError for an unknown task, preset or field, naming the nearest known one, and for a value out of range.
    """
    task = task_class(name)
    chosen = preset if preset is not None else next(iter(task.presets))
    check_choices(f"task {name}", [chosen], task.presets, "unknown preset ")
    return task(task.presets[chosen].replace(**config))


@functools.lru_cache(maxsize=64)
def task_from_json(text: str) -> Task:
    """The task that `Task.to_json` describes, kept for the next call; a field that is not there has its default.

    The text may come with anybody's dataset: only installed tasks are known, and no path of a file is one.
    Raises ValueError for anything else.
    """
    described = read_json(text, "task") if isinstance(text, str) else None
    whole = isinstance(described, dict) and described.keys() == {"name", "config"}
    if not whole or not isinstance(described["config"], dict):
        wanted = "the JSON of a task's name and config, as Task.to_json gives it"
        raise ValueError(f"task: got {text!r:.200}, wanted {wanted}")
    name, config = described["name"], described["config"]
    if name not in list_tasks():
        raise ValueError(f"task: got {name!r}, which is no installed task; {nearest(name, list_tasks())}")
    task = task_class(name)
    return task(task.config_class().replace(**config))


def task_class(name: str) -> type[Task]:
    """The class of a task by name or by the path of its file.

    Raises ValueError for an unknown name, and for a file that holds no whole task; what its code raises stays.
    """
    if name.endswith(".py"):
        return _task_in(load_file(Path(name)), name)
    if name in _own_names():
        return _task_in(importlib.import_module(f"{__name__}.{name}"), f"{name}.py")
    outside = _entry_points()
    if name not in outside:
        raise ValueError(f"got unknown task {name!r}; {nearest(name, list_tasks())} A file of your own: my_task.py")
    return _whole(outside[name].load(), outside[name].value)


def _own_names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__) if module.name != "base" and not module.ispkg]


def _entry_points() -> dict[str, EntryPoint]:
    entries: dict[str, EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name in entries or entry.name in _own_names():
            raise ValueError(f"task {entry.name!r} is registered twice, again by {entry.value}; rename or remove one")
        entries[entry.name] = entry
    return entries


class _FreshLoader(SourceFileLoader):
    """Reads the file itself, never its bytecode: that is stale where an edit left the file's size and its second."""

    def path_stats(self, path: Any) -> NoReturn:
        raise OSError("without these numbers no bytecode is read or written")


class _OwnModules(MetaPathFinder):
    """Finds the modules that a task's file imports, those beside it among them, and reads them afresh."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if (file := self.files.get(fullname)) is None:
            return None
        inside = [str(file.parent)] if file.name == "__init__.py" else None
        loader = _FreshLoader(fullname, str(file))
        return importlib.util.spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=inside)


_OWN_MODULES = _OwnModules()


def load_file(path: Path) -> ModuleType:
    """Import a file of the user's own, and what lies beside it, as they are now; ValueError for one that is none."""
    if not path.is_file():
        raise ValueError(f"got the file {str(path)!r}, which does not exist; wanted the path of a .py file")
    name = f"hf_synth_task_{path.stem}"
    loader = _FreshLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise ValueError(f"got the file {str(path)!r}, which Python cannot load")
    try:
        loader.get_code(name)
        sources = _sources(name, path)
    except SyntaxError as error:
        where = path if Path(error.filename or path).name == path.name else error.filename
        raise ValueError(f"{where}: line {error.lineno}: {error.msg}") from None
    if _OWN_MODULES not in sys.meta_path:
        sys.meta_path.insert(0, _OWN_MODULES)
    for other, file in sources.items():
        if file and other != name:
            sys.modules.pop(other, None)  # it may be of before an edit, or another folder's of that name
            _OWN_MODULES.files[other] = file
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    kept_at = numba.config.CACHE_DIR
    # Numba checks a kernel's own file alone, though those of other files are compiled into it.
    numba.config.CACHE_DIR = str(path.resolve().parent / "__pycache__" / f"hf_synth-{_digest(sources)[:16]}")
    try:
        loader.exec_module(module)
    except SystemExit as error:
        raise ValueError(f"{path}: calls sys.exit({error.code}) when it is loaded, wanted a file to import") from error
    finally:
        numba.config.CACHE_DIR = kept_at
    return module


@functools.lru_cache  # by class: a file's is made anew at each load, while a plugin's code stays what it was
def source_digest(code: Any) -> str | None:
    """A digest of a task or function outside hf_synth, which changes without a release; None for one inside.

    It covers its file, the modules of one's own that it imports, and the versions of installed packages.
    """
    if code.__module__.startswith("hf_synth."):
        return None
    module = sys.modules[code.__module__]
    if getattr(module, "__file__", None) is None:  # written in a session: nothing says what its rows depend on
        return os.urandom(16).hex()
    return _digest(_sources(code.__module__, Path(str(module.__file__)), module.__package__ or ""))


def _digest(sources: dict[str, Path | None]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(sources.items()):
        code = path.read_bytes() if path else str(getattr(sys.modules.get(name), "__version__", None)).encode()
        digest.update(f"{name} {len(code)} ".encode() + code)
    return digest.hexdigest()


def _sources(name: str, path: Path, package: str = "") -> dict[str, Path | None]:
    """A module and those that it imports, directly or not: name -> file, None for a package that is installed."""
    sources: dict[str, Path | None] = {}
    folder, home = path.resolve().parent, name.partition(".")[0]
    waiting = [(name, path, package)]
    importlib.invalidate_caches()
    while waiting:
        importer, path, package = waiting.pop()
        sources[importer] = path
        for spec in [spec for imported in _imported(path, package) for spec in _specs(imported, folder)]:
            top = spec.name.partition(".")[0]
            if _installed(spec) and top != home:
                sources[top] = None
            elif spec.origin and spec.origin.endswith(".py") and spec.name not in sources:
                is_package = spec.submodule_search_locations is not None
                inside = spec.name if is_package else spec.name.rpartition(".")[0]
                waiting.append((spec.name, Path(spec.origin), inside))
    return sources


def _imported(path: Path, package: str) -> list[str]:
    """The names that a file imports, wherever in it, but those of Python itself; "a.b" where it takes b from a."""
    names: list[str] = []  # not a set: here that is the name of a task
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (package or not node.level):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names += [f"{origin}.{alias.name}" for alias in node.names]
    return [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names]


def _specs(name: str, folder: Path) -> list[ModuleSpec]:
    """How Python finds each part of a dotted name that is a module, without importing any.

    What is installed comes first, then what lies in the folder, then the rest of Python's path.
    """
    first, *others = name.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # a module without a spec, such as one that was made by hand
        spec = None
    beside = PathFinder.find_spec(first, [str(folder)])
    if beside and beside.origin and not (spec and _installed(spec)):
        spec = beside
    specs = []
    while spec:
        specs.append(spec)
        folders = spec.submodule_search_locations
        spec = PathFinder.find_spec(f"{spec.name}.{others.pop(0)}", folders) if others and folders else None
    return specs


def _installed(spec: ModuleSpec) -> bool:
    """Whether a module is hf_synth's or an installed package's, which a version stands for."""
    parts = Path(spec.origin or next(iter(spec.submodule_search_locations or ()), "")).parts
    return spec.name.partition(".")[0] == "hf_synth" or "site-packages" in parts or "dist-packages" in parts


def _task_in(module: ModuleType, where: str) -> type[Task]:
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise ValueError(f"{where}: got {len(own)} Task classes, wanted exactly one in a task's file")
    return _whole(own[0], where)


def _whole(task: type[Task], where: str) -> type[Task]:
    """The class, unless something is missing that every task must say; `where` it was found goes into the error."""
    unwritten = sorted(task.__abstractmethods__)
    if task.optimal_log_probs is Task.optimal_log_probs and task.optimal_probs is Task.optimal_probs:
        unwritten.append("optimal_probs (or optimal_log_probs)")
    if lacking := [*unwritten, *(name for name in _SAID if not hasattr(task, name))]:
        raise UnfinishedTaskError(
            f"{where}: class {task.__name__} lacks {', '.join(lacking)}; see 'Add a task' in the README"
        )
    if not isinstance(task.name, str) or not re.fullmatch(_NAME, task.name):
        raise ValueError(f"{where}: {task.__name__}.name: got {task.name!r}, wanted {_NAMES}")
    kind = task.config_class
    if not isinstance(kind, type) or not issubclass(kind, TaskConfig) or "__dataclass_params__" not in vars(kind):
        wanted = "a class over TaskConfig with @dataclasses.dataclass(frozen=True)"
        raise ValueError(f"{where}: {task.__name__}.config_class: got {kind!r}, wanted {wanted}")
    presets = task.presets
    if not isinstance(presets, Mapping) or not presets or not all(type(one) is kind for one in presets.values()):
        wanted = f"at least one {kind.__name__}, and nothing else"
        raise ValueError(f"{where}: {task.__name__}.presets: got {presets!r}, wanted {wanted}")
    for name in presets:
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise ValueError(f"{where}: {task.__name__}.presets: got the name {name!r}, wanted {_NAMES}")
    return task
