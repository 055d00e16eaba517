"""What happened: everything that `Duplex` learns of the world, each with the time it happened at.

A time is in seconds of one clock that does not go backwards, from 0 on. Samples of the microphone are counted from the
beginning of the capture stream, at 16 kHz; samples of a reply from the reply's beginning, at the rate it is played at.
`epoch` names a reply: it is the number that the action which asked for it (`Prepare`, `EndOfSpeech`, `Ask`) carries;
a conversation may count otherwise. Events of other epochs than the current one are late and change nothing.

| event | who tells it |
| --- | --- |
| VoiceWindow | the voice activity detector, for every 512 samples captured |
| ReplyStarted, ReplyAudio, ReplyFinished | whoever computes the reply; the last one always comes, also when cancelled |
| Played, PlaybackStopped | the speaker: samples really played, all together; the latter answers `StopPlayback` |
| TypedLine, Picture, InterruptKey, Quit | the user |
| DeviceLost, DeviceReturned | the microphone or the speaker |
| Tick | the clock, for when nothing is captured |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sottovoce.runtime.duplex.numbers import check_numbers, check_range

CAPTURE_RATE = 16_000
WINDOW_SAMPLES = 512

Device = Literal["microphone", "speaker"]
FinishReason = Literal["stop", "length", "cancelled", "not_addressed", "error"]
"""Why a reply ended: as `ReplyDone` has it, or `error` when it failed."""


@dataclass(frozen=True)
class TimedEvent:
    """What every event has.

    Raises:
        RecordError: a number that is negative or not finite.
    """

    at: float

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True)
class VoiceWindow(TimedEvent):
    """How likely it is that the 512 samples before `end_sample` of the capture stream are speech, 0 to 1."""

    end_sample: int
    probability: float

    def __post_init__(self) -> None:
        check_numbers(self)
        check_range("VoiceWindow.probability", self.probability, 0, 1)
        if self.end_sample < WINDOW_SAMPLES:
            check_range("VoiceWindow.end_sample", self.end_sample, WINDOW_SAMPLES, None)


@dataclass(frozen=True)
class ReplyStarted(TimedEvent):
    """The question was understood; tokens are coming."""

    epoch: int


@dataclass(frozen=True)
class ReplyAudio(TimedEvent):
    """`samples` more samples of the reply are ready to be played."""

    epoch: int
    samples: int


@dataclass(frozen=True)
class ReplyFinished(TimedEvent):
    """Nothing more comes of this reply; it may still be playing.

    Every epoch of a `Prepare`, `EndOfSpeech` or `Ask` has one, sooner or later: also when it was withdrawn, cancelled
    or refused, or when nothing could be prepared. Until it comes, no other reply is asked for.
    """

    epoch: int
    reason: FinishReason


@dataclass(frozen=True)
class Played(TimedEvent):
    """`samples` of this reply, all together, have left the speaker."""

    epoch: int
    samples: int


@dataclass(frozen=True)
class PlaybackStopped(TimedEvent):
    """The speaker is silent, as `StopPlayback` wanted; `samples` of this reply, all together, have left it."""

    epoch: int
    samples: int


@dataclass(frozen=True)
class TypedLine(TimedEvent):
    """The user typed a question."""

    text: str


@dataclass(frozen=True)
class Picture(TimedEvent):
    """The user showed a picture, for the next turn. `name` is handed back as it is."""

    name: str


@dataclass(frozen=True)
class InterruptKey(TimedEvent):
    """The user wants whatever is going on to stop."""


@dataclass(frozen=True)
class DeviceLost(TimedEvent):
    """A device is gone (unplugged, taken by another program)."""

    device: Device


@dataclass(frozen=True)
class DeviceReturned(TimedEvent):
    """It is back. A microphone's samples are counted on from where they ended, or from any later number."""

    device: Device


@dataclass(frozen=True)
class Tick(TimedEvent):
    """Time went by. Needed only while no windows come: they tell the time, too."""


@dataclass(frozen=True)
class Quit(TimedEvent):
    """The conversation is to end."""


Event: TypeAlias = (
    VoiceWindow
    | ReplyStarted
    | ReplyAudio
    | ReplyFinished
    | Played
    | PlaybackStopped
    | TypedLine
    | Picture
    | InterruptKey
    | DeviceLost
    | DeviceReturned
    | Tick
    | Quit
)
