"""Replies in, blocks for the device out: what a speaker does apart from its device."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from sottovoce.runtime.devices.interface import Levels, Samples
from sottovoce.runtime.devices.level_meter import LevelMeter
from sottovoce.runtime.devices.playback_format import PlaybackCounts, PlaybackFormat
from sottovoce.runtime.devices.playback_segment import HandOver, Segment
from sottovoce.runtime.devices.ring_buffer import RingBuffer
from sottovoce.runtime.features.resampling import StreamingResampler

REMEMBERED_EPOCHS = 256
REMEMBERED_IN_BLOCKS = 8
"""Of so many of them also which blocks the device took; of all, it would be megabytes after an hour."""
DUCK_RAMP_S = 0.03


class PlaybackQueue:
    """The program writes, finishes and stops replies; the device's thread calls `fill`, which never waits.

    Replies lie in one ring, one after another. `fill` alone decides what is heard: a stopped reply fades out in the
    very next block, and the rest of it is skipped, also what is still written by a thread that did not know.

    Args:
        form: rates and sizes.
        wait_for_room: called while the ring is full; returns when it is worth looking again, or raises.
        clock: seconds.
    """

    def __init__(
        self,
        form: PlaybackFormat,
        wait_for_room: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.form = form
        self._wait_for_room = wait_for_room
        self._clock = clock
        self._ring = RingBuffer(max(1, int(form.ring_seconds * form.device_rate)))
        self._meter = LevelMeter()
        self._queued: deque[Segment] = deque()
        # The program's side; several of its threads may write and finish, one at a time. Stopping waits for none.
        self._writing = threading.Lock()
        self._naming = threading.Lock()
        self._segments: dict[int, Segment] = {}
        self._newest: Segment | None = None
        self._closed = False
        self._ducked = False
        # The device's side.
        self._current: Segment | None = None
        self._before: Segment | None = None
        self._gain = 1.0
        self._own_underruns = 0
        self._own_silence = 0
        self._device_underruns = 0
        self._ends = 0
        self._stops = 0

    def write(self, epoch: int, samples: Samples) -> int:
        """Queue samples (n,) of a reply, waiting while the ring is full.

        Returns:
            How many samples were taken: 0 if the reply was stopped or finished, or another one was written after it.
        """
        segment = self._segment(epoch)
        with self._writing:
            if segment.stopped or segment.finished or segment.resampler is None or self._closed:
                return 0
            if segment is not self._newest:
                self._begin(segment)
            segment.samples += len(samples)
            self._append(segment, segment.resampler.append(np.asarray(samples, dtype=np.float32)))
        return len(samples)

    def finish(self, epoch: int) -> None:
        """The reply has no more samples."""
        segment = self._segment(epoch)
        with self._writing:
            self._seal(segment)

    def stop(self, epoch: int) -> None:
        """Nothing of the reply is handed to the device any more, but for the fade in its next block."""
        self._segment(epoch).stopped = True

    def close(self) -> None:
        """Whoever waits for room stops waiting; nothing more is taken."""
        self._closed = True

    def duck(self, quieter: bool) -> None:
        """Play quieter, or as loud as before."""
        self._ducked = quieter

    def played(self, epoch: int) -> int:
        """Samples of the reply that were heard, at the speech's rate."""
        segment = self._segments.get(epoch)
        if segment is None:
            return 0
        heard = segment.heard_frames(self._clock(), self.form.device_rate)
        if segment.all_heard:
            return segment.samples
        return min(segment.samples, heard * self.form.sample_rate // self.form.device_rate)

    def pending(self, epoch: int) -> int:
        """Samples of the reply that are still to be heard; 0 when it was stopped."""
        segment = self._segments.get(epoch)
        if segment is None or segment.nothing_to_come:
            return 0
        return segment.samples - self.played(epoch)

    def handed_over(self, epoch: int) -> list[HandOver]:
        """The newest blocks of the reply that the device took, oldest first."""
        segment = self._segments.get(epoch)
        return [] if segment is None else list(segment.handed_over)

    @property
    def ahead(self) -> int:
        """Samples that wait in the ring, at the speech's rate."""
        return self._ring.available * self.form.sample_rate // self.form.device_rate

    @property
    def counts(self) -> PlaybackCounts:
        """What was not smooth so far."""
        silence = self._own_silence * self.form.sample_rate // self.form.device_rate
        return PlaybackCounts(self._own_underruns, silence, self._device_underruns, self._ends, self._stops)

    @property
    def levels(self) -> Levels:
        """How loud the newest block is."""
        return self._meter.levels

    def device_lost(self) -> None:
        """The device went away with what it held. For the device's side, while no callback runs."""
        for segment in self._known():
            segment.forget_unplayed(self._clock(), self.form.device_rate)

    def abandon(self) -> None:
        """The device does not come back: every reply ends as if it was stopped, and nothing more is taken."""
        self.close()
        for segment in self._known():
            segment.stopped = True

    def fill(self, frames: int, delay_s: float = 0.0, underflow: bool = False) -> Samples:
        """The next block for the device. For its thread alone; never waits.

        Args:
            frames: how many the device wants.
            delay_s: how long until the first of them is heard.
            underflow: the device says that it had nothing to play before.

        Returns:
            (frames,) float32: replies where there are any, else silence.
        """
        block = np.zeros(frames, dtype=np.float32)
        now = self._clock()
        self._device_underruns += underflow
        filled = 0
        while filled < frames and (segment := self._next_segment()) is not None:
            sound = self._take(segment, frames - filled)
            block[filled : filled + len(sound)] = sound
            if len(sound):
                self._end_dryness(segment)
                segment.hand_over(len(sound), now, now + delay_s + filled / self.form.device_rate)
            filled += len(sound)
            if not segment.over:
                if segment.consumed:
                    segment.dry_frames += frames - filled
                break
        self._duck(block)
        self._meter.measure(block)
        return block

    def drop_stopped(self) -> bool:
        """Whether the device is to drop all that it holds, since that is of a reply that was stopped.

        What is dropped was not heard. For the device's thread alone, before it asks for a block; never waits.
        """
        segment, now, rate = self._current, self._clock(), self.form.device_rate
        if segment is None or not segment.stopped or not segment.is_held(now, rate):
            return False
        if not segment.over:
            segment.over = True
            self._stops += 1
            self._ring.skip_to(segment.written)
        segment.drop(now, rate)
        if self._before is not None and self._before.is_held(now, rate):
            self._before.forget_unplayed(now, rate)
        return True

    def _next_segment(self) -> Segment | None:
        if self._current is None or self._current.over:
            if not self._queued:
                return None
            self._before, self._current = self._current, self._queued.popleft()
            self._ring.skip_to(self._current.begin)
        return self._current

    def _take(self, segment: Segment, wanted: int) -> Samples:
        # What ends a reply is read before how much there is: it is set after the last of it was written.
        stopped, finished = segment.stopped, segment.finished
        available = segment.written - self._ring.read_to
        if stopped:
            return self._fade_out(segment, min(wanted, available))
        sound = self._ring.read(min(wanted, available))
        if finished and len(sound) == available:
            segment.over = True
            self._ends += 1
        return sound

    def _fade_out(self, segment: Segment, most: int) -> Samples:
        segment.over = True
        fade = round(self.form.fade_s * self.form.device_rate)
        sounding = segment.consumed > 0 and not segment.dry_frames
        sound = self._ring.read(min(most, fade) if sounding else 0)
        self._stops += segment.consumed > 0
        self._ring.skip_to(segment.written)
        sound *= np.cos(np.linspace(0, np.pi / 2, len(sound), dtype=np.float32)) ** 2
        return sound

    def _end_dryness(self, segment: Segment) -> None:
        """Counted once the reply goes on: if it does not, it ended, and only its end was told late."""
        if segment.dry_frames and not segment.stopped:
            self._own_underruns += 1
            self._own_silence += segment.dry_frames
        segment.dry_frames = 0

    def _duck(self, block: Samples) -> None:
        target = self.form.duck_gain if self._ducked else 1.0
        if self._gain != target:
            step = len(block) / (DUCK_RAMP_S * self.form.device_rate) * (1.0 - self.form.duck_gain)
            reached = max(target, self._gain - step) if target < self._gain else min(target, self._gain + step)
            block *= np.linspace(self._gain, reached, len(block), dtype=np.float32)
            self._gain = reached
        elif target != 1.0:
            block *= np.float32(target)

    def _segment(self, epoch: int) -> Segment:
        with self._naming:
            segment = self._segments.get(epoch)
            if segment is None:
                segment = Segment(epoch, StreamingResampler(self.form.sample_rate, self.form.device_rate))
                self._segments[epoch] = segment
                self._forget_oldest()
            return segment

    def _forget_oldest(self) -> None:
        if len(self._segments) > REMEMBERED_EPOCHS:
            del self._segments[next(iter(self._segments))]
        for segment in list(self._segments.values())[:-REMEMBERED_IN_BLOCKS]:
            segment.forget_heard(self._clock(), self.form.device_rate)

    def _known(self) -> list[Segment]:
        with self._naming:
            return list(self._segments.values())

    def _begin(self, segment: Segment) -> None:
        if self._newest is not None:
            self._seal(self._newest)
        segment.begin = segment.written = self._ring.written
        self._newest = segment
        self._queued.append(segment)  # before its samples: the device then makes room for them

    def _seal(self, segment: Segment) -> None:
        if segment.finished:
            return
        if segment.resampler is not None and segment is self._newest and not segment.stopped:
            self._append(segment, segment.resampler.finish())
        segment.finished, segment.resampler = True, None

    def _append(self, segment: Segment, frames: Samples) -> None:
        while len(frames) and not (segment.stopped or self._closed):
            accepted = self._ring.write(frames)
            segment.written += accepted
            frames = frames[accepted:]
            if len(frames):
                self._wait_for_room()
