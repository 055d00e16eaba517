"""A microphone and a speaker that are WAV files, over a clock that is handed in: faster than life, always the same."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType

import numpy as np

from sottovoce.runtime.devices.errors import DeviceError
from sottovoce.runtime.devices.interface import Captured, DeviceEvent, Levels, Samples
from sottovoce.runtime.devices.level_meter import LevelMeter
from sottovoce.runtime.devices.playback_format import PlaybackCounts, PlaybackFormat
from sottovoce.runtime.devices.playback_queue import PlaybackQueue
from sottovoce.runtime.devices.played_timeline import PlayedTimeline
from sottovoce.runtime.devices.settings import CAPTURE_RATE, SPEECH_RATE, DeviceSettings
from sottovoce.runtime.features.audio_file import AudioSource, WavWriter, read_audio

SPEECH_AHEAD_S = 900.0
"""With a clock that only the writer moves nobody could wait for room: so there is a lot of it."""


class SteppedClock:
    """A clock that goes when it is told to; call it for its seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if seconds < 0:
            raise ValueError(f"{seconds} seconds: a clock does not go back")
        self.now += seconds


class WavMicrophone:
    """Hears a recording as if it was spoken from the moment this is made, and silence after it.

    Args:
        source: a file, or `(samples, sample_rate)`.
        clock: seconds; `time.monotonic` to speak as slowly as a person.
        silence_s: how much silence follows the recording before it has `ended`.

    Raises:
        InputError: not a recording.
    """

    def __init__(
        self, source: AudioSource, clock: Callable[[], float] = time.monotonic, silence_s: float = 2.0
    ) -> None:
        speech = read_audio(source).at_rate(CAPTURE_RATE).samples
        self._samples = np.concatenate([speech, np.zeros(round(silence_s * CAPTURE_RATE), dtype=np.float32)])
        self._clock = clock
        self._began = clock()
        self._position = 0
        self._meter = LevelMeter()

    def read(self) -> Captured:
        """What was spoken since the last call."""
        start = self._position
        due = round((self._clock() - self._began) * CAPTURE_RATE)
        self._position = max(start, min(due, len(self._samples)))
        samples = self._samples[start : self._position].copy()
        self._meter.measure(samples)
        return Captured(samples, start, 0, self._began + start / CAPTURE_RATE)

    def events(self) -> list[DeviceEvent]:
        """None: a file does not vanish."""
        return []

    @property
    def levels(self) -> Levels:
        """How loud what was read last is."""
        return self._meter.levels

    @property
    def ended(self) -> bool:
        """All of it was read, with the silence after it."""
        return self._position >= len(self._samples)

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> WavMicrophone:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()


class WavSpeaker:
    """Plays into a WAV file what a loudspeaker without latency would have played, silence between replies as well.

    Sound is played block by block whenever this is asked something, up to the clock's time; the file appears under
    its name on `close()`, and not at all when a `with` block ends by an error.

    Args:
        path: the file to make.
        sample_rate: of the speech and the file.
        clock: seconds.
        settings: fading, ducking and the size of a block.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int = SPEECH_RATE,
        clock: Callable[[], float] = time.monotonic,
        settings: DeviceSettings | None = None,
    ) -> None:
        settings = settings or DeviceSettings(playback_seconds=SPEECH_AHEAD_S)
        self.sample_rate = sample_rate
        self._clock = clock
        self._began = clock()
        self._block_s = settings.output_buffer_ms / 1000
        self._block = max(1, round(self._block_s * sample_rate))
        self._frames = 0
        form = PlaybackFormat.of(settings, sample_rate, sample_rate)
        self._queue = PlaybackQueue(form, self._no_room, self._now)
        self._timeline = PlayedTimeline(sample_rate)
        self._playing_at = self._began
        self._closed = False
        self._wav = WavWriter(path, sample_rate)

    def write(self, epoch: int, samples: Samples) -> int:
        """Queue samples (n,) of a reply; how many were taken: 0 once it was stopped, finished or superseded."""
        self._play()
        return self._queue.write(epoch, samples)

    def finish(self, epoch: int) -> None:
        """The reply has no more samples; what is queued is played to its end."""
        self._play()
        self._queue.finish(epoch)

    def stop(self, epoch: int) -> None:
        """The reply fades out in the next block; nothing of it is played after, also if it is written later."""
        self._play()
        self._queue.stop(epoch)

    def played(self, epoch: int) -> int:
        """Samples of the reply that were played by now."""
        self._play()
        return self._queue.played(epoch)

    def pending(self, epoch: int) -> int:
        """Samples of the reply that are still to be played; 0 when it was stopped."""
        self._play()
        return self._queue.pending(epoch)

    def duck(self, quieter: bool) -> None:
        """Play quieter, or as loud as before."""
        self._play()
        self._queue.duck(quieter)

    def reference(self, moment: float, count: int) -> Samples:
        """What was played from `moment` on: up to (count,) at 16 kHz, as far as is known yet."""
        self._play()
        return self._timeline.reference(moment, count)

    def events(self) -> list[DeviceEvent]:
        """None: a file does not vanish."""
        return []

    @property
    def counts(self) -> PlaybackCounts:
        """What was not smooth so far."""
        return self._queue.counts

    @property
    def levels(self) -> Levels:
        """How loud the newest block is."""
        return self._queue.levels

    @property
    def ahead(self) -> int:
        """Samples that are queued ahead of what was played."""
        return self._queue.ahead

    def close(self) -> None:
        """Play up to now, and give the file its name."""
        if not self._closed:
            self._play()
            self._closed = True
            self._wav.close()

    def discard(self) -> None:
        """Leave no file."""
        if not self._closed:
            self._closed = True
            self._wav.discard()

    def __enter__(self) -> WavSpeaker:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):  # Ctrl-C is how a conversation ends
            self.close()
        else:
            self.discard()

    def _play(self) -> None:
        """Every whole block that is due by now; the time of the queue is the time of the block."""
        if self._closed:
            return
        due = round((self._clock() - self._began) * self.sample_rate)
        while self._frames + self._block <= due:
            plays_at = self._began + self._frames / self.sample_rate
            self._playing_at = plays_at
            block = self._queue.fill(self._block)
            self._timeline.append(block, plays_at)
            self._wav.append(block)
            self._frames += self._block
        self._playing_at = self._clock()

    def _now(self) -> float:
        return self._playing_at

    def _no_room(self) -> None:
        seconds = self._queue.form.ring_seconds
        raise DeviceError(
            f"more than {seconds:g} s of speech wait to be played", fix="let the clock go on while writing"
        )
