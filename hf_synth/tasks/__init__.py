"""The registry: finds a task by name (a file here), by entry point (`hf_synth.tasks`), or by the path of its file.

`families/` is no task: it holds what tasks of one kind share.
"""

import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from hf_synth.errors import nearest
from hf_synth.tasks.base import DecisionPoint, Rows, Task, TaskConfig, Violation

__all__ = ["DecisionPoint", "Rows", "Task", "TaskConfig", "Violation", "get_task", "list_tasks", "task_class"]

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
    if chosen not in task.presets:
        raise ValueError(f"task {name}: got unknown preset {chosen!r}; {nearest(chosen, task.presets)}")
    return task(task.presets[chosen].replace(**config))


def task_class(name: str) -> type[Task]:
    """The class of a task by name or by the path of its file.

    Raises ValueError for an unknown name, and for a file that holds no whole task; what its code raises stays.
    """
    if name.endswith(".py"):
        return _task_in(_load_file(Path(name)), name)
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


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"got task file {str(path)!r}, which does not exist; wanted the path of a .py file")
    name = f"hf_synth_task_{path.stem}"
    loader = _FreshLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise ValueError(f"got task file {str(path)!r}, which Python cannot load")
    try:
        loader.get_code(name)
    except SyntaxError as error:
        raise ValueError(f"{path}: line {error.lineno}: {error.msg}") from None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except SystemExit as error:
        raise ValueError(f"{path}: calls sys.exit({error.code}) when it is loaded, wanted a file to import") from error
    return module


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
