"""What is to be done: everything that `Duplex` asks for, to be carried out in the order given.

Ranges are [start, end). Those of the capture stream are at 16 kHz; those of a reply at the rate it is played at.

| action | meaning |
| --- | --- |
| Hear | hand these captured samples to the conversation now; each at most once, in order, without gaps within a turn |
| Prepare | the user may have finished: the reply to what was heard may be begun, silently |
| Withdraw | the user goes on: the silent reply leaves no trace, what was heard stays, and the turn goes on |
| EndOfSpeech | the turn is over: begin its reply, or, if it was prepared under the same epoch, go on with it |
| Ask | begin the reply to a typed line |
| Play | give these samples of the reply to the speaker; of a reply that was stopped, none are asked for any more |
| Duck, Unduck | play this reply softly, and as before again |
| StopPlayback | silence, now; the speaker answers with `PlaybackStopped` |
| CancelReply | end the reply; of it, only what was played is kept |
| ReplyOver | the reply was given, all that there was of it was played |
| Discard | these captured samples belong to no turn; what of them was handed over is to be forgotten |
| Close | everything has ended, after `Quit` |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sottovoce.runtime.duplex.events import FinishReason
from sottovoce.runtime.duplex.numbers import check_numbers

EndReason = Literal["pause", "too_long", "typed", "device_lost"]
"""Why a turn ended: silence; the longest turn there may be; a line was typed; the microphone is gone."""

DiscardReason = Literal["too_short", "too_long", "interrupt_key", "quit"]
"""Too short to stop a reply; said after the turn was cut, without a pause; the user stopped it; the end."""


@dataclass(frozen=True)
class CheckedAction:
    """What every action has.

    Raises:
        RecordError: a number that is negative.
    """

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True)
class Hear(CheckedAction):
    """Captured samples of the user's turn."""

    start: int
    end: int


@dataclass(frozen=True)
class Prepare(CheckedAction):
    """A first short pause. `pictures` are those shown so far."""

    epoch: int
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Withdraw(CheckedAction):
    """The reply of `epoch` was prepared in vain. Its `ReplyFinished` is awaited before another is begun."""

    epoch: int


@dataclass(frozen=True)
class EndOfSpeech(CheckedAction):
    """The turn was [start, end) of the capture stream, all of it heard by now."""

    epoch: int
    start: int
    end: int
    reason: EndReason
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ask(CheckedAction):
    """A typed turn."""

    epoch: int
    text: str
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Play(CheckedAction):
    """Samples of the reply."""

    epoch: int
    start: int
    end: int


@dataclass(frozen=True)
class Duck(CheckedAction):
    """Somebody speaks over this reply; whether it is to stop shows in a moment."""

    epoch: int


@dataclass(frozen=True)
class Unduck(CheckedAction):
    """It was nothing. Not sent for a reply that ended or was stopped: only its own volume was lowered."""

    epoch: int


@dataclass(frozen=True)
class StopPlayback(CheckedAction):
    """The user takes the turn."""

    epoch: int


@dataclass(frozen=True)
class CancelReply(CheckedAction):
    """`played_samples` of the reply were really played; None: there was no speaker, all that was shown counts.

    Its `ReplyFinished` is awaited before another reply is begun.
    """

    epoch: int
    played_samples: int | None


@dataclass(frozen=True)
class ReplyOver(CheckedAction):
    """Computed and played to its end."""

    epoch: int
    reason: FinishReason
    played_samples: int


@dataclass(frozen=True)
class Discard(CheckedAction):
    """Captured samples that nobody answers."""

    start: int
    end: int
    reason: DiscardReason


@dataclass(frozen=True)
class Close(CheckedAction):
    """Nothing comes after it."""


Action: TypeAlias = (
    Hear
    | Prepare
    | Withdraw
    | EndOfSpeech
    | Ask
    | Play
    | Duck
    | Unduck
    | StopPlayback
    | CancelReply
    | ReplyOver
    | Discard
    | Close
)
