"""A session that notes when each of its calls began and ended, around any backend's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from sottovoce.runtime.backends.session import Array, CacheBuffers, Session
from sottovoce.runtime.contracts import tensor_by_role
from sottovoce.runtime.manifest import GraphSpec, StageName
from sottovoce.runtime.profiling.passing_session import PassingSession
from sottovoce.runtime.profiling.recording import Phase, Recording

MAIN_INPUTS = ("features", "pixels", "embeddings", "frames", "codes")
"""Roles of what a stage works on; every stage has one of them."""


class TimedSession(PassingSession):
    """Passes everything on, and adds one `Call` a run.

    Args:
        session: does the work.
        stage: which graph it is.
        recording: takes the calls.
    """

    def __init__(self, session: Session, stage: StageName, recording: Recording) -> None:
        super().__init__(session)
        self._stage = stage
        self._recording = recording
        self._reads = CallReader(session.spec)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once, timed."""
        start = time.perf_counter()
        results = self._session.run(feeds, outputs)
        self._add(feeds, start)
        return results

    def run_with_cache(self, feeds: Mapping[str, Array], cache: CacheBuffers) -> dict[str, Array]:
        """Run once, timed."""
        start = time.perf_counter()
        results = self._session.run_with_cache(feeds, cache)
        self._add(feeds, start)
        return results

    def _add(self, feeds: Mapping[str, Array], start: float) -> None:
        end = time.perf_counter()
        phase, size, cached = self._reads.of(feeds)
        self._recording.add_call((self._stage, phase, start, end, threading.get_ident(), size, cached))


class CallReader:
    """What kind of call some feeds make, read off their shapes.

    Args:
        spec: the graph's contract.
    """

    def __init__(self, spec: GraphSpec) -> None:
        main = next(tensor for tensor in spec.inputs if tensor.role in MAIN_INPUTS)
        self._main = main.name
        self._axis = next((axis for axis, size in enumerate(main.shape) if isinstance(size, str)), 0)
        self._length = tensor_by_role(spec.inputs, "cache_length").name if spec.cache is not None else None

    def of(self, feeds: Mapping[str, Array]) -> tuple[Phase, int, int]:
        """The phase, the size of what is fed, and the positions in the cache before it."""
        size = int(feeds[self._main].shape[self._axis])
        if self._length is None:
            return "call", size, 0
        return ("step" if size == 1 else "prefill"), size, int(feeds[self._length][0])
