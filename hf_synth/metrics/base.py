"""What metrics share: how they say what they take, and the form of those of sampled completions."""

import abc
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import datasets
import evaluate


def inputs_of(function: Callable[..., Any], **columns: str) -> str:
    """What `compute` takes: the function's argument that each column is, and the function's own words for those."""
    taken = ", ".join(f"{column} = {argument}" for column, argument in columns.items())
    return f"compute takes {taken}, of the function {function.__name__}:\n\n{inspect.getdoc(function)}"


class SampleMetric(evaluate.Metric, abc.ABC):
    """A function of sampled completions as a metric of `evaluate`; a subclass names the function.

    columns: what the function takes, one value a completion, in its order: the name in `compute(...)` and the type.
    What else the function takes is passed to `compute` as it is.
    """

    columns: ClassVar[dict[str, str]] = {"predictions": "string", "references": "string"}

    @staticmethod
    @abc.abstractmethod
    def measure(*columns: Any, **options: Any) -> dict[str, float]:
        """The function."""

    def _info(self) -> evaluate.MetricInfo:
        arguments = dict(zip(self.columns, inspect.signature(self.measure).parameters, strict=False))
        return evaluate.MetricInfo(
            description=(inspect.getdoc(self.measure) or "").split("\n")[0],
            citation="",
            inputs_description=inputs_of(self.measure, **arguments),
            features=datasets.Features({name: datasets.Value(kind) for name, kind in self.columns.items()}),
        )

    def _compute(self, **given: Any) -> dict[str, float]:
        columns = [given.pop(name) for name in self.columns]
        return self.measure(*columns, **given)
