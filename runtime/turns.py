"""What a conversation remembers: its turns, where it stood before each, and the reply that is being given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sottovoce.runtime.reply import ReplyText
from sottovoce.runtime.speech.speaker import Speaker


@dataclass(frozen=True)
class Turn:
    """One entry of the history. `text` is what was typed, or what was heard of a reply."""

    role: Literal["user", "assistant"]
    text: str
    audio: bool = False
    tiles: int = 0


@dataclass(frozen=True)
class Place:
    """Where the conversation stood: positions in the cache, ids that must come before the next turn, the history."""

    length: int
    unfed: tuple[int, ...]
    history: tuple[Turn, ...]


@dataclass
class OngoingReply:
    """A reply being given, or the last one that was given."""

    epoch: int
    text: ReplyText
    start: int | None = None
    """Where in the cache its first token is; None until the question was heard."""
    history: tuple[Turn, ...] = ()
    """Up to the question it answers."""
    speaker: Speaker | None = None
    cancelled: bool = False
    played_samples: int | None = None

    def heard(self) -> str:
        """What of the text was heard: all of it, unless it was cancelled while it was spoken."""
        if self.speaker is None or self.played_samples is None:
            return self.text.text
        return self.speaker.spoken.heard(self.text.text, self.played_samples)
