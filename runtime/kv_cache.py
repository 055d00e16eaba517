"""A decoder's memory: fixed buffers and a length. What lies behind the length is never read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sottovoce.runtime.backends.session import Array, Session
from sottovoce.runtime.errors import BackendError, SottovoceError

CAPACITY_STEP = 256
"""Buffers have a multiple of so many positions: attention takes time for all that there is room for."""
STEPS_KEPT = 8
"""A long buffer grows by a part of its length, between a 16th and an 8th: copying it then costs little beside reading
it for every token, and so do the places that are read in vain."""


def roomy_capacity(needed: int, step: int, max_length: int) -> int:
    """Positions to have room for, where `needed` are filled soon."""
    grain = step * max(1, needed // (STEPS_KEPT * step))
    return min(-(-needed // grain) * grain, max_length)


class ContextFullError(SottovoceError):
    """The decoder's context has no room for what should be appended."""


@dataclass(frozen=True)
class CacheSnapshot:
    """The contents of a cache, copied out: can be saved, and resumed in a cache of the same layout."""

    length: int
    contents: Mapping[str, Array]


class KVCache:
    """The cache of one conversation in one decoder: append, rewind, snapshot.

    Args:
        session: the decoder that fills it.
        step: positions to grow by at least, where the graph takes buffers of any size.
    """

    def __init__(self, session: Session, step: int = CAPACITY_STEP) -> None:
        if session.spec.cache is None:
            raise BackendError(f"stage {session.stage!r} has no cache")
        self._session = session
        self._length = 0
        self.max_length = session.spec.cache.max_length
        self._step = self.max_length if session.spec.cache.fixed_capacity else step
        self._buffers = session.create_cache(min(self._step, self.max_length))

    @property
    def length(self) -> int:
        """Positions that are filled."""
        return self._length

    @property
    def capacity(self) -> int:
        """Positions there is memory for now."""
        return self._buffers.capacity

    @property
    def room(self) -> int:
        """Positions that can still be appended, given memory."""
        return self.max_length - self._length

    def append(self, feeds: Mapping[str, Array], cache_length_name: str, positions: int) -> dict[str, Array]:
        """Run the decoder on `positions` new positions and keep them.

        Args:
            feeds: the decoder's inputs by name, but for the cache and its length.
            cache_length_name: name of the input that takes the length.
            positions: how many the feeds hold.

        Returns:
            The decoder's outputs by name, but for the cache.

        Raises:
            ContextFullError: there is no room; the cache is as it was.
            BackendError: the engine failed; the cache is as it was.
        """
        self._reserve(positions)
        length = np.array([self._length], dtype=np.int64)
        results = self._session.run_with_cache({**feeds, cache_length_name: length}, self._buffers)
        self._length += positions
        return results

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions; the buffers stay where they are.

        Raises:
            ValueError: more than there are, a mistake of the caller.
        """
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot rewind a cache of {self._length} positions to {length}")
        self._length = length

    def reset(self) -> None:
        """Forget everything; the memory is kept for what comes next."""
        self._length = 0

    def snapshot(self) -> CacheSnapshot:
        """Copy out what is filled."""
        return CacheSnapshot(self._length, self._buffers.read(self._length))

    def resume(self, snapshot: CacheSnapshot) -> None:
        """Put a snapshot back, whatever the cache holds now.

        Raises:
            ContextFullError: it is longer than this decoder's context.
        """
        self.reset()
        self._reserve(snapshot.length)
        self._buffers.write(snapshot.contents)
        self._length = snapshot.length

    def _reserve(self, positions: int) -> None:
        needed = self._length + positions
        if needed > self.max_length:
            message = (
                f"stage {self._session.stage!r}: {self._length} positions are filled and {positions} more are needed; "
                f"its context holds {self.max_length}"
            )
            raise ContextFullError(message, fix="use a shorter prompt, or start a new conversation")
        capacity = roomy_capacity(needed, self._step, self.max_length)
        # What was rewound a long way is given back: reading it in vain would cost more than copying the rest.
        if needed > self.capacity or self.capacity > 2 * capacity:
            self._buffers.resize(capacity, keep=self._length)
