"""Watches an open device from a thread of its own, and opens it again after it vanished."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from sottovoce.runtime.devices.errors import DeviceError
from sottovoce.runtime.devices.interface import DeviceEvent
from sottovoce.runtime.devices.portaudio import DeviceStream
from sottovoce.runtime.devices.portaudio_library import PORTAUDIO
from sottovoce.runtime.devices.reopening import ReopenSchedule, StallWatch
from sottovoce.runtime.devices.settings import ReopenPolicy

LOOK_EVERY_S = 0.1
DROPS_WITHIN_S = 0.5
LOOK_FOR_NEW_DEVICES_EVERY = 4
"""Seeing a device that came under a new name costs the other streams a restart: only each fourth try does."""


class Supervisor:
    """Notices when a stream calls no more, and tries it again a bounded number of times.

    Args:
        stream: opened and running.
        policy: when it is tried again.
        stall_s: how long without a call is too long.
        on_given_up: called after the last try.
        clock: seconds.
    """

    def __init__(
        self,
        stream: DeviceStream,
        policy: ReopenPolicy,
        stall_s: float,
        on_given_up: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._policy = policy
        self._stall_s = stall_s
        self._on_given_up = on_given_up
        self._clock = clock
        self._events: deque[DeviceEvent] = deque()
        self._closing = threading.Event()
        self._look = threading.Event()
        self.watch = StallWatch(stall_s, clock())
        self.given_up = False
        self._thread = threading.Thread(target=self._run, name=f"sottovoce {stream.request.direction}", daemon=True)

    def start(self) -> None:
        """Begin to watch a stream that was just opened."""
        self.watch.called(self._clock())
        self._thread.start()

    def look_now(self) -> None:
        """The stream is about to drop what the device holds; it is started again as soon as it has."""
        self._look.set()

    def events(self) -> list[DeviceEvent]:
        """What happened since the last call."""
        happened = []
        while self._events:
            happened.append(self._events.popleft())
        return happened

    def check_present(self) -> None:
        """Nothing more is to be hoped for.

        Raises:
            DeviceError: the device vanished and did not come back.
        """
        if self.given_up:
            message = (
                f"the {self._stream.request.direction} {self._stream.device.name!r} vanished and did not come back"
            )
            raise DeviceError(message, fix="plug it in again and start anew, or choose another one")

    def close(self) -> None:
        """Stop watching, and close the device for good."""
        self._closing.set()
        self._look.set()
        if self._thread.is_alive():
            self._thread.join()
        self._stream.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._look.wait(LOOK_EVERY_S)
            self._look.clear()
            if self._closing.is_set() or (self._stream.has_dropped and self._start_again()):
                continue
            if self.watch.is_stalled(self._clock()) or not self._stream.is_running:
                self._stream.shut()
                if not self._bring_back():
                    return

    def _start_again(self) -> bool:
        """Once the device has dropped what it held."""
        deadline = self._clock() + DROPS_WITHIN_S
        while self._stream.is_running and self._clock() < deadline:
            if self._closing.wait(0.002):
                return True
        self.watch.called(self._clock())
        return self._stream.start_again()

    def _bring_back(self) -> bool:
        schedule = ReopenSchedule(self._policy, self._clock())
        self._report("vanished", "no sound goes through it any more")
        while not self._closing.wait(max(0.01, schedule.next_try - self._clock())):
            if self._try_again(schedule.tries):
                self._report("reopened", f"after {self._clock() - schedule.vanished_at:.1f} s")
                return True
            schedule.failed(self._clock())
            if schedule.is_over:
                self.given_up = True
                self._on_given_up()
                self._report("given_up", f"tried {schedule.tries} times")
                return False
        return False

    def _try_again(self, tries: int) -> bool:
        """Open it; it counts only if the device then calls."""
        with PORTAUDIO.lock:
            if len(PORTAUDIO.streams) == 1 or tries % LOOK_FOR_NEW_DEVICES_EVERY == LOOK_FOR_NEW_DEVICES_EVERY - 1:
                PORTAUDIO.look_again(self._stream.request.debug)
            opened_at = self._clock()
            if not self._stream.open_again():
                return False
        while self.watch.last_call <= opened_at and self._clock() - opened_at < self._stall_s:
            if self._closing.wait(0.02):
                return False
        if self.watch.last_call > opened_at and self._stream.is_running:
            return True
        self._stream.shut()
        return False

    def _report(self, kind: str, detail: str) -> None:
        name = self._stream.device.name
        self._events.append(DeviceEvent(kind, name, self._clock(), detail))  # type: ignore[arg-type]
