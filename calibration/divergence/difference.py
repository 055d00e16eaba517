"""How far values are from what they should be: relative error, cosine and signal-to-noise ratio, in flat memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MASK = 1e30
"""Values beyond this are no data but masks: minus infinity, or the end of float32's range."""
MASK_IN_HALF = 1e4
"""What a mask must at least be in the other graph: float16 ends at 65504."""
FLOOR = 1e-6
"""Values whose root mean square is less than this are measured against this."""


@dataclass
class Difference:
    """One value under both graphs, over any number of calls.

    Args:
        signal: sum of the reference's squares.
        noise: sum of the differences' squares.
        product: sum of the products of both.
        other: sum of the other's squares.
        count: elements seen.
        broken: elements that are no numbers, or lack a mask, or belong to an array of another shape.
    """

    signal: float = 0.0
    noise: float = 0.0
    product: float = 0.0
    other: float = 0.0
    count: int = 0
    broken: int = 0

    @classmethod
    def between(cls, reference: Array, found: Array) -> Difference:
        """Of two arrays of the same shape; another shape, or a NaN, is infinitely far."""
        if reference.shape != found.shape:
            return cls(count=reference.size, broken=max(reference.size, 1))
        wide, other = (values.astype(np.float64).reshape(-1) for values in (reference, found))
        data = np.abs(wide) < MASK
        masked = np.sign(wide[~data]) * other[~data] >= MASK_IN_HALF
        broken = int(np.count_nonzero(~masked)) + int(np.count_nonzero(~np.isfinite(other[data])))
        wide, other = wide[data], other[data]
        if broken:
            return cls(count=reference.size, broken=broken)
        return cls(float(wide @ wide), float(np.square(wide - other).sum()), float(wide @ other),
                   float(other @ other), wide.size)  # fmt: skip

    def append(self, more: Difference) -> None:
        """Count another call."""
        self.signal += more.signal
        self.noise += more.noise
        self.product += more.product
        self.other += more.other
        self.count += more.count
        self.broken += more.broken

    @property
    def error(self) -> float:
        """Root mean square of the difference, as a share of the reference's; infinite where something is broken."""
        if self.broken:
            return math.inf
        return math.sqrt(self.noise) / max(math.sqrt(self.signal), FLOOR * math.sqrt(max(self.count, 1)))

    @property
    def cosine(self) -> float:
        """Between both, flattened: 1 where they point the same way."""
        if self.broken:
            return 0.0
        norms = math.sqrt(self.signal * self.other)
        return self.product / norms if norms else float(self.signal == self.other)

    @property
    def signal_to_noise_db(self) -> float:
        """20 dB: the difference is a tenth of the reference; infinite where they are equal."""
        return math.inf if self.error == 0 else -20 * math.log10(self.error)


def relative_error(reference: Array, found: Array) -> float:
    """`Difference.error` of two arrays."""
    return Difference.between(reference, found).error
