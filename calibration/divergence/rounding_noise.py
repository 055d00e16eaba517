"""What rounding to integers does to values: how much of the error is clipped range, and how much is the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Wide = npt.NDArray[np.float64]

MISFIT = 16.0
"""Rounded values whose squared error is so many times what their step explains were not rounded with that step. Error
compensation (GPTQ) moves weights by more than half a step, too, but by no such factor."""


@dataclass(frozen=True)
class RoundingNoise:
    """Values, their step, and the errors of rounding them with it (all squares are sums).

    Args:
        count: values.
        clipped: how many lie beyond the largest integer.
        largest: largest absolute value.
        holds: the largest value that fits in: step × largest integer (the largest of several).
        step: root mean square of the steps.
        rms: root mean square of the values.
        finest: the step that their largest value would need, by the same measure.
        clip_noise: squared error of what lies beyond.
        step_noise: squared error of rounding what does not.
        real_noise: squared error of the rounded values as they are in the graph.
    """

    count: int
    clipped: int
    largest: float
    holds: float
    step: float
    rms: float
    finest: float
    clip_noise: float
    step_noise: float
    real_noise: float

    @property
    def is_clipping(self) -> bool:
        """Whether most of the error comes from values beyond the range."""
        return self.clip_noise >= self.step_noise

    @property
    def fits(self) -> bool:
        """Whether the graph's rounded values are what rounding with this step gives."""
        floor = 1e-12 * self.count * max(self.rms, self.step) ** 2
        return self.real_noise <= MISFIT * (self.clip_noise + self.step_noise) + floor

    def as_json(self) -> dict[str, Any]:
        """What a finding says in numbers."""
        return {
            "clipped_share": self.clipped / max(self.count, 1),
            "largest": self.largest,
            "holds": self.holds,
            "step": self.step,
            "rms": self.rms,
            "step_needed": self.finest,
        }


def rounding_noise(values: Array, steps: Array, limits: tuple[int, int], rounded: Array) -> RoundingNoise:
    """Round `values` again and see what becomes of them.

    Args:
        values: before rounding.
        steps: to be broadcast to them.
        limits: smallest and largest integer: (-127, 127) for int8, (-8, 7) for 4 bits.
        rounded: what the graph has in their place, dequantized.
    """
    wide, step = values.astype(np.float64), np.broadcast_to(steps.astype(np.float64), values.shape)
    lowest, highest = limits
    in_steps = wide / step
    inside = np.clip(in_steps, lowest, highest)
    beyond = (in_steps > highest + 0.5) | (in_steps < lowest - 0.5)
    return RoundingNoise(
        count=wide.size,
        clipped=int(np.count_nonzero(beyond)),
        largest=float(np.abs(wide).max(initial=0.0)),
        holds=float(step.max(initial=0.0)) * highest,
        step=_rms(step),
        rms=_rms(wide),
        finest=_finest(wide, step, highest),
        clip_noise=float(np.square((in_steps - inside) * step)[beyond].sum()),
        step_noise=float(np.square((inside - np.rint(inside)) * step).sum()),
        real_noise=float(np.square(rounded.astype(np.float64) - wide).sum()),
    )


def _finest(values: Wide, steps: Wide, highest: int) -> float:
    """Root mean square of the steps at which nothing would be clipped, for values that share one as they do now."""
    groups = np.unique(steps, return_inverse=True)[1].reshape(-1)
    largest = np.zeros(int(groups.max(initial=-1)) + 1)
    np.maximum.at(largest, groups, np.abs(values).reshape(-1))
    return _rms(largest[groups] / highest)


def _rms(values: Wide) -> float:
    return math.sqrt(float(np.square(values).mean())) if values.size else 0.0
