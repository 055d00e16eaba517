"""The loudspeaker: the program writes replies, a device's thread plays them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType

from sottovoce.runtime.devices.interface import DeviceEvent, DeviceInfo, Levels, Samples
from sottovoce.runtime.devices.playback_format import PlaybackCounts, PlaybackFormat
from sottovoce.runtime.devices.playback_queue import PlaybackQueue
from sottovoce.runtime.devices.playback_segment import HandOver
from sottovoce.runtime.devices.played_timeline import PlayedTimeline
from sottovoce.runtime.devices.portaudio import Block, DeviceStream, StreamRequest
from sottovoce.runtime.devices.settings import SPEECH_RATE, DeviceSettings
from sottovoce.runtime.devices.supervision import Supervisor


class Speaker:
    """Plays replies, each under its epoch; use it as a context manager. Leaving it ends the sound at once.

    Args:
        settings: which device, and how it is buffered.
        sample_rate: samples a second of what is written.

    Raises:
        DeviceError: there is no such loudspeaker, or it cannot be opened.
    """

    def __init__(self, settings: DeviceSettings, sample_rate: int = SPEECH_RATE) -> None:
        request = StreamRequest("speaker", settings.speaker, settings.output_buffer_ms, debug=settings.debug)
        self.sample_rate = sample_rate
        self._patience_s = settings.output_buffer_ms / 1000
        self._drops = settings.drop_on_stop
        self._stream = DeviceStream(request, self._give, self._shut)
        with ExitStack() as undo:  # also after Ctrl-C: nothing stays half open
            undo.callback(self._stream.close)
            form = PlaybackFormat.of(settings, self._stream.sample_rate, sample_rate)
            self._queue = PlaybackQueue(form, self._wait_for_room)
            self._timeline = PlayedTimeline(self._stream.sample_rate)
            self._supervisor = Supervisor(self._stream, settings.reopen, settings.stall_s, self._queue.abandon)
            undo.callback(self._supervisor.close)
            self._stream.open()
            self._supervisor.start()
            undo.pop_all()

    @property
    def device(self) -> DeviceInfo:
        """What it plays with."""
        return self._stream.device

    @property
    def latency_s(self) -> float:
        """How long sound takes through PortAudio and the device, as told when it was opened."""
        return self._stream.latency_s

    def write(self, epoch: int, samples: Samples) -> int:
        """Queue samples (n,) of a reply, waiting while two minutes (`playback_seconds`) of speech are queued.

        Returns:
            How many were taken: 0 when the reply was stopped, finished or followed by another.

        Raises:
            DeviceError: the device vanished and did not come back.
        """
        self._supervisor.check_present()
        return self._queue.write(epoch, samples)

    def finish(self, epoch: int) -> None:
        """The reply has no more samples; what is queued is played to its end."""
        self._queue.finish(epoch)

    def stop(self, epoch: int) -> None:
        """Silence the reply within one output buffer; nothing of it is played after, also if it is written later.

        The device drops what it holds then. Without `drop_on_stop` it plays that, and a fade.
        """
        self._queue.stop(epoch)

    def played(self, epoch: int) -> int:
        """Samples of the reply that were heard, as far as the device tells its latency."""
        return self._queue.played(epoch)

    def pending(self, epoch: int) -> int:
        """Samples of the reply that are still to be heard; 0 when it was stopped."""
        return self._queue.pending(epoch)

    def duck(self, quieter: bool) -> None:
        """Play quieter (by `duck_db`), or as loud as before."""
        self._queue.duck(quieter)

    def handed_over(self, epoch: int) -> list[HandOver]:
        """The newest blocks of the reply that the device took, for measuring."""
        return self._queue.handed_over(epoch)

    def reference(self, moment: float, count: int) -> Samples:
        """What left the loudspeaker from `moment` (of `time.monotonic`) on: up to (count,) at 16 kHz, as known yet."""
        return self._timeline.reference(moment, count)

    def events(self) -> list[DeviceEvent]:
        """What happened to the device since the last call."""
        return self._supervisor.events()

    @property
    def counts(self) -> PlaybackCounts:
        """What was not smooth so far."""
        return self._queue.counts

    @property
    def levels(self) -> Levels:
        """How loud it is now."""
        return self._queue.levels

    @property
    def ahead(self) -> int:
        """Samples that are queued ahead of what the device has taken."""
        return self._queue.ahead

    def close(self) -> None:
        """End the sound and let go of the device; again is harmless."""
        self._queue.close()
        self._supervisor.close()

    def __enter__(self) -> Speaker:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()

    def _give(self, block: Block) -> Samples | None:
        now = time.monotonic()
        self._supervisor.watch.called(now)
        if self._drops and self._queue.drop_stopped():
            self._timeline.drop(now)
            self._supervisor.look_now()
            return None
        sound = self._queue.fill(block.frames, block.delay_s, block.xrun)
        self._timeline.append(sound, now + block.delay_s)
        return sound

    def _shut(self) -> None:
        self._queue.device_lost()

    def _wait_for_room(self) -> None:
        time.sleep(self._patience_s)
