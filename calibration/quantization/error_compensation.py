"""Rounding that makes up for itself: each weight's error is spread over the weights that are still to be rounded.

The objective is the layer's output on real activations, not its weights (GPTQ, Frantar et al. 2022,
https://arxiv.org/abs/2210.17323). Second moments come from a sample and are shrunk towards their diagonal (Ledoit &
Wolf 2004, "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices").
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sottovoce.calibration.quantization.rounding import (
    COLUMNS_AT_A_TIME,
    RoundedWeights,
    block_scales,
    round_blocks,
    round_to_int4,
    whole_blocks,
)

Floats = npt.NDArray[np.float32]

DAMPING = 0.01
"""Share of the mean diagonal that is added to it, so that the inverse exists and rare channels are not overrated."""
ROWS_TRUST = 4.0
"""Correlations of n rows over d inputs count for 4n / (4n + d): the fewer rows, the more of them is chance.

(SmolLM2-135M in blocks of 32, with 455 rows for 576 inputs and 170 for 1536: the divergence of the next token falls
from 0.151 nats, with full trust where there were half as many rows as inputs and none below, to 0.129.)"""
FEWEST_ROWS_A_CHANNEL = 0.05
"""With fewer sampled rows than this for each input channel, only squares count: nothing would be gained."""


def round_compensated(
    weights: Floats, block_size: int, rows: Floats, mean_squares: Floats, scale_type: npt.DTypeLike = np.float32
) -> tuple[RoundedWeights, str]:
    """4 bits with a scale for each block of inputs, errors made up for by later inputs.

    Args:
        weights: (inputs, outputs).
        block_size: inputs that share a scale, or fewer, see `whole_blocks`.
        rows: (n, inputs) activations that met these weights.
        mean_squares: (inputs,) mean square of each input over all data.
        scale_type: what scales are stored in.

    Returns:
        The integers and scales, and how they were found: "gptq", or "nearest" where there are too few rows.
    """
    if len(rows) < FEWEST_ROWS_A_CHANNEL * weights.shape[0]:
        return round_blocks(weights, block_size, mean_squares, scale_type), "nearest"
    block_size = whole_blocks(weights.shape[0], block_size)
    upper = _inverse_factor(rows, mean_squares)
    integers = np.empty(weights.shape, np.int8)
    scales = np.empty((-(-weights.shape[0] // block_size), weights.shape[1]), scale_type)
    for start in range(0, weights.shape[1], COLUMNS_AT_A_TIME):
        piece = slice(start, start + COLUMNS_AT_A_TIME)
        found = _round_piece(np.array(weights[:, piece], np.float32), block_size, upper, mean_squares, scale_type)
        integers[:, piece], scales[:, piece] = found
    return RoundedWeights(integers, scales, block_size), "gptq"


def _inverse_factor(rows: Floats, mean_squares: Floats) -> Floats:
    """Upper Cholesky factor of the inverse of the inputs' second moments, damped; its rows say where errors go."""
    wide = rows.astype(np.float64)
    moments = wide.T @ wide / len(wide)
    # The squares over all data are better known than the sample's.
    squares = np.maximum(np.diag(moments), mean_squares)
    moments *= ROWS_TRUST * len(wide) / (ROWS_TRUST * len(wide) + wide.shape[1])
    np.fill_diagonal(moments, squares)
    diagonal = np.diag(moments).copy()
    dead = diagonal == 0
    moments[dead, dead] = 1.0
    moments[np.diag_indices_from(moments)] += DAMPING * max(float(diagonal.mean()), float(np.finfo(np.float32).tiny))
    inverse = np.linalg.inv(moments)
    factor: Floats = np.linalg.cholesky((inverse + inverse.T) / 2).T.astype(np.float32)
    return factor


def _round_piece(
    weights: Floats, block_size: int, upper: Floats, mean_squares: Floats, scale_type: npt.DTypeLike
) -> tuple[npt.NDArray[np.int8], npt.NDArray[Any]]:
    """Round (inputs, some outputs) block by block; `weights` is worked on in place."""
    inputs, outputs = weights.shape
    integers = np.empty((inputs, outputs), np.int8)
    scales = np.empty((-(-inputs // block_size), outputs), scale_type)
    for block, start in enumerate(range(0, inputs, block_size)):
        end = min(start + block_size, inputs)
        scales[block] = block_scales(weights[start:end], mean_squares[start:end, None], scale_type)
        scale = scales[block].astype(np.float32)
        errors = np.empty((end - start, outputs), np.float32)
        for row in range(start, end):
            integers[row] = round_to_int4(weights[row], scale)
            errors[row - start] = (weights[row] - integers[row] * scale) / upper[row, row]
            weights[row + 1 : end] -= upper[row, row + 1 : end, None] * errors[row - start]
        weights[end:] -= upper[start:end, end:].T @ errors
    return integers, scales
