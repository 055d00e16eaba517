"""An interval for how much longer something takes than before, from the raw samples of both reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
AT_A_TIME = 2_000
"""Resamples in memory at once."""
LEAST_RUNS = 5
"""With fewer on either side, chance alone separates them too often."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """After against before: 0.1 is 10 % longer.

    Args:
        change: of the medians.
        low: lower end of the interval.
        high: upper end.
    """

    change: float
    low: float
    high: float

    @property
    def is_shown(self) -> bool:
        """Whether there is a difference: no change at all is outside of the interval."""
        return self.low > 0 or self.high < 0


def bootstrap(before: Sequence[float], after: Sequence[float], confidence: float, seed: int = 0) -> Interval:
    """The change of the median, with a percentile interval over resampled runs (Efron, 1979).

    Runs are drawn, and not calls: the calls of one run are not independent of one another, and taking them as if they
    were makes intervals far too narrow.

    Args:
        before: one value a run, all above 0.
        after: the same of the other report.
        confidence: of the interval, 0.95 say.
        seed: of the drawing; the same reports give the same interval.
    """
    random = np.random.default_rng(seed)
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    ratios = _medians(second, random) / _medians(first, random) - 1
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Interval(float(np.median(second) / np.median(first) - 1), float(low), float(high))


def _medians(values: Values, random: np.random.Generator) -> Values:
    parts = [
        np.median(values[random.integers(0, len(values), (AT_A_TIME, len(values)))], axis=1)
        for _ in range(RESAMPLES // AT_A_TIME)
    ]
    return np.concatenate(parts)
