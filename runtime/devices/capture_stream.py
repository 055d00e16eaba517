"""From a device's blocks to 16 kHz with positions: what a microphone does apart from its device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sottovoce.runtime.devices.interface import Captured, Levels, Samples
from sottovoce.runtime.devices.level_meter import LevelMeter
from sottovoce.runtime.devices.ring_buffer import RingBuffer
from sottovoce.runtime.devices.settings import CAPTURE_RATE
from sottovoce.runtime.features.resampling import StreamingResampler

SMOOTHING = 1 / 64
"""How much one block moves the estimate of when the stream began: callbacks come some milliseconds early or late."""


@dataclass(frozen=True)
class _Gap:
    """`frames` of the device were lost where `at` frames had gone through the ring."""

    at: int
    frames: int


@dataclass(frozen=True)
class CaptureCounts:
    """What was lost so far.

    Attributes:
        device_overruns: times that the device said it threw sound away.
        ring_overruns: times that `read()` came too late and the ring was full.
        lost_samples: what both and vanished devices cost, in samples at 16 kHz.
    """

    device_overruns: int
    ring_overruns: int
    lost_samples: int


class CaptureStream:
    """The device's thread calls `capture`, the program's `read`; neither waits for the other.

    Positions count the device's frames, lost ones too. A loss is noted where it happened, so that what is read
    never spans one: the resampler is emptied before it and begins anew after it, at the right position.

    Args:
        device_rate: frames a second that the device gives.
        ring_seconds: sound that may wait for `read`.
        clock: seconds, for the moments of what is captured.
    """

    def __init__(
        self, device_rate: int, ring_seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.device_rate = device_rate
        self._clock = clock
        self._ring = RingBuffer(max(1, int(ring_seconds * device_rate)))
        self._gaps: deque[_Gap] = deque()
        self._meter = LevelMeter()
        # The device's side.
        self._lost_frames = 0
        self._open_gap = 0
        self._interrupted = False
        self._ring_is_full = False
        self._device_overruns = 0
        self._ring_overruns = 0
        self._began: float | None = None
        # The program's side.
        self._resampler = StreamingResampler(device_rate, CAPTURE_RATE)
        self._next_frame = 0
        self._position = 0
        self._reported = 0

    def capture(self, block: Samples, delay_s: float = 0.0, overflow: bool = False) -> None:
        """Take a block (n,) from the device. For its thread alone; never waits.

        Args:
            block: frames at the device's rate.
            delay_s: how long ago its first frame was captured.
            overflow: the device lost an unknown stretch before this block: as much as its clock says is missing.
        """
        captured_at = self._clock() - delay_s
        gap = (overflow or self._interrupted) and self._began is not None  # before the first block nothing was ours
        if gap:
            self._device_overruns += overflow
            self._lose(max(1, self._missing_before(captured_at)))
        self._interrupted = False
        self._follow_clock(captured_at, after_gap=gap)
        self._meter.measure(block)
        if self._ring.room < len(block):  # whole blocks or nothing: crumbs between gaps help nobody
            self._ring_overruns += not self._ring_is_full
            self._ring_is_full = True
            self._lose(len(block))
            return
        self._ring_is_full = False
        if self._open_gap:
            self._gaps.append(_Gap(self._ring.written, self._open_gap))
            self._open_gap = 0
        self._ring.write(block)

    def interrupted(self) -> None:
        """The device was away: what its clock says is missing before the next block is lost, though nobody overran."""
        self._interrupted = True

    def read(self) -> Captured:
        """What came since the last call, at most up to the next gap; empty when nothing did."""
        frames = self._ring.available
        # In this order: a gap is noted before what follows it is written, so none can lie within `frames` unseen.
        while self._gaps:
            captured = self._until_gap()
            if len(captured.samples):
                return captured
            frames = self._ring.available
        self._next_frame += frames
        return self._captured(self._resampler.append(self._ring.read(frames)))

    @property
    def counts(self) -> CaptureCounts:
        """Losses so far."""
        lost = round(self._lost_frames * CAPTURE_RATE / self.device_rate)
        return CaptureCounts(self._device_overruns, self._ring_overruns, lost)

    @property
    def levels(self) -> Levels:
        """How loud the newest block is."""
        return self._meter.levels

    @property
    def waiting(self) -> int:
        """Frames that wait to be read, at the device's rate."""
        return self._ring.available

    def _until_gap(self) -> Captured:
        """The rest of the stretch before the first gap; the stream goes on after it."""
        gap = self._gaps.popleft()
        frames = gap.at - self._ring.read_to
        stretch = np.concatenate([self._resampler.append(self._ring.read(frames)), self._resampler.finish()])
        self._resampler.reset()
        self._next_frame += frames + gap.frames
        resumes_at = self._next_frame * CAPTURE_RATE // self.device_rate
        captured = self._captured(stretch[: max(0, resumes_at - self._position)])
        self._position = resumes_at
        return captured

    def _captured(self, samples: Samples) -> Captured:
        start = self._position
        self._position += len(samples)
        overruns = self._device_overruns + self._ring_overruns
        new_overruns, self._reported = overruns - self._reported, overruns
        return Captured(samples, start, new_overruns, (self._began or 0.0) + start / CAPTURE_RATE)

    def _lose(self, frames: int) -> None:
        self._open_gap += frames
        self._lost_frames += frames

    @property
    def _frames_so_far(self) -> int:
        return self._ring.written + self._lost_frames

    def _missing_before(self, captured_at: float) -> int:
        """Frames between what was captured so far and this moment, by the clock."""
        expected = (self._began or 0.0) + self._frames_so_far / self.device_rate
        return round((captured_at - expected) * self.device_rate)

    def _follow_clock(self, captured_at: float, after_gap: bool) -> None:
        began = captured_at - self._frames_so_far / self.device_rate
        if self._began is None or after_gap:
            self._began = began
        else:
            self._began += SMOOTHING * (began - self._began)
