"""What can be seen of a conversation from outside: for a display, and for whoever keeps the captured samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sottovoce.runtime.duplex.events import Device
from sottovoce.runtime.duplex.listening import Listening
from sottovoce.runtime.duplex.replying import Replying

State = Literal["idle", "listening", "pausing", "thinking", "speaking", "stopping", "closed"]
"""Nothing; the user's turn; a pause in it; a reply being computed; being heard; being cancelled; after `Close`."""


@dataclass(frozen=True)
class DuplexView:
    """One moment of a `Duplex`.

    Args:
        state: what is going on; the user's turn comes before the reply's.
        position: end of the last window of the capture stream.
        needed_from: the oldest captured sample that `Hear` may still ask for; older ones need not be kept.
        turn_start: the first sample of the user's turn, while there is one.
        epoch: the reply that is prepared or given.
        has_started: its question was understood.
        played_samples: how much of it was played, as far as the speaker has told.
        is_ducked: it is played softly.
        is_deaf: the microphone is ignored (`half_duplex`), since the reply sounds or just did.
        pictures: those that wait for the next turn.
        waiting_lines: typed lines that were not asked yet.
        lost_devices: what was unplugged and has not returned.
    """

    state: State
    position: int
    needed_from: int
    turn_start: int | None
    epoch: int | None
    has_started: bool
    played_samples: int
    is_ducked: bool
    is_deaf: bool
    pictures: tuple[str, ...]
    waiting_lines: tuple[str, ...]
    lost_devices: tuple[Device, ...]


def look(
    listening: Listening, replying: Replying, pictures: tuple[str, ...], lines: tuple[str, ...], *, is_deaf: bool
) -> DuplexView:
    """What both sides are at now, with the pictures and lines that wait."""
    lost: list[Device] = [] if listening.present else ["microphone"]
    lost += [] if replying.has_speaker else ["speaker"]
    current = replying.current
    return DuplexView(
        state=_state(listening, replying, bool(lines)),
        position=listening.position,
        needed_from=listening.needed_from,
        turn_start=listening.turn.start if listening.turn is not None else None,
        epoch=current.epoch if current is not None else None,
        has_started=current is not None and current.has_started,
        played_samples=current.played if current is not None else 0,
        is_ducked=current is not None and current.is_ducked,
        is_deaf=is_deaf,
        pictures=pictures,
        waiting_lines=lines,
        lost_devices=tuple(lost),
    )


def _state(listening: Listening, replying: Replying, has_lines: bool) -> State:
    reply = replying.given
    if reply is not None and reply.is_stopping:
        return "stopping"
    if listening.turn is not None:
        return "pausing" if listening.is_paused else "listening"
    if reply is not None:
        return "speaking" if reply.given else "thinking"
    return "idle" if replying.can_begin and not has_lines else "stopping"
