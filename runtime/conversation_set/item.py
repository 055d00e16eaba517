"""One line of `set.jsonl`: a conversation to be held again, and the reply that is right at its end.

A set is a folder with `set.jsonl`, one JSON object a line, beside its recordings, pictures and clips. Paths are
relative to the folder and stay inside it. `sottovoce evaluate` reads sets, `--capture` writes them: this is the format
of both.

| key | meaning |
| --- | --- |
| task | what kind of question it is; says how a reply is judged |
| reply, state | the right reply, and the state token before it |
| text, audio, images, video | the question, any of them |
| history | earlier turns of the same conversation, oldest first |
| system | the conversation's system text; without it, the bundle's own |
| voice | who speaks, for people |
| captured | how the reply was given, if a bundle gave it |
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.records import read_record, write_record

SET_FILE = "set.jsonl"
MAX_LINE_BYTES = 1 << 20
MAX_ITEMS = 1_000_000

Measure = Literal["exact", "word_error_rate", "ignored"]
"""exact: every character of the reply; word_error_rate: edits a word; ignored: the model said it was not meant."""

TASKS: dict[str, Measure] = {
    "spoken_question": "exact",
    "spoken_question_new_synthesizer": "exact",
    "typed_question": "exact",
    "follow_up": "exact",
    "say_after_me": "word_error_rate",
    "picture_caption": "exact",
    "picture_question": "exact",
    "spoken_picture_question": "exact",
    "clip_question": "exact",
    "not_addressed": "ignored",
}


@dataclass(frozen=True)
class HistoryTurn:
    """One earlier turn: a user's as it was asked, or the assistant's text, which is for people only.

    A follow-up meets the bundle's own replies to the earlier questions, not these.
    """

    role: Literal["user", "assistant"]
    text: str
    audio: str | None = None
    images: tuple[str, ...] = ()
    video: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """What lies beside the set for this turn."""
        return tuple(path for path in (self.audio, *self.images, self.video) if path is not None)


@dataclass(frozen=True)
class CapturedReply:
    """How a bundle gave the reply, so that it can be asked to give it again.

    Args:
        greedy: nothing was drawn and no repetition was punished: the same bundle replies the same again.
        max_new_tokens: where a reply was cut off, in tokens.
    """

    greedy: bool
    max_new_tokens: int


@dataclass(frozen=True)
class EvaluationItem:
    """One turn to be answered, what came before it, and what is right."""

    task: str
    reply: str
    state: Literal["☞", "☟", "☜"] | None = None
    text: str | None = None
    audio: str | None = None
    images: tuple[str, ...] = ()
    video: str | None = None
    history: tuple[HistoryTurn, ...] = ()
    voice: str | None = None
    system: str | None = None
    captured: CapturedReply | None = None

    @property
    def measure(self) -> Measure:
        """How a reply to this item is judged."""
        return TASKS[self.task]

    @property
    def files(self) -> tuple[str, ...]:
        """All that lies beside the set for this item, its history included."""
        own = (path for path in (self.audio, *self.images, self.video) if path is not None)
        return (*(path for turn in self.history for path in turn.files), *own)


def parse_item(line: bytes, source: str) -> EvaluationItem:
    """Read one line; whether its files are there is for the reader of the folder to see.

    Args:
        line: with or without the end of the line.
        source: file and line number, for messages.

    Raises:
        InputError: too long, empty, not JSON, an unknown task, or nothing is asked in one of its turns.
        RecordError: an unknown key, a missing one, or a value of another type.
    """
    if len(line) > MAX_LINE_BYTES:
        raise InputError(f"a line of more than {MAX_LINE_BYTES} bytes", file=source, fix="split the conversation")
    if not line.strip():
        raise InputError("an empty line", file=source, fix="remove it")
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise InputError(f"not a JSON object: {problem}", file=source) from problem
    item = read_record(EvaluationItem, data, source=source)
    if item.task not in TASKS:
        raise InputError(f"unknown task {item.task!r}", file=source, fix=f"use one of: {', '.join(TASKS)}")
    if item.text is None and not _files_of_question(item):
        raise InputError("nothing is asked: no text, audio, images or video", file=source)
    for turn in item.history:
        _check_turn(turn, source)
    if item.captured is not None and item.captured.max_new_tokens < 1:
        found = item.captured.max_new_tokens
        raise InputError(f"captured.max_new_tokens is {found}, expected 1 or more", file=source)
    return item


def format_item(item: EvaluationItem) -> bytes:
    """The line of an item, its end included; what is as by default is left out (the inverse of `parse_item`)."""
    return json.dumps(write_record(item, defaults=False), ensure_ascii=False).encode() + b"\n"


def _files_of_question(item: EvaluationItem) -> bool:
    return item.audio is not None or item.video is not None or bool(item.images)


def _check_turn(turn: HistoryTurn, source: str) -> None:
    if turn.role == "assistant" and turn.files:
        raise InputError("an assistant's turn in the history has files, expected text alone", file=source)
    if turn.role == "user" and not turn.text and not turn.files:
        raise InputError("a user's turn in the history asks nothing", file=source, fix="give it text or a file")
