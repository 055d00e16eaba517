"""One scale for a tensor of activations: how much of its range is worth a step, and what is better clipped."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sottovoce.calibration.quantization.rounding import INT8_LIMIT
from sottovoce.calibration.ranges.statistics import BINS, TensorStatistics

Floats = npt.NDArray[np.float32]

COARSE_STEPS = 2
USUAL = 0.999
"""The share of a tensor's values that are none of its few largest."""
MASSIVE = 8.0
"""Times as large as all but a thousandth of the values: no one step serves both. (What meets the decoders' products
in the miniature ends at 5.5; in SmolLM2-135M, five of its 120 tensors are between 8 and 117, and in INT8 these alone
double the divergence of its next tokens.)"""
CLIP_SHARES = np.geomspace(1.0, 0.1, 24)
"""Ends of the range that are tried, as shares of the largest value seen."""


def activation_scale(statistics: TensorStatistics, smoothing: Floats | None = None) -> float:
    """The step of INT8 with the least squared error over what was seen.

    Args:
        statistics: of the tensor.
        smoothing: (channels,) what its channels are divided by before they are rounded; None: nothing.

    Returns:
        The scale; 1 for a tensor that was always zero.
    """
    if smoothing is None:
        values = (np.arange(BINS) + 0.5) * statistics.limit / BINS
        weights, peak = statistics.histogram, statistics.peak
    else:
        values = np.abs(statistics.rows / smoothing).reshape(-1).astype(np.float64)
        weights = np.ones(len(values), np.int64)
        peak = float((statistics.channel_peaks / smoothing).max(initial=0.0))
    if peak == 0:
        return 1.0
    ends = peak * CLIP_SHARES
    return float(ends[np.argmin([_squared_error(values, weights, end / INT8_LIMIT) for end in ends])] / INT8_LIMIT)


def loses_most(statistics: TensorStatistics, scale: float) -> bool:
    """Whether more than half of a tensor's values lie within two steps of zero: a few are far larger than the rest.

    (Of attention's factors in a trained audio encoder, the median is 8 to 18 steps, and of keys with positions half a
    step.)

    The squared error does not show it where the few are the same everywhere and cancel out later, as keys with their
    positions do in a softmax. A softmax's own results, which have no sign, are small for the most part and may be.
    """
    return statistics.lowest < 0 < statistics.highest and statistics.percentile(0.5) < COARSE_STEPS * scale


def has_massive_values(statistics: TensorStatistics, smoothing: Floats | None = None) -> bool:
    """Whether a few values are so large that a step which holds them loses the others, after smoothing.

    Trained decoders have them at a few fixed places (Sun et al. 2024, "Massive Activations in Large Language Models"),
    where they must not be clipped either: attention rests on them.
    """
    if smoothing is None or not len(statistics.rows):
        return statistics.peak > MASSIVE * statistics.percentile(USUAL)
    peak = float((statistics.channel_peaks / smoothing).max(initial=0.0))
    return peak > MASSIVE * float(np.quantile(np.abs(statistics.rows / smoothing), USUAL))


def _squared_error(values: npt.NDArray[np.float64], weights: npt.NDArray[np.int64], scale: float) -> float:
    rounded = np.minimum(np.rint(values / scale), INT8_LIMIT) * scale
    return float(np.square(rounded - values) @ weights)
