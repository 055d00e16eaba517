"""A queue of samples between two threads that never wait for each other."""

from __future__ import annotations

import numpy as np

from sottovoce.runtime.devices.interface import Samples


class RingBuffer:
    """One thread writes, one reads, and neither takes a lock: an audio callback must not wait for anybody.

    Positions count samples since the start and never wrap. Only the writer moves `written`, and only after the samples
    are in place; only the reader moves `read_to`, and only after it copied them out: so what lies between the two is
    always whole. (An attribute of an int is replaced at once, in every Python.)

    Args:
        capacity: samples that fit.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity {capacity}, expected at least 1")
        self.capacity = capacity
        self.written = 0
        self.read_to = 0
        self._storage = np.zeros(capacity, dtype=np.float32)

    @property
    def available(self) -> int:
        """Samples that can be read."""
        return self.written - self.read_to

    @property
    def room(self) -> int:
        """Samples that can be written."""
        return self.capacity - (self.written - self.read_to)

    def write(self, samples: Samples) -> int:
        """Append as much of samples (n,) as there is room for; how many that were. For the writer alone."""
        count = min(len(samples), self.room)
        at = self.written % self.capacity
        first = min(count, self.capacity - at)
        self._storage[at : at + first] = samples[:first]
        self._storage[: count - first] = samples[first:count]
        self.written += count
        return count

    def read(self, count: int) -> Samples:
        """Take out up to `count` samples, as a copy. For the reader alone."""
        count = min(count, self.available)
        at = self.read_to % self.capacity
        first = min(count, self.capacity - at)
        samples = np.empty(count, dtype=np.float32)
        samples[:first] = self._storage[at : at + first]
        samples[first:] = self._storage[: count - first]
        self.read_to += count
        return samples

    def skip_to(self, position: int) -> None:
        """Throw away what lies before `position`, which must have been written. For the reader alone."""
        if position > self.written:
            raise ValueError(f"cannot skip to {position}: only {self.written} samples were written")
        self.read_to = max(self.read_to, position)
