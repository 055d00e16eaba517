"""The thin part: PyAudio's streams. What is done with the sound is in files that know no device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from sottovoce.runtime.devices.errors import DeviceError
from sottovoce.runtime.devices.interface import Samples
from sottovoce.runtime.devices.portaudio_library import PORTAUDIO, import_pyaudio
from sottovoce.runtime.devices.quiet import quiet_stderr
from sottovoce.runtime.devices.selection import Direction, choose_device, find_again

MOST_PLAUSIBLE_DELAY_S = 2.0
# PortAudio's own numbers, so that a callback looks nothing up.
PA_CONTINUE = 0
PA_ABORT = 2
PA_INPUT_OVERFLOW = 2
PA_OUTPUT_UNDERFLOW = 4


@dataclass(frozen=True)
class StreamRequest:
    """What to open: direction, device, milliseconds of a block, and the rate (None: the device's own)."""

    direction: Direction
    device: str | int | None
    buffer_ms: float
    sample_rate: int | None = None
    debug: bool = False


@dataclass(frozen=True)
class Block:
    """What PortAudio says with a block.

    Attributes:
        samples: (frames,) float32 that were captured; empty for a speaker.
        frames: how many.
        delay_s: how long ago the first was captured, or until it is heard.
        xrun: PortAudio's flag for an overrun (capturing) or underrun (playing).
    """

    samples: Samples
    frames: int
    delay_s: float
    xrun: bool


OnBlock = Callable[[Block], Samples | None]


class DeviceStream:
    """One open device that calls back.

    Args:
        request: what to open.
        on_block: called in the device's thread with every block. A speaker's gives what to play, or None to have the
            device drop what it holds; then nothing is called until `start_again`. A microphone's gives None.
        on_shut: called when it was open and is closed, for whatever reason; no block comes then.

    Raises:
        DeviceError: no such device, or it cannot be opened.
    """

    def __init__(self, request: StreamRequest, on_block: OnBlock, on_shut: Callable[[], None]) -> None:
        self.request = request
        self._on_block = on_block
        self._on_shut = on_shut
        self._stream: Any = None
        self._latency_s = 0.0
        self.has_dropped = False
        """The device has dropped what it held, or is about to."""
        with PORTAUDIO.lock:
            PORTAUDIO.streams.add(self)
            try:
                self.device = choose_device(PORTAUDIO.devices(request.debug), request.direction, request.device)
                self.sample_rate = request.sample_rate or self.device.sample_rate
            except BaseException:
                self.close()
                raise
        most = self.device.outputs if request.direction == "speaker" else 1
        self._channels = min(2, most)  # a stereo device that is given one channel plays on the left only

    @property
    def buffer_frames(self) -> int:
        """Frames in a block."""
        return max(1, round(self.request.buffer_ms * self.sample_rate / 1000))

    @property
    def is_open(self) -> bool:
        """The device was opened and not closed; it may have vanished all the same."""
        return self._stream is not None

    @property
    def is_running(self) -> bool:
        """PortAudio says that the stream is active."""
        with PORTAUDIO.lock:
            try:
                return self._stream is not None and bool(self._stream.is_active())
            except OSError:
                return False

    @property
    def latency_s(self) -> float:
        """How long sound takes through PortAudio and the device, as PortAudio told when it was opened."""
        return self._latency_s

    def open(self) -> None:
        """Open the device and let it call.

        Raises:
            DeviceError: it is busy, gone, or does not take this rate.
        """
        capturing = self.request.direction == "microphone"
        with PORTAUDIO.lock:
            audio = PORTAUDIO.started(self.request.debug)
            pyaudio = import_pyaudio()
            where = {"input_device_index" if capturing else "output_device_index": self.device.index}
            try:
                with quiet_stderr(self.request.debug):
                    self._stream = audio.open(
                        rate=self.sample_rate,
                        channels=self._channels,
                        format=pyaudio.paFloat32,
                        input=capturing,
                        output=not capturing,
                        frames_per_buffer=self.buffer_frames,
                        stream_callback=self._captured if capturing else self._wanting,
                        start=False,
                        **where,
                    )
                    stream = self._stream
                    self._latency_s = float(stream.get_input_latency() if capturing else stream.get_output_latency())
                    stream.start_stream()
            except (OSError, ValueError) as problem:
                self.shut()
                raise self._cannot_open(problem) from problem
            except BaseException:
                self.shut()
                raise

    def start_again(self) -> bool:
        """After it dropped what it held: let the device call again; whether that worked."""
        with PORTAUDIO.lock:
            self.has_dropped = False
            if self._stream is None:
                return False
            try:
                self._stream.stop_stream()
                self._stream.start_stream()
            except OSError:
                return False
            return True

    def open_again(self) -> bool:
        """After it was shut: find the device anew and open it at the same rate; whether that worked."""
        with PORTAUDIO.lock:
            try:
                devices = PORTAUDIO.devices(self.request.debug)
                self.device = find_again(devices, self.request.direction, self.request.device, self.device)
                self.open()
            except (DeviceError, OSError):
                return False
            return True

    def shut(self) -> None:
        """Close the device; it may be opened again."""
        with PORTAUDIO.lock:
            stream, self._stream = self._stream, None
            if stream is None:
                return
            with quiet_stderr(self.request.debug), suppress(OSError):  # it was gone already
                stream.close()
            self._on_shut()

    def close(self) -> None:
        """Close the device for good."""
        with PORTAUDIO.lock:
            self.shut()
            PORTAUDIO.streams.discard(self)
            PORTAUDIO.end_if_unused(self.request.debug)

    def _captured(self, data: bytes, frames: int, times: Mapping[str, float], status: int) -> tuple[None, int]:
        samples = np.frombuffer(data, dtype=np.float32)
        delay_s = self._plausible(times["current_time"] - times["input_buffer_adc_time"])
        self._on_block(Block(samples, frames, delay_s, bool(status & PA_INPUT_OVERFLOW)))
        return None, PA_CONTINUE

    def _wanting(self, _: None, frames: int, times: Mapping[str, float], status: int) -> tuple[bytes, int]:
        delay_s = self._plausible(times["output_buffer_dac_time"] - times["current_time"])
        block = Block(np.zeros(0, dtype=np.float32), frames, delay_s, bool(status & PA_OUTPUT_UNDERFLOW))
        mono = self._on_block(block)
        if mono is None:
            self.has_dropped = True
            return bytes(4 * frames * self._channels), PA_ABORT
        return np.repeat(mono, self._channels).tobytes(), PA_CONTINUE

    def _plausible(self, delay_s: float) -> float:
        """Some drivers leave the times at zero; then the latency that was told at the opening."""
        return delay_s if 0 < delay_s < MOST_PLAUSIBLE_DELAY_S else self._latency_s

    def _cannot_open(self, problem: Exception) -> DeviceError:
        message = (
            f"the {self.request.direction} {self.device.name!r} cannot be opened at {self.sample_rate} Hz: {problem}"
        )
        return DeviceError(message, fix="end the program that uses it, or choose another one of `list_devices()`")
