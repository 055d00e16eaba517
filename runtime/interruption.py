"""Ctrl-C that is told as such, whatever a library makes of it."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interruption:
    """While a `with` block runs, Ctrl-C interrupts it, and whatever is raised after that leaves as `KeyboardInterrupt`.

    Where it meets an import inside a library, or a library that wraps every exception in one of its own, something
    else arrives, which nobody who pressed Ctrl-C wants to read about; it is kept as the cause. And where it meets a
    callback whose exceptions Python can only report, nothing arrives: then :func:`stop_if_interrupted` is the next
    place that it stops at.
    """

    running: Interruption | None = None

    def __init__(self) -> None:
        self.was_asked = False
        self._is_installed = False

    def __enter__(self) -> Interruption:
        is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if is_usual and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._note)
            self._is_installed = True
            Interruption.running = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._is_installed = False
            Interruption.running = None
        if self.was_asked:
            # One that leaves an `exec` of text, as dataclasses are made with, is noted by CPython, which then ends a
            # `python -m` by SIGINT whatever its exit code was. The next `exec` takes the note back (pythonrun.c).
            exec("")  # noqa: S102
        if self.was_asked and isinstance(problem, Exception):
            raise KeyboardInterrupt from problem

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.was_asked = True
        signal.default_int_handler(number, frame)


def stop_if_interrupted() -> None:
    """Between two steps of long work: raises what got lost.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed while an :class:`Interruption` ran, and the work went on.
    """
    running = Interruption.running
    if running is not None and running.was_asked and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt
