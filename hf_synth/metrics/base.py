"""What metrics of sampled completions share: the form in which `evaluate` has them."""

import abc
from typing import Any, ClassVar

import datasets
import evaluate


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
        described = (self.measure.__doc__ or "").strip()
        return evaluate.MetricInfo(
            description=described.split("\n")[0],
            citation="",
            inputs_description=described,
            features=datasets.Features({name: datasets.Value(kind) for name, kind in self.columns.items()}),
        )

    def _compute(self, **given: Any) -> dict[str, float]:
        columns = [given.pop(name) for name in self.columns]
        return self.measure(*columns, **given)
