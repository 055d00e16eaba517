"""A set of conversations with the replies they should get: `set.jsonl` in a folder, beside its recordings and pictures.

One JSON object a line: `task`, `reply`, `state`, and any of `text`, `audio`, `images`, `video`, `history`, `voice`.
Paths are relative to the folder and stay inside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.records import read_record

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
    """One earlier turn, as text."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True)
class EvaluationItem:
    """One turn to be answered, and what is right."""

    task: str
    reply: str
    state: Literal["☞", "☟", "☜"] | None = None
    text: str | None = None
    audio: str | None = None
    images: tuple[str, ...] = ()
    video: str | None = None
    history: tuple[HistoryTurn, ...] = ()
    voice: str | None = None

    @property
    def measure(self) -> Measure:
        """How a reply to this item is judged."""
        return TASKS[self.task]


def read_evaluation_set(folder: Path) -> list[EvaluationItem]:
    """Read and check the whole set before anything is run.

    Raises:
        InputError: no set, an empty line, an unknown key or task, a file that is missing or outside the folder: with
            the line's number.
    """
    listing = folder / SET_FILE
    if not listing.is_file():
        raise InputError(
            f"there is no {SET_FILE} in this folder", file=folder, fix="give a folder made by `data --held-out`"
        )
    items: list[EvaluationItem] = []
    with listing.open("rb") as lines:
        while line := lines.readline(MAX_LINE_BYTES + 1):
            items.append(_read_line(line, f"{listing}:{len(items) + 1}", folder.resolve()))
            if len(items) > MAX_ITEMS:
                raise InputError(f"more than {MAX_ITEMS} lines", file=listing, fix="split the set")
    if not items:
        raise InputError("the set is empty", file=listing, fix="write at least one line")
    return items


def _read_line(line: bytes, where: str, folder: Path) -> EvaluationItem:
    if len(line) > MAX_LINE_BYTES:
        raise InputError(f"a line of more than {MAX_LINE_BYTES} bytes", file=where)
    if not line.strip():
        raise InputError("an empty line", file=where, fix="remove it")
    try:
        data = json.loads(line)
    except ValueError as problem:
        raise InputError(f"not a JSON object: {problem}", file=where) from problem
    item = read_record(EvaluationItem, data, source=where)
    if item.task not in TASKS:
        raise InputError(f"unknown task {item.task!r}", file=where, fix=f"use one of: {', '.join(TASKS)}")
    for path in (item.audio, item.video, *item.images):
        if path is not None:
            _check_file(path, where, folder)
    if item.text is None and item.audio is None and item.video is None and not item.images:
        raise InputError("nothing is asked: no text, audio, images or video", file=where)
    return item


def _check_file(path: str, where: str, folder: Path) -> None:
    resolved = (folder / path).resolve()
    if not resolved.is_relative_to(folder):
        raise InputError(f"{path!r} leaves the folder of the set", file=where, fix="use paths inside it")
    if not resolved.is_file():
        raise InputError(f"{path!r} is missing", file=where, fix="put the file there, or make the set again")
