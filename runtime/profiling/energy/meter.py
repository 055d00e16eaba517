"""What every source of energy readings offers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

SECONDS_A_READING = 0.02


class Meter(Protocol):
    """One counter of energy; read before and after the work."""

    @property
    def name(self) -> str:
        """What it measures, as the machine calls it."""
        ...

    def start(self) -> None:
        """The work begins."""
        ...

    def stop(self) -> float | None:
        """The work is over: joules since `start`, or None if a reading failed."""
        ...


@dataclass
class CounterMeter:
    """A counter that the machine keeps.

    Args:
        name: as the machine calls it.
        read: joules so far; raises OSError or ValueError where that fails.
        wraps_at: joules at which the counter begins anew at 0; None: it does not.
    """

    name: str
    read: Callable[[], float]
    wraps_at: float | None = None
    _before: float | None = None

    def start(self) -> None:
        """Read it."""
        self._before = _tried(self.read)

    def stop(self) -> float | None:
        """Read it again; one wrap in between is seen."""
        now = _tried(self.read)
        if now is None or self._before is None:
            return None
        spent = now - self._before
        if spent >= 0:
            return spent
        return None if self.wraps_at is None else spent + self.wraps_at


class PowerMeter:
    """A sensor of power, read fifty times a second in a thread and summed up.

    Args:
        name: as the machine calls it.
        read: watts now; raises OSError or ValueError where that fails.
    """

    def __init__(self, name: str, read: Callable[[], float]) -> None:
        self.name = name
        self._read = read
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._joules: float | None = None

    def start(self) -> None:
        """Read once, and go on in a thread."""
        self._stopped.clear()
        self._joules = None
        watts = _tried(self._read)
        if watts is not None:
            first = (time.perf_counter(), watts)
            self._thread = threading.Thread(target=self._run, args=first, name=f"power of {self.name}")
            self._thread.start()

    def stop(self) -> float | None:
        """End the thread; the readings' sum over time."""
        if self._thread is None:
            return None
        self._stopped.set()
        self._thread.join()
        self._thread = None
        return self._joules

    def _run(self, at: float, watts: float) -> None:
        joules, is_last = 0.0, False
        while not is_last:
            is_last = self._stopped.wait(SECONDS_A_READING)
            now, next_watts = time.perf_counter(), _tried(self._read)
            if next_watts is None:  # a part of the sum is not the sum
                self._joules = None
                return
            joules += (watts + next_watts) / 2 * (now - at)
            at, watts = now, next_watts
            self._joules = joules


def _tried(read: Callable[[], float]) -> float | None:
    try:
        return read()
    except (OSError, ValueError):
        return None
