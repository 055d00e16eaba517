"""Where the milliseconds went, and how much memory it took.

Stages measure themselves with a `Stopwatch`, which keeps sums. Who wants every span by itself, as `sottovoce profile`
does, listens with `spans_told_to` around the work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

PROCESS_STATUS = Path("/proc/self/status")
SpanListener = Callable[[str, float, float], None]
"""Told of a span's name, its start and its end, both in seconds of `time.perf_counter`."""
_LISTENER: ContextVar[SpanListener | None] = ContextVar("span listener", default=None)


@contextmanager
def spans_told_to(listener: SpanListener) -> Iterator[None]:
    """Stopwatches that are made in this `with` block tell `listener` of each span, from whatever thread it is in."""
    before = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(before)


class Stopwatch:
    """Times of one reply, in milliseconds: spans add up, moments count from the start.

    Spans (`audio_encoder`, `prefill`, …) say how long a stage worked in all; moments (`first_token`, `first_audio`)
    say how long the listener waited.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._milliseconds: dict[str, float] = {}
        # Asked once: the spans of one reply may be measured in several threads, which do not share the context.
        self._listener = _LISTENER.get()

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time of a `with` block to the span `name`."""
        before = time.perf_counter()
        try:
            yield
        finally:
            after = time.perf_counter()
            self._milliseconds[name] = self._milliseconds.get(name, 0.0) + 1000 * (after - before)
            if self._listener is not None:
                self._listener(name, before, after)

    def mark(self, name: str) -> None:
        """Note the moment `name`, if it is its first time."""
        self._milliseconds.setdefault(name, 1000 * (time.perf_counter() - self._started))

    def restart(self) -> None:
        """Moments count from now; spans stay."""
        self._started = time.perf_counter()

    def milliseconds(self) -> Mapping[str, float]:
        """All spans and moments so far, and `total` since the start."""
        return {**self._milliseconds, "total": 1000 * (time.perf_counter() - self._started)}


def peak_memory_mb() -> float:
    """The most memory this process ever had resident, in MB (10⁶ bytes); mapped files count while they are resident."""
    peak = process_memory_mb("VmHWM")
    if peak is not None:
        return peak
    # Not Linux: ask the older interface, whose unit differs.
    import resource  # there is none on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def process_memory_mb(key: str) -> float | None:
    """What Linux says of this process's memory by `key` (`VmRSS`, `VmHWM`), in MB (10⁶ bytes); None elsewhere."""
    try:
        lines = PROCESS_STATUS.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    found = [line for line in lines if line.startswith(f"{key}:")]
    return int(found[0].split()[1]) * 1024 / 1e6 if found else None
