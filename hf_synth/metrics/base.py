"""The base class of all metrics: it makes an `evaluate.Metric` of a function."""

import abc
import inspect
from typing import Any, ClassVar

import datasets
import evaluate


class FunctionMetric(evaluate.Metric, abc.ABC):
    """A function as a metric of `evaluate`. A subclass names the function and its columns.

    columns: one for each of the function's first arguments, in their order: its name in `compute(...)` -> its type,
    or [its type] where each row is a list. Other arguments are options: `compute` passes them on.
    """

    columns: ClassVar[dict[str, Any]] = {"predictions": "string", "references": "string"}

    @staticmethod
    @abc.abstractmethod
    def function(*columns: Any, **options: Any) -> dict[str, float]:
        """Compute the metric."""

    def _info(self) -> evaluate.MetricInfo:
        text = inspect.getdoc(self.function) or ""
        pairs = zip(self.columns, inspect.signature(self.function).parameters, strict=False)
        taken = ", ".join(f"{column} = {argument}" for column, argument in pairs)
        return evaluate.MetricInfo(
            description=text.split("\n")[0],
            citation="",
            inputs_description=f"compute takes {taken}, of the function {self.function.__name__}:\n\n{text}",
            features=datasets.Features(
                {
                    name: datasets.Sequence(datasets.Value(*kind)) if isinstance(kind, list) else datasets.Value(kind)
                    for name, kind in self.columns.items()
                }
            ),
        )

    def _compute(self, *args: Any, **inputs: Any) -> dict[str, float]:
        columns = [inputs.pop(name) for name in self.columns]
        return self.function(*columns, **inputs)
