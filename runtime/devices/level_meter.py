"""How loud a stream is, block by block."""

from __future__ import annotations

import numpy as np

from sottovoce.runtime.devices.interface import Levels, Samples

CLIPPED_AT = 0.999
"""16-bit devices reach 32767/32768."""


class LevelMeter:
    """Levels of the newest block. The callback writes, anybody reads: `levels` is replaced as a whole."""

    def __init__(self) -> None:
        self.levels = Levels()

    def measure(self, samples: Samples) -> None:
        """Take a block (n,)."""
        if not len(samples):
            return
        loudness = np.abs(samples)
        self.levels = Levels(
            rms=float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))),
            peak=float(loudness.max()),
            clipped=self.levels.clipped + int(np.count_nonzero(loudness >= CLIPPED_AT)),
        )
