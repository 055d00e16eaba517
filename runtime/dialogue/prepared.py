"""A reply begun at a pause that may be the end of speech, and how to undo it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from sottovoce.runtime.dialogue.listening import Listening, ListeningSnapshot
from sottovoce.runtime.dialogue.turns import Place
from sottovoce.runtime.reply import AudioChunk, ReplyDone, ReplyEvent


@dataclass
class PreparedReply:
    """Its first events, up to the first sound, kept back.

    Args:
        listening: the turn it answers.
        snapshot: of the turn, before it was taken as complete.
        place: where the conversation stood.
        samplers: the states of the text's and the speech's random numbers.
    """

    listening: Listening
    snapshot: ListeningSnapshot
    place: Place
    samplers: tuple[Any, Any]
    _kept: list[ReplyEvent] = field(default_factory=list)
    _rest: Generator[ReplyEvent, None, None] | None = None
    _ready: float = 0.0

    def take_first(self, events: Generator[ReplyEvent, None, None]) -> None:
        """Compute until there is something to hear, or the reply is over."""
        self._rest = events
        for event in events:
            self._kept.append(event)
            if isinstance(event, (AudioChunk, ReplyDone)):
                break
        self._ready = time.perf_counter()

    def events(self) -> Iterator[ReplyEvent]:
        """Speech has ended: all events. Their end tells for how many milliseconds the first ones lay ready."""
        waited = 1000 * (time.perf_counter() - self._ready)
        yield from (_told(event, waited) for event in self._kept)
        if self._rest is not None:
            yield from (_told(event, waited) for event in self._rest)

    def close(self) -> None:
        """Nobody will hear it."""
        if self._rest is not None:
            self._rest.close()


def _told(event: ReplyEvent, waited: float) -> ReplyEvent:
    if isinstance(event, ReplyDone):
        return replace(event, timings={**event.timings, "prepared": waited})
    return event
