"""One thing that was measured again and again: its raw samples, run by run, and what sums them up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

MeasureKind = Literal["turn", "call", "context"]
MAX_SAMPLES = 4000
"""Of one measure in a report; beyond, every second one, or third, … of each run is kept. The summary is of all."""
SHOWN_DIGITS = 6


@dataclass(frozen=True)
class Measure:
    """Milliseconds of one thing; less is better.

    Args:
        name: what was measured: a moment or stage of a turn, a graph, a length of context.
        kind: once a turn, once a call of a graph, or a position at some length of context.
        runs: the samples of each run, in order. Those of one run are not independent of one another.
        count: how many there were in all, before some were left out.
        mean: of all of them, as the following are.
        p50: the median.
        p90: 90 % are no more than this.
        p99: 99 % are no more than this.
        max: the largest.
    """

    name: str
    kind: MeasureKind
    runs: tuple[tuple[float, ...], ...]
    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @property
    def run_means(self) -> list[float]:
        """One value a run."""
        return [sum(run) / len(run) for run in self.runs if run]


def measure(name: str, kind: MeasureKind, runs: Sequence[Sequence[float]]) -> Measure | None:
    """Sum up the samples of all runs; None if there are none."""
    values = np.array([value for run in runs for value in run])
    if not values.size:
        return None
    p50, p90, p99 = np.quantile(values, [0.5, 0.9, 0.99])
    keep_each = -(-len(values) // MAX_SAMPLES)
    kept = tuple(tuple(round(float(value), SHOWN_DIGITS) for value in run[::keep_each]) for run in runs)
    return Measure(
        name, kind, kept, len(values), float(values.mean()), float(p50), float(p90), float(p99), float(values.max())
    )
