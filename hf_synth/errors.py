"""Errors as users should see them: what was got, what was wanted, what to do; one line and an exit code.

Light to import: commands report errors before they load what they need.
"""

import contextlib
import dataclasses
import difflib
import errno
import json
import logging
import numbers
import operator
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LIMITS = {  # name in a field's metadata -> (what holds, how an error says it)
    "at_least": (operator.ge, "at least"),
    "above": (operator.gt, "above"),
    "at_most": (operator.le, "at most"),
    "below": (operator.lt, "below"),
}
_TORCH_DISK_FULL = ("PytorchStreamWriter failed writing file", "unexpected pos")


@contextlib.contextmanager
def user_errors(
    command: str, interrupted: str = "the same command goes on from the last checkpoint"
) -> Iterator[None]:
    """Turn what a user can cause into one line and exit code 2, and Ctrl-C into one line and exit code 130.

    That is ValueError, a full disk, a file that cannot be read or written, and a reader of the output that has gone.

    `interrupted`: what the line says of Ctrl-C, such as how to go on.
    With HF_SYNTH_DEBUG=1 in the environment the traceback is shown as well.
    """
    # What TRL should call by another name is for TRL to know, not for whoever runs a recipe.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
    # Its advice to mask padding: that stands on the right of a causal model, and is seen from nowhere.
    unmasked = "passing in an `attention_mask`"
    logging.getLogger("transformers.modeling_utils").addFilter(lambda record: unmasked not in str(record.msg))
    try:
        yield
    except KeyboardInterrupt:
        print(f"\n{command}: " + "; ".join(filter(None, ["interrupted", interrupted])), file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        line: Exception | str = error
        if isinstance(error, ValueError):
            pass
        elif full := disk_full_error(error):
            line = f"{full}; make room, then give the same command again"
        elif isinstance(error, BrokenPipeError):
            line = "the reader of the output has gone; send it to a file or to cat"
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails once more at its end
        elif isinstance(error, OSError) and error.filename:
            line = f"{error.filename}: {error.strerror}"
        elif isinstance(error, ImportError) and "install" in str(error):  # ours, or an optimizer's of transformers
            line = str(error)
        elif type(error) is Exception and "Missing [UNK]" in str(error):  # of the library tokenizers
            line = "got a text with a word that the tokenizer does not have, and it has no token for unknown words; "
            line += "wanted texts of its own words, or a model whose tokenizer reads any text"
        else:
            raise
        if os.environ.get("HF_SYNTH_DEBUG") == "1":
            raise
        text = " ".join(str(line).split()) or type(line).__name__  # a file or a library may bring control characters
        shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
        print(f"{command}: error: {shown}", file=sys.stderr)
        sys.exit(2)


class MissingPackageError(ImportError):
    """A package that only some arguments need is not installed; the text is `install_hint`'s."""


def install_hint(package: str, extra: str) -> str:
    """Say how to install a package that only some arguments need, alone or as an extra of a clone of hf_synth."""
    return f"{package} is not installed; run pip install {package}, or in a clone of hf_synth pip install '.[{extra}]'"


def disk_full_error(error: BaseException | None) -> BaseException | None:
    """Return the error that says that a file could not be written in full, of `error` and its causes; or None.

    That is: a disk is full, a quota is used up, or a file has its largest size.
    """
    while error is not None:
        # Neither torch nor safetensors keeps the number of the system's error: both only describe it.
        said, kind = str(error), type(error).__name__
        torch_says = isinstance(error, RuntimeError) and any(text in said for text in _TORCH_DISK_FULL)
        rust_says = kind == "SafetensorError" and any(f"os error {number}" in said for number in _DISK_FULL)
        if torch_says or rust_says or (isinstance(error, OSError) and error.errno in _DISK_FULL):
            return error
        error = error.__cause__ or error.__context__
    return None


def raised_at(error: BaseException) -> str:
    """Return what somebody's own code raised, and where, on one line: "my_task.py: line 3: NameError: ...".

    Of a ValueError of this package its words alone.
    """
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, ValueError) and frame.filename.startswith(os.path.dirname(__file__)):
        return str(error)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{os.path.basename(frame.filename)}: line {frame.lineno}: {text}"


def nearest(name: str, known: Any) -> str:
    """Return a hint for an error message: the closest known name, and all of them."""

    def parts(word: str) -> list[Any]:  # letters and numbers in turn, so that 8 comes before 16
        return [int(run) if run.isdecimal() else run for run in re.split(r"(\d+)", word)]

    known = sorted(map(str, known), key=parts)
    close = difflib.get_close_matches(str(name), known, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"Known: {', '.join(known) or 'none'}."


def likely(name: str, known: Iterable[str], most: int = 8) -> str:
    """Return a hint for an error message where very many names are known: the most similar, the nearest first."""
    known = list(dict.fromkeys(known))
    close = difflib.get_close_matches(str(name), known, n=most, cutoff=0.4) or known[:most]
    return f"the nearest of {len(known)} known: {', '.join(close) or 'none'}"


def changes(there: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str] | None = None) -> str:
    """Return what differs, for an error message: "name: 1 there, 2 now; ..."; empty where nothing does.

    names: only these, in their order; all by default.
    """
    names = sorted(there.keys() | now.keys()) if names is None else names
    pairs, differing = [(name, there.get(name), now.get(name)) for name in names], []
    for name, before, after in pairs:
        if isinstance(before, Mapping) and isinstance(after, Mapping):  # its own names are compared after the others
            pairs += [(f"{name}.{key}", before.get(key), after.get(key)) for key in {**before, **after}]
        elif before != after:
            differing.append(f"{name}: {before!r} there, {after!r} now")
    return "; ".join(differing[:5]) + (f" and {len(differing) - 5} more" if len(differing) > 5 else "")


def whole_number(name: str, value: Any) -> int:
    """Return `value` as an int, of NumPy's kinds too; anything else, True and 1.0 included, is a ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"got {name}={value!r}, wanted a whole number")
    return int(value)


def read_json(text: str, name: str) -> Any:
    """Return what JSON holds; ValueError naming the value where it is none, too deep, or has a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError(f"{name}: got a key of {sorted(made)} twice, wanted each once")
        return made

    try:
        return json.loads(text, object_pairs_hook=once)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{name}: got {text[:200]!r}, wanted JSON such as '{{\"length\": 8}}' ({error})") from None


def json_dict(value: dict[str, Any] | str | None, name: str) -> dict[str, Any]:
    """Return a dict as given in YAML, or as JSON on the command line."""
    if isinstance(value, str):
        value = read_json(value, name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name}: got {value!r}, wanted a mapping")
    return value or {}


def option(default: Any, help: str, **limits: Any) -> Any:
    """Return a field of an arguments dataclass: its default, its help, and what `check_fields` holds it to.

    limits: `at_least`, `above`, `at_most`, `below` (numbers; None passes), `choices` (names), `json=True` (a mapping,
    or its JSON). A list, dict or set as default is copied for each instance.
    """
    metadata = {"help": help, **limits}
    if isinstance(default, list | dict | set):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_choices(name: str, values: Iterable[Any], choices: Iterable[Any], what: str = "") -> None:
    """Raise ValueError naming the nearest where one of the values is none of the choices.

    what: stands before the value in the error, such as "unknown part ".
    """
    for value in values:
        if value not in list(choices):
            raise ValueError(f"{name}: got {what}{value!r}; {nearest(value, choices)}")


def check_fields(arguments: Any, rules: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Hold each field of a dataclass to the limits that `option` gave it; JSON is read in place.

    rules: field -> limits, for a dataclass that is not ours.
    Raises ValueError naming the field, what was got, and what was wanted.
    """
    for field in dataclasses.fields(arguments):
        name, value = field.name, getattr(arguments, field.name)
        limits: Mapping[str, Any] = field.metadata if rules is None else rules.get(name, {})
        if limits.get("json"):
            setattr(arguments, name, json_dict(value, name))
        elif value is None:
            continue
        elif limits.get("mapping"):
            json_dict(value or None, name)
        elif "choices" in limits:
            several = isinstance(value, list) and "list" in str(field.type)
            check_choices(name, value if several else [value], limits["choices"])
        elif bounds := [(text, holds, limits[limit]) for limit, (holds, text) in _LIMITS.items() if limit in limits]:
            kind = numbers.Integral if field.type in (int, int | None) else numbers.Real
            number = isinstance(value, kind) and not isinstance(value, bool)
            if not number or not all(holds(value, bound) for _, holds, bound in bounds):
                wanted = " and ".join(f"{text} {bound}" for text, _, bound in bounds)
                whole = "a whole number, " if kind is numbers.Integral and isinstance(value, float) else ""
                raise ValueError(f"{name}: got {value!r}, wanted {whole}{wanted}")
