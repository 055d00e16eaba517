"""Ctrl-C and its like, as a wish that is looked at between two steps: so nothing is left half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C; whoever ends the program; a terminal that was closed, as by a lost ssh connection."""


class StopWish:
    """While a `with` block runs, the first such signal is noted, and another one of Ctrl-C interrupts as usual."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self.is_wanted = False

    def __enter__(self) -> StopWish:
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                number = getattr(signal, name, None)
                if number is not None:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        for number, handler in self._before.items():
            with contextlib.suppress(ValueError, TypeError):  # TypeError: one that was not set from Python
                signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.is_wanted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.is_wanted = True
