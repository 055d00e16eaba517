"""What a conversation remembers: its turns, where it stood before each, and the reply that is being given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sottovoce.runtime.dialogue.context import Context, Mark
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
    """Where the conversation stood: the end in the context, ids that must come before the next turn, the history."""

    end: Mark
    unfed: tuple[int, ...]
    history: tuple[Turn, ...]


@dataclass
class OngoingReply:
    """A reply being given, or the last one that was given."""

    epoch: int
    text: ReplyText
    start: Mark | None = None
    """Where in the context its first token is; None until the question was heard."""
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


def settled(reply: OngoingReply, start: int, context: Context) -> tuple[Place, str]:
    """Cut the context to what was heard of `reply`, which began at `start`: where it stands then, and the text."""
    kept = reply.text.tokens_within(len(reply.heard()))
    text = reply.text.text[: reply.text.ends[kept - 1]] if kept else ""
    if kept == len(reply.text.tokens):
        text = reply.text.text
    fed = min(kept, context.length - start)
    context.rewind(start + fed)
    history = (*reply.history, Turn("assistant", text))
    return Place(context.mark(), tuple(reply.text.tokens[fed:kept]), history), text
