"""The microphone: a device's thread captures, the program reads 16 kHz mono."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType

from sottovoce.runtime.devices.capture_stream import CaptureCounts, CaptureStream
from sottovoce.runtime.devices.interface import Captured, DeviceEvent, DeviceInfo, Levels
from sottovoce.runtime.devices.portaudio import Block, DeviceStream, StreamRequest
from sottovoce.runtime.devices.settings import DeviceSettings
from sottovoce.runtime.devices.supervision import Supervisor


class Microphone:
    """Captures from the moment it is made; use it as a context manager.

    Args:
        settings: which device, and how it is buffered.

    Raises:
        DeviceError: there is no such microphone, or it cannot be opened.
    """

    def __init__(self, settings: DeviceSettings) -> None:
        request = StreamRequest("microphone", settings.microphone, settings.capture_buffer_ms, debug=settings.debug)
        self._stream = DeviceStream(request, self._take, self._shut)
        with ExitStack() as undo:  # also after Ctrl-C: nothing stays half open
            undo.callback(self._stream.close)
            self._capture = CaptureStream(self._stream.sample_rate, settings.capture_seconds)
            self._supervisor = Supervisor(self._stream, settings.reopen, settings.stall_s)
            undo.callback(self._supervisor.close)
            self._stream.open()
            self._supervisor.start()
            undo.pop_all()

    @property
    def device(self) -> DeviceInfo:
        """What it captures with."""
        return self._stream.device

    def read(self) -> Captured:
        """What was captured since the last call, at most up to the next gap; never waits.

        Raises:
            DeviceError: the device vanished, did not come back, and all that it gave was read.
        """
        captured = self._capture.read()
        if not len(captured.samples):
            self._supervisor.check_present()
        return captured

    def events(self) -> list[DeviceEvent]:
        """What happened to the device since the last call."""
        return self._supervisor.events()

    @property
    def counts(self) -> CaptureCounts:
        """What was lost so far."""
        return self._capture.counts

    @property
    def levels(self) -> Levels:
        """How loud it is now."""
        return self._capture.levels

    @property
    def ended(self) -> bool:
        """Never: a microphone goes on."""
        return False

    def close(self) -> None:
        """Let go of the device; again is harmless."""
        self._supervisor.close()

    def __enter__(self) -> Microphone:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()

    def _take(self, block: Block) -> None:
        self._supervisor.watch.called(time.monotonic())
        self._capture.capture(block.samples, block.delay_s, block.xrun)

    def _shut(self) -> None:
        self._capture.interrupted()
