"""What the microphone gave, kept as long as turn taking may ask for it; small gaps are silence, large ones are told."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]


class CapturedSound:
    """A window of the capture stream, at 16 kHz: append at its end, take ranges, forget its beginning."""

    def __init__(self) -> None:
        self._parts: deque[Samples] = deque()
        self.start = 0
        """Position of the first sample that is kept."""
        self.end = 0
        """Position after the last."""

    def append(self, samples: Samples) -> None:
        """More samples (n,), right behind the last."""
        if len(samples):
            self._parts.append(samples)
            self.end += len(samples)

    def skip_to(self, position: int) -> None:
        """Samples up to `position` were lost: begin anew there."""
        self._parts.clear()
        self.start = self.end = position

    def between(self, start: int, end: int) -> Samples:
        """The samples [start, end), as far as they are kept: what was lost or forgotten is silence."""
        taken = np.zeros(end - start, dtype=np.float32)
        at = self.start
        for part in self._parts:
            first, last = max(start, at), min(end, at + len(part))
            if first < last:
                taken[first - start : last - start] = part[first - at : last - at]
            at += len(part)
        return taken

    def forget_before(self, position: int) -> None:
        """Nothing before `position` will be asked for."""
        while self._parts and self.start + len(self._parts[0]) <= position:
            self.start += len(self._parts.popleft())
