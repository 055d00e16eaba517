"""Statistics of one tensor over any number of calls, in memory that does not grow with them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.errors import SottovoceError

Floats = npt.NDArray[np.float32]

BINS = 2048
SAMPLE_BYTES = 1 << 20
"""Rows that are kept of a tensor take this much together…"""
FEWEST_ROWS = 128
"""…or are this many, where rows are long."""
COUNTED_AT_ONCE = 1 << 13
"""Of a larger array, so many elements (evenly spread) go into the histogram; its extremes are always all counted."""


class NotFiniteError(SottovoceError):
    """An activation that is NaN or infinite."""


@dataclass(frozen=True)
class ObservedTensor:
    """Which tensor of a graph is watched, and how.

    Args:
        stage: the graph.
        name: of the value in it.
        channel_axes: the axes that have statistics of their own for each index, counted from the end; (-1,): the last;
            none: the tensor as a whole.
        keeps_rows: whether rows (all of the channels at one place) are sampled, for error compensation.
    """

    stage: str
    name: str
    channel_axes: tuple[int, ...] = (-1,)
    keeps_rows: bool = False


@dataclass
class TensorStatistics:
    """What was seen of one tensor.

    Args:
        lowest: smallest value of all.
        highest: largest value of all.
        count: values seen.
        histogram: (BINS,) how many absolute values fell into each of equal steps from 0 to `limit`.
        limit: end of the histogram, a power of two.
        channel_peaks: (channels,) largest absolute value of each channel.
        channel_squares: (channels,) sum of squares of each channel, over `channel_count` values each.
        rows: (n, channels) a fair sample of the rows seen (Vitter 1985), n at most what `SAMPLE_BYTES` holds.
    """

    lowest: float
    highest: float
    count: int
    histogram: npt.NDArray[np.int64]
    limit: float
    channel_peaks: Floats
    channel_squares: npt.NDArray[np.float64]
    channel_count: int
    rows: Floats

    @property
    def peak(self) -> float:
        """Largest absolute value."""
        return max(abs(self.lowest), abs(self.highest))

    @property
    def mean_squares(self) -> Floats:
        """(channels,) mean square of each channel."""
        means: Floats = (self.channel_squares / max(self.channel_count, 1)).astype(np.float32)
        return means

    def percentile(self, share: float) -> float:
        """The absolute value below which `share` (0 to 1) of all values lie, to the width of a bin."""
        total = np.cumsum(self.histogram)
        place = int(np.searchsorted(total, share * total[-1]))
        return min(self.limit * (place + 1) / BINS, self.peak)


class StatisticsCollector:
    """Takes arrays of one tensor, call by call.

    Args:
        tensor: what is watched; the sample of rows depends on its name and on what comes, nothing else.
    """

    def __init__(self, tensor: ObservedTensor) -> None:
        self.tensor = tensor
        self._dice = np.random.default_rng(zlib.crc32(f"{tensor.stage}/{tensor.name}".encode()))
        self._statistics: TensorStatistics | None = None
        self._rows_seen = 0

    @property
    def statistics(self) -> TensorStatistics | None:
        """What was seen so far; None before the first array."""
        found = self._statistics
        if found is not None and self.tensor.keeps_rows:
            found.rows = found.rows[: self._rows_seen]
        return found

    def append(self, values: npt.NDArray[Any]) -> None:
        """Count one call's array; empty ones are nothing.

        Raises:
            NotFiniteError: names stage and tensor.
        """
        if values.size == 0:
            return
        values = np.asarray(values, dtype=np.float32)
        lowest, highest = float(values.min()), float(values.max())
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            bad = int(np.count_nonzero(~np.isfinite(values)))
            raise NotFiniteError(
                f"stage {self.tensor.stage!r}: the tensor {self.tensor.name!r} has {bad} of {values.size} values that "
                "are NaN or infinite",
                fix="find the input that causes it with `run --dump-tensors`; if the checkpoint is at fault, export "
                "that stage in fp32",
            )
        rows = self._rows(values)
        found = self._statistics or self._begin(rows.shape[1])
        self._statistics = found
        found.lowest, found.highest = min(found.lowest, lowest), max(found.highest, highest)
        found.count += values.size
        _count(found, values, max(abs(lowest), abs(highest)))
        found.channel_peaks = np.maximum(found.channel_peaks, np.maximum(rows.max(axis=0), -rows.min(axis=0)))
        found.channel_squares += np.einsum("rc,rc->c", rows, rows, dtype=np.float32)
        found.channel_count += len(rows)
        if self.tensor.keeps_rows:
            self._sample(found, rows)

    def _rows(self, values: Floats) -> Floats:
        """(places, channels): the channels' axes last, several of them as one."""
        axes = self.tensor.channel_axes
        if not axes:
            return values.reshape(-1, 1)
        moved = np.moveaxis(values, axes, range(-len(axes), 0))
        return moved.reshape(-1, int(np.prod(moved.shape[-len(axes) :])))

    def _begin(self, channels: int) -> TensorStatistics:
        capacity = max(FEWEST_ROWS, SAMPLE_BYTES // (4 * channels)) if self.tensor.keeps_rows else 0
        return TensorStatistics(
            np.inf, -np.inf, 0, np.zeros(BINS, np.int64), 0.0, np.zeros(channels, np.float32),
            np.zeros(channels, np.float64), 0, np.zeros((capacity, channels), np.float32),
        )  # fmt: skip

    def _sample(self, found: TensorStatistics, rows: Floats) -> None:
        """Each row seen so far has the same chance to be among those kept."""
        free = min(len(rows), max(0, len(found.rows) - self._rows_seen))
        found.rows[self._rows_seen : self._rows_seen + free] = rows[:free]
        late = rows[free:]
        if len(late):
            seen = self._rows_seen + free + 1 + np.arange(len(late))
            places = self._dice.integers(0, seen)
            kept = places < len(found.rows)
            found.rows[places[kept]] = late[kept]
        self._rows_seen += len(rows)


def _count(found: TensorStatistics, values: Floats, peak: float) -> None:
    while peak > found.limit:
        found.limit = _grown(found, peak)
    flat = values.reshape(-1)
    stride = max(1, flat.size // COUNTED_AT_ONCE)
    counted = np.abs(flat[::stride])
    places = np.minimum((counted * np.float32(BINS / (found.limit or 1.0))).astype(np.int64), BINS - 1)
    found.histogram += stride * np.bincount(places, minlength=BINS)


def _grown(found: TensorStatistics, peak: float) -> float:
    """The histogram's next end: two bins become one until `peak` fits."""
    if found.limit == 0.0:
        return float(2.0 ** np.ceil(np.log2(peak)))
    found.histogram = np.concatenate([found.histogram.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
    return 2.0 * found.limit
