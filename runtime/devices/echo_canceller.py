"""Takes the assistant's own voice out of what the microphone hears, so that a person can speak while it does.

libspeexdsp does it: a Debian package of 0.1 MB on every architecture, and it leaves who speaks meanwhile
understandable. On the speech of tests/benchmarks/echo.py it takes 21 dB of the echo away, 31 with suppression, and of
100 words said over a reply as loud Whisper then gets 3 or 11 wrong. (WebRTC's AEC3, as the `livekit` package has it,
took 45 dB away in one such conversation, but Whisper got 87 of 100 words wrong: who interrupts was turned down with
the echo.)
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

import numpy as np

from sottovoce.runtime.devices.interface import (
    Captured,
    CaptureDevice,
    DeviceEvent,
    Levels,
    PlaybackDevice,
    Samples,
)
from sottovoce.runtime.devices.settings import CAPTURE_RATE
from sottovoce.runtime.devices.speexdsp import Pcm, SpeexEcho

LONGEST_HOLD_S = 0.1
RELOCK_S = 0.01
"""How far the clocks of the two devices may drift before they are aligned anew, and the room is learned again."""


@dataclass(frozen=True)
class EchoSettings:
    """How echo is cancelled.

    Attributes:
        frame_ms: sound that is worked on at a time; captured sound waits up to this long.
        tail_ms: echo that comes later than this is not cancelled.
        suppress: turn down what the adaptive filter leaves: less echo, at some cost to a person who speaks at the same
            time.
        lead_ms: the reference is taken so much earlier, since an echo that seems to come before its sound is not found.
    """

    frame_ms: float = 20.0
    tail_ms: float = 256.0
    suppress: bool = True
    lead_ms: float = 20.0


class EchoCanceller:
    """Captured and played sound in, both at 16 kHz and aligned; captured sound without the echo out.

    Args:
        settings: see there.

    Raises:
        DeviceError: libspeexdsp is not installed.
    """

    def __init__(self, settings: EchoSettings | None = None) -> None:
        self.settings = settings or EchoSettings()
        self._frame = round(self.settings.frame_ms * CAPTURE_RATE / 1000)
        self._speex = self._begin()
        self._captured = np.zeros(0, dtype=np.float32)
        self._played = np.zeros(0, dtype=np.float32)

    @property
    def waiting(self) -> int:
        """Captured samples that wait for the rest of their frame."""
        return len(self._captured)

    def cancel(self, captured: Samples, played: Samples) -> Samples:
        """Take the next captured samples (n,) and what was played at the same time (n,).

        Returns:
            (m,): every whole frame that is there by now, beginning with the sample that waited longest.
        """
        if captured.shape != played.shape:
            raise ValueError(f"{captured.shape} captured and {played.shape} played samples, expected as many")
        self._captured = np.concatenate([self._captured, captured])
        self._played = np.concatenate([self._played, played])
        whole = len(self._captured) // self._frame * self._frame
        cleaned = np.empty(whole, dtype=np.float32)
        for at in range(0, whole, self._frame):
            frame = slice(at, at + self._frame)
            cleaned[frame] = self._speex.cancel(_pcm(self._captured[frame]), _pcm(self._played[frame])) / 32768
        self._captured, self._played = self._captured[whole:], self._played[whole:]
        return cleaned

    def flush(self) -> Samples:
        """What waits, as it was captured: a gap follows, and its frame will never be whole. What was learned stays."""
        rest, self._captured = self._captured, np.zeros(0, dtype=np.float32)
        self._played = np.zeros(0, dtype=np.float32)
        return rest

    def reset(self) -> None:
        """Forget the room: another microphone or loudspeaker is used."""
        self.flush()
        self._speex.close()
        self._speex = self._begin()

    def close(self) -> None:
        """Free the library's memory; again is harmless."""
        self._speex.close()

    def _begin(self) -> SpeexEcho:
        tail = round(self.settings.tail_ms * CAPTURE_RATE / 1000)
        return SpeexEcho(self._frame, tail, CAPTURE_RATE, self.settings.suppress)


class EchoCancellingMicrophone:
    """A microphone that does not hear the speaker; is read as any other. Closing it closes the microphone.

    Positions stay those of the capture stream. The reference is looked up by moments once, and by positions from then
    on: a filter that learns the room needs the two streams side by side to the sample.

    Args:
        microphone: what hears both.
        speaker: what plays.
        settings: see there.

    Raises:
        DeviceError: libspeexdsp is not installed.
    """

    def __init__(
        self, microphone: CaptureDevice, speaker: PlaybackDevice, settings: EchoSettings | None = None
    ) -> None:
        self._microphone = microphone
        self._speaker = speaker
        self._canceller = EchoCanceller(settings)
        self._origin: float | None = None  # the moment of position 0
        self._held = np.zeros(0, dtype=np.float32)  # captured; what was played meanwhile is not known yet
        self._end = 0  # position after it

    def read(self) -> Captured:
        """What was captured since the last call, without the echo; never waits.

        Samples are held back until it is known what was played with them, but not for long: a loudspeaker that vanished
        plays nothing.
        """
        captured = self._microphone.read()
        waits = len(self._held) + self._canceller.waiting
        if len(captured.samples) and captured.start != self._end and waits:
            # A gap: what is held goes out as it is, and what came after it waits for the next call.
            start = self._end - waits
            samples = np.concatenate([self._cancelled(len(self._held)), self._canceller.flush()])
            self._hold(captured)
            return self._given(samples, start, captured)
        self._hold(captured)
        start = self._end - len(self._held) - self._canceller.waiting
        overdue = len(self._held) - round(LONGEST_HOLD_S * CAPTURE_RATE)
        samples = self._cancelled(len(self._held) if self._microphone.ended else overdue)
        return self._given(samples, start, captured)

    def events(self) -> list[DeviceEvent]:
        """What happened to the device since the last call."""
        return self._microphone.events()

    @property
    def levels(self) -> Levels:
        """How loud it is now, echo included."""
        return self._microphone.levels

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self._microphone.ended and not len(self._held)

    def close(self) -> None:
        """Let go of the device; again is harmless."""
        self._microphone.close()
        self._canceller.close()

    def __enter__(self) -> EchoCancellingMicrophone:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()

    def _hold(self, captured: Captured) -> None:
        if not len(captured.samples):
            return
        origin = captured.moment - captured.start / CAPTURE_RATE
        if self._origin is None or abs(origin - self._origin) > RELOCK_S:
            self._origin = origin
        self._held = np.concatenate([self._held, captured.samples])
        self._end = captured.end

    def _cancelled(self, at_least: int) -> Samples:
        """What is held, as far as its reference is known, and `at_least` so many samples of it."""
        start = self._end - len(self._held)
        moment = (self._origin or 0.0) + start / CAPTURE_RATE + self._canceller.settings.lead_ms / 1000
        played = self._speaker.reference(moment, len(self._held))
        count = max(len(played), at_least)
        played = np.concatenate([played, np.zeros(count - len(played), dtype=np.float32)])
        ready, self._held = self._held[:count], self._held[count:]
        return self._canceller.cancel(ready, played)

    def _given(self, samples: Samples, start: int, captured: Captured) -> Captured:
        moment = (self._origin or 0.0) + start / CAPTURE_RATE
        return Captured(samples, start, captured.overruns, moment)


def _pcm(samples: Samples) -> Pcm:
    return np.clip(samples * 32768, -32768, 32767).astype(np.int16)
