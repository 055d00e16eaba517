"""Memory by stage: what it holds once it is loaded, and how much the process had at most while it worked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends.session import Array, CacheBuffers, Session
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import process_memory_mb
from sottovoce.runtime.profiling.passing_session import PassingSession
from sottovoce.runtime.profiling.turn import Asked, take_turn

FORGET_PEAK = Path("/proc/self/clear_refs")
FORGET_PEAK_WORD = "5"
"""Linux: the peak of resident memory begins anew."""


@dataclass(frozen=True)
class StageMemory:
    """One stage in one turn, MB (10⁶ bytes) of resident memory; None where the system does not say.

    Args:
        stage: which.
        load_ms: to load its graph.
        held_mb: more than before it was loaded, after its first call: weights it has read, working memory it keeps.
        peak_mb: of the whole process, the most while this stage's graph ran.
    """

    stage: StageName
    load_ms: float
    held_mb: float | None
    peak_mb: float | None


def stage_memory(bundle: Bundle, open_stage: Callable[[StageName], Session], asked: Asked) -> list[StageMemory]:
    """Load a bundle's graphs one after the other, as a turn needs them, and watch the process's memory.

    Args:
        bundle: whose.
        open_stage: loads a graph.
        asked: the turn.

    Raises:
        BackendError: the engine failed.
        InputError: as for a turn.
    """
    watched: list[WatchedSession] = []

    def open_watched(stage: StageName) -> Session:
        watched.append(WatchedSession(stage, lambda: open_stage(stage)))
        return watched[-1]

    with Assistant(Model(bundle, open_stage=open_watched)) as assistant:
        take_turn(assistant, asked)
        return [session.memory for session in watched]


class WatchedSession(PassingSession):
    """Passes everything on, and notes the process's memory around each call.

    Args:
        stage: which graph it is.
        load: makes the session that does the work.
    """

    def __init__(self, stage: StageName, load: Callable[[], Session]) -> None:
        self._stage = stage
        self._before = resident_mb()
        started = time.perf_counter()
        super().__init__(load())
        self._load_ms = 1000 * (time.perf_counter() - started)
        self._held: float | None = None
        self._peak: float | None = None

    @property
    def memory(self) -> StageMemory:
        """What was noted so far."""
        return StageMemory(self._stage, self._load_ms, self._held, self._peak)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once, watched."""
        return self._watched(lambda: self._session.run(feeds, outputs))

    def run_with_cache(self, feeds: Mapping[str, Array], cache: CacheBuffers) -> dict[str, Array]:
        """Run once, watched."""
        return self._watched(lambda: self._session.run_with_cache(feeds, cache))

    def _watched(self, work: Callable[[], dict[str, Array]]) -> dict[str, Array]:
        is_fresh = forget_peak()
        results = work()
        peak = process_memory_mb("VmHWM") if is_fresh else None
        self._peak = peak if self._peak is None or peak is None else max(self._peak, peak)
        now = resident_mb()
        if self._held is None and now is not None and self._before is not None:
            self._held = now - self._before
        return results


def forget_peak() -> bool:
    """Let the process's peak begin anew; whether that can be done here (on Linux it can)."""
    try:
        FORGET_PEAK.write_text(FORGET_PEAK_WORD, encoding="ascii")
    except OSError:
        return False
    return True


def resident_mb() -> float | None:
    """Memory of this process that is resident now, MB; None where the system does not say."""
    return process_memory_mb("VmRSS")
