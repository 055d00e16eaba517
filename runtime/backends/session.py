"""What every inference engine offers the stages: named arrays in, named arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.manifest import GraphSpec

Array = npt.NDArray[np.generic]


class CacheBuffers(Protocol):
    """KV-cache storage that lives where its session computes (host or device).

    Buffers are named by role: `key.N` and `value.N` for layer N, each (1, kv_heads, capacity, head_size).
    """

    @property
    def capacity(self) -> int:
        """Positions the buffers can hold now."""
        ...

    def resize(self, capacity: int, keep: int) -> None:
        """Make it room for `capacity` positions, fewer or more, the first `keep` preserved."""
        ...

    def read(self, length: int) -> dict[str, Array]:
        """Copies of the first `length` positions of every buffer."""
        ...

    def write(self, contents: Mapping[str, Array]) -> None:
        """Put back what `read` gave, from position 0 on."""
        ...


class Session(Protocol):
    """One loaded graph.

    A session is used from one thread at a time. Every failure inside the engine is raised as `BackendError` with the
    stage's name.
    """

    @property
    def spec(self) -> GraphSpec:
        """The graph's contract."""
        ...

    @property
    def stage(self) -> str:
        """The name of the stage, for messages."""
        ...

    @property
    def widened(self) -> bool:
        """Whether the engine computes in float32 what the graph stores in float16, for want of kernels."""
        ...

    @property
    def max_positions(self) -> int | None:
        """The most positions that a decoder takes in one call; None: any number."""
        ...

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once; keys are tensor *names* (as in the manifest)."""
        ...

    def create_cache(self, capacity: int) -> CacheBuffers:
        """Fresh cache buffers for a graph whose contract has a cache."""
        ...

    def run_with_cache(self, feeds: Mapping[str, Array], cache: CacheBuffers) -> dict[str, Array]:
        """Run once with the cache's buffers as past and present: updated in place; other outputs returned."""
        ...

    def close(self) -> None:
        """Release the engine's memory; the session is unusable afterwards."""
        ...
