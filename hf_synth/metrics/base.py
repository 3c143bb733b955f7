"""A function as a metric of `evaluate`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import datasets
import evaluate

_TEXTS = {"predictions": "string", "references": "string"}


def as_metric(
    function: Callable[..., dict[str, float]],
    columns: Mapping[str, Any] = _TEXTS,
    compute: Callable[..., dict[str, float]] | None = None,
) -> type[evaluate.Metric]:
    """Make the class that `evaluate.load` finds in a metric's file; its name is the function's.

    columns: one for each of the function's first arguments, in their order: its name in `compute(...)` -> its type,
    or [its type] where each row is a list, [[its type]] where it is a list of lists. Other arguments are options:
    `compute` passes them on. compute: what is given the columns and options in the function's place.
    """

    def feature(kind: Any) -> Any:
        return datasets.Sequence(feature(*kind)) if isinstance(kind, list) else datasets.Value(kind)

    text = inspect.getdoc(function) or ""
    pairs = zip(columns, inspect.signature(function).parameters, strict=False)
    taken = ", ".join(f"{column} = {argument}" for column, argument in pairs)
    features = {name: feature(kind) for name, kind in columns.items()}

    def info(self: evaluate.Metric) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=text.split("\n")[0],
            citation="",
            inputs_description=f"compute takes {taken}, of the function {function.__name__}:\n\n{text}",
            features=datasets.Features(features),
        )

    def compute_columns(self: evaluate.Metric, **inputs: Any) -> dict[str, float]:
        return (compute or function)(*[inputs.pop(name) for name in columns], **inputs)

    name = function.__name__.title().replace("_", "")
    members = {"__module__": function.__module__, "_info": info, "_compute": compute_columns}
    return type(name, (evaluate.Metric,), members)
