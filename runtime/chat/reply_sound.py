"""The sound of replies between the model, which makes it, and the speaker, which plays it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.devices.interface import PlaybackDevice

Samples = npt.NDArray[np.float32]
AHEAD_SECONDS = 10.0
"""So much may wait in the speaker; the rest waits here, since a full speaker makes whoever writes to it wait."""
SPEAKER_SECONDS = 15.0
"""Room to give the speaker: more would only be memory that fills up as the conversation goes on."""
STOP_SETTLES_SECONDS = 0.04
"""Two output buffers: how much was played of a stopped reply is known then."""


@dataclass
class _Reply:
    """What there is of one reply.

    Args:
        made: samples, as they came.
        total: how many.
        asked: how many of them are to be played.
        waiting: those that the speaker was not given yet.
        has_ended: no more will be made.
        is_finished: the speaker knows.
    """

    made: list[Samples] = field(default_factory=list)
    total: int = 0
    asked: int = 0
    waiting: deque[Samples] = field(default_factory=deque)
    has_ended: bool = False
    is_finished: bool = False


class ReplySound:
    """Gives a speaker what is to be played, a little ahead, and knows what was.

    Args:
        speaker: plays.
        sample_rate: of the replies.
        clock: seconds.
    """

    def __init__(self, speaker: PlaybackDevice, sample_rate: int, clock: Callable[[], float]) -> None:
        self._speaker, self._clock = speaker, clock
        self._ahead = round(AHEAD_SECONDS * sample_rate)
        self._replies: dict[int, _Reply] = {}
        self._stopping: dict[int, float] = {}
        self._told: tuple[int, int] = (0, 0)

    def made(self, epoch: int, samples: Samples) -> None:
        """More samples (n,) of a reply."""
        reply = self._replies.setdefault(epoch, _Reply())
        reply.made.append(samples)
        reply.total += len(samples)

    def ended(self, epoch: int) -> None:
        """Nothing more is made of a reply."""
        if epoch in self._replies:
            self._replies[epoch].has_ended = True
            self.feed()

    def play(self, epoch: int, start: int, end: int) -> None:
        """The samples [start, end) are to be heard, behind those before them."""
        reply = self._replies[epoch]
        reply.waiting.append(np.concatenate(reply.made)[start:end])
        reply.asked = end
        self.feed()

    def stop(self, epoch: int) -> None:
        """Silence, at once."""
        self._speaker.stop(epoch)
        self._speaker.duck(False)
        self._stopping[epoch] = self._clock()
        self._replies[epoch].waiting.clear()

    def duck(self, quieter: bool) -> None:
        """Play softly, or as before."""
        self._speaker.duck(quieter)

    def forget(self, epoch: int) -> None:
        """Nobody asks for this reply any more."""
        self._replies.pop(epoch, None)
        self._stopping.pop(epoch, None)

    def feed(self) -> None:
        """Write as much as the speaker should hold."""
        for epoch, reply in self._replies.items():
            while reply.waiting and (room := self._ahead - self._speaker.ahead) > 0:
                piece = reply.waiting.popleft()
                self._speaker.write(epoch, piece[:room])
                if len(piece) > room:
                    reply.waiting.appendleft(piece[room:])
            if reply.has_ended and not reply.is_finished and not reply.waiting and reply.asked == reply.total:
                reply.is_finished = True
                self._speaker.finish(epoch)

    def played(self, epoch: int) -> int | None:
        """Samples of it that were heard, if that is more than was told by the last call; None for a stopped one."""
        reply = self._replies.get(epoch)
        if reply is None or epoch in self._stopping:
            return None
        told = self._told
        played = self._played(epoch, reply)
        return played if (epoch, played) != told else None

    def stopped(self) -> list[tuple[int, int]]:
        """Replies that fell silent, each told once, and what was heard of them."""
        due = [epoch for epoch, since in self._stopping.items() if self._clock() - since >= STOP_SETTLES_SECONDS]
        for epoch in due:
            del self._stopping[epoch]
        return [(epoch, self._played(epoch, self._replies[epoch])) for epoch in due]

    def _played(self, epoch: int, reply: _Reply) -> int:
        """Never more than was asked for, nor less than before."""
        before = self._told[1] if self._told[0] == epoch else 0
        played = max(before, min(self._speaker.played(epoch), reply.asked))
        self._told = (epoch, played)
        return played
