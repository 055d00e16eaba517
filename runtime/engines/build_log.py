"""What the library says while it builds: its errors, how far it is, and the layers that it made.

The library calls back from its own code, where an exception must not pass: Ctrl-C is noted, the build is told to stop,
and `interrupted` is looked at afterwards.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from sottovoce.runtime.engines.library import EngineLibrary
from sottovoce.runtime.progress import Progress

MAX_ERRORS = 50
LAYERS_HEADING = "Layers:"
"""How the message that lists an engine's layers begins, in a build that was asked for detailed verbosity."""
PROGRESS_UNITS = 1000


@dataclass
class BuildLog:
    """What was said in one build."""

    errors: list[str] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    """One text for each engine that the library put together."""

    def add(self, severity: int, message: str) -> None:
        """Keep what is looked at later. `severity`: 0 internal error, 1 error, 2 warning, 3 information, 4 verbose."""
        if severity <= 1:
            self.errors = [*self.errors[1 - MAX_ERRORS :], message.strip()]
        elif message.startswith(LAYERS_HEADING) or "\nLayers:" in message:
            self.layers.append(message)


def library_logger(library: EngineLibrary, log: BuildLog) -> Any:
    """A logger for the library that writes into `log`; nothing is printed."""
    base: Any = library.module.ILogger

    class Logger(base):  # type: ignore[misc]  # the base is known at run time only
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.add(int(severity), message)

    return Logger()


class Phases:
    """The library's nested phases of work, as one share between 0 and 1 that never falls."""

    def __init__(self) -> None:
        self._steps: dict[str, list[int]] = {}
        self._open: list[str] = []
        self._share = 0.0

    def start(self, name: str, steps: int) -> None:
        """A phase begins, in the one that began last."""
        self._steps[name] = [0, max(steps, 1)]
        self._open.append(name)

    def step(self, name: str) -> float:
        """One step of a phase is done → the share of all."""
        if name in self._steps:
            self._steps[name][0] += 1
        return self._update()

    def finish(self, name: str) -> float:
        """A phase, and all that is still open in it, is done → the share of all."""
        if name in self._open:
            del self._open[self._open.index(name) :]
            if not self._open:
                self._share = 1.0
        return self._update()

    def _update(self) -> float:
        share = 0.0
        for name in reversed(self._open):
            done, total = self._steps[name]
            share = min((done + share) / total, 1.0)
        self._share = max(self._share, share)
        return self._share


def progress_monitor(library: EngineLibrary, label: str, progress: Progress, stop: threading.Event) -> Any:
    """The library's monitor that tells `progress`, and stops the build once `stop` is set."""
    base: Any = library.module.IProgressMonitor
    phases = Phases()

    class Monitor(base):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            base.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase
            phases.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            del step
            progress.step(label, int(phases.step(phase_name) * PROGRESS_UNITS), PROGRESS_UNITS)
            return not stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            progress.step(label, int(phases.finish(phase_name) * PROGRESS_UNITS), PROGRESS_UNITS)

    return Monitor()


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """While it is entered, Ctrl-C sets the event that it gives; when it is left, that is a KeyboardInterrupt.

    Outside the main thread, which alone is interrupted, nothing is changed.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
        if stop.is_set():
            raise KeyboardInterrupt
