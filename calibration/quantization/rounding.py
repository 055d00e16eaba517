"""Symmetric rounding of a layer's weights to 8 or 4 bits: (inputs, outputs) floats → integers and scales.

`weights ≈ integers × scales`, with a scale for each output channel (8 bits) or for each block of inputs of each output
channel (4 bits). There is no zero point: engines multiply fastest without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
INT8_LIMIT = 127
"""-128 is left out, so that the range is symmetric."""
INT4_LOWEST, INT4_HIGHEST = -8, 7
CLIP_SHARES = np.linspace(1.0, 0.6, 17, dtype=np.float32)
"""Scales that are tried for 4 bits, as shares of the one at which nothing is clipped. 7/8, where a block whose largest
weight is negative uses -8 for it, lies between two of them."""
SMALLEST_BLOCK = 16
"""With fewer weights to a scale, scales cost as much as a wider type."""
COLUMNS_AT_A_TIME = 2048
"""The largest matrices (a language model's head) are rounded in pieces: the search needs several copies."""


@dataclass(frozen=True)
class RoundedWeights:
    """Integers (inputs, outputs) as int8, and scales (blocks of inputs, outputs)."""

    integers: npt.NDArray[np.int8]
    scales: npt.NDArray[np.floating[Any]]
    block_size: int

    def floats(self) -> Floats:
        """The weights that the integers stand for."""
        inputs = self.integers.shape[0]
        scales = np.repeat(self.scales.astype(np.float32), self.block_size, axis=0)[:inputs]
        return self.integers.astype(np.float32) * scales


def round_channels(weights: Floats, scale_type: npt.DTypeLike = np.float32) -> RoundedWeights:
    """8 bits, one scale for each output channel: (inputs, outputs) → integers in -127…127, scales (1, outputs)."""
    largest = np.abs(weights).max(axis=0, keepdims=True, initial=0.0)
    scales = _usable(largest / INT8_LIMIT, scale_type)
    integers = np.clip(np.rint(weights / scales.astype(np.float32)), -INT8_LIMIT, INT8_LIMIT).astype(np.int8)
    return RoundedWeights(integers, scales, max(weights.shape[0], 1))


def whole_blocks(inputs: int, block_size: int) -> int:
    """The block size, or the largest half, quarter… of it (16 at least) that `inputs` are a multiple of.

    TensorRT refuses a last block that is shorter (912 inputs in blocks of 32); where none fits, it stays shorter.
    """
    size = block_size
    while inputs % size and size // 2 >= SMALLEST_BLOCK:
        size //= 2
    return block_size if inputs % size else size


def round_blocks(
    weights: Floats, block_size: int, importance: Floats | None = None, scale_type: npt.DTypeLike = np.float32
) -> RoundedWeights:
    """4 bits, one scale for each block of inputs of each output channel, the one with the least squared error.

    Args:
        weights: (inputs, outputs).
        block_size: inputs that share a scale, or fewer, see `whole_blocks`.
        importance: (inputs,) how much each input's error weighs (its mean square); None: all the same.
        scale_type: what scales are stored in.

    Returns:
        Integers in -8…7 and scales (blocks, outputs).
    """
    inputs, outputs = weights.shape
    block_size = whole_blocks(inputs, block_size)
    blocks = -(-inputs // block_size)
    integers = np.empty((inputs, outputs), np.int8)
    scales = np.empty((blocks, outputs), scale_type)
    for start in range(0, outputs, COLUMNS_AT_A_TIME):
        piece = slice(start, start + COLUMNS_AT_A_TIME)
        for block in range(blocks):
            rows = slice(block * block_size, (block + 1) * block_size)
            values = np.ascontiguousarray(weights[rows, piece], dtype=np.float32)
            weighing = None if importance is None else importance[rows, None]
            scales[block, piece] = block_scales(values, weighing, scale_type)
            integers[rows, piece] = round_to_int4(values, scales[block, piece].astype(np.float32))
    return RoundedWeights(integers, scales, block_size)


def block_scales(values: Floats, weighing: Floats | None, scale_type: npt.DTypeLike) -> npt.NDArray[Any]:
    """(block, outputs) → scales (outputs,): of the clipped ranges that are tried, the one with the least error."""
    widest = np.abs(values).max(axis=0) / INT4_HIGHEST
    best = _usable(widest, scale_type)
    least = np.full(best.shape, np.inf, np.float32)
    for share in CLIP_SHARES:
        tried = _usable(widest * share, scale_type)
        scale = tried.astype(np.float32)
        error = np.square(round_to_int4(values, scale) * scale - values)
        total = (error if weighing is None else error * weighing).sum(axis=0)
        better = total < least
        least = np.where(better, total, least)
        best = np.where(better, tried, best)
    return best


def round_to_int4(values: Floats, scales: Floats) -> npt.NDArray[np.int8]:
    """The nearest of -8…7 steps of `scales`."""
    integers: npt.NDArray[np.int8] = np.clip(np.rint(values / scales), INT4_LOWEST, INT4_HIGHEST).astype(np.int8)
    return integers


def _usable(scales: npt.NDArray[Any], scale_type: npt.DTypeLike) -> npt.NDArray[Any]:
    """Scales in their type; a dead channel, or one too small for the type, gets a 1: its integers are all 0."""
    stored = scales.astype(scale_type)
    return np.where(stored >= np.finfo(stored.dtype).tiny, stored, np.ones((), stored.dtype))
