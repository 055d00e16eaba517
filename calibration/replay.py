"""Hold a conversation of a set again: its history, its system text, its limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sottovoce.calibration.streamed_asking import ask_streamed, can_be_streamed
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.conversation_set.item import EvaluationItem, HistoryTurn
from sottovoce.runtime.reply import ReplyDone, ReplyEvent

MAX_NEW_TOKENS = 256
"""A reply that runs on is wrong anyway; this keeps a broken model from taking all day."""
Turn = EvaluationItem | HistoryTurn


def replay(
    assistant: Assistant, item: EvaluationItem, folder: Path, *, speech: bool, streamed: bool = False
) -> ReplyDone:
    """Ask all that an item's user asked, and return the end of the last reply: see `replay_turns`."""
    return replay_turns(assistant, item, folder, speech=speech, streamed=streamed)[-1]


def replay_turns(
    assistant: Assistant, item: EvaluationItem, folder: Path, *, speech: bool, streamed: bool = False
) -> list[ReplyDone]:
    """Ask all that an item's user asked, and return the ends of the replies; they are greedy.

    The earlier turns are asked in the same conversation, so that the bundle's own replies (and its KV cache) are what
    a follow-up meets. A captured reply is asked for under its own limit of tokens: where it was cut off, it is cut off
    again.

    Args:
        assistant: the bundle.
        item: the conversation.
        folder: of the set.
        speech: compute the spoken replies, too.
        streamed: recordings are heard while they go on, and begun to be answered in their pauses, as `chat` does.

    Raises:
        InputError: a recording, picture or clip that cannot be read.
        BackendError: streamed, and nothing is installed that tells speech from silence.
    """
    limit = MAX_NEW_TOKENS if item.captured is None else item.captured.max_new_tokens
    conversation = assistant.conversation(item.system, greedy=True, speech=speech, max_new_tokens=limit)
    turns: list[Turn] = [turn for turn in item.history if turn.role == "user"]
    longest = assistant.bundle.manifest.audio.max_seconds

    def ask(turn: Turn) -> ReplyDone:
        if streamed and can_be_streamed(turn):
            events = ask_streamed(conversation, turn, folder, longest)
        else:
            events = _ask(conversation, turn, folder)
        *_, done = events
        assert isinstance(done, ReplyDone)  # noqa: S101  # a reply's stream always ends so
        return done

    return [ask(turn) for turn in (*turns, item)]


def _ask(conversation: Conversation, turn: Turn, folder: Path) -> Iterator[ReplyEvent]:
    return conversation.ask(
        turn.text,
        folder / turn.audio if turn.audio else None,
        [folder / image for image in turn.images],
        folder / turn.video if turn.video else None,
    )
