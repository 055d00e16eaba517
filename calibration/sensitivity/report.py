"""What a search for a budget found, as it lies in the bundle's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.records import write_record

SensitivityMeasure = Literal["kl", "relative_error"]


@dataclass(frozen=True)
class LayerSensitivity:
    """What it costs when this layer alone is as planned.

    Args:
        measure: `kl`: nats between the next-token distributions; `relative_error`: squared error of the stage's output
            over its square, for stages that no text goes through.
    """

    stage: StageName
    layer: str
    measure: SensitivityMeasure
    value: float


@dataclass(frozen=True)
class FrontierPoint:
    """A bundle that was tried.

    Args:
        kept: so many of the most sensitive layers were in floating point.
        bytes: of the bundle.
        cost: in the budget's measure.
    """

    kept: int
    bytes: int
    cost: float


@dataclass(frozen=True)
class SearchReport:
    """The whole search.

    Args:
        budget: as it was asked for.
        unit: what costs are in.
        limit: the highest cost that holds.
        layers: every planned layer, the most sensitive of each measure first.
        points: what was tried, by the number of layers kept.
        kept: the number that was chosen.
        ranked_on: conversations that the layers were measured on.
        accepted_on: conversations that the budget holds on.
    """

    budget: str
    unit: str
    limit: float
    layers: tuple[LayerSensitivity, ...]
    points: tuple[FrontierPoint, ...]
    kept: int
    ranked_on: int
    accepted_on: int

    @property
    def chosen(self) -> FrontierPoint:
        """The point of the bundle that was written."""
        return next(point for point in self.points if point.kept == self.kept)

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        record: dict[str, Any] = write_record(self)
        return record


def by_sensitivity(layers: tuple[LayerSensitivity, ...], measure: SensitivityMeasure) -> list[LayerSensitivity]:
    """Those of one measure, the most sensitive first; of equal ones, the one that is computed first."""
    return sorted((layer for layer in layers if layer.measure == measure), key=lambda layer: -layer.value)
