"""One conversation on its way into a set: a line of `set.jsonl` that grows with every turn."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sottovoce.runtime.conversation_options import ConversationOptions
from sottovoce.runtime.conversation_set.capture_folder import CaptureFolder
from sottovoce.runtime.conversation_set.item import (
    MAX_LINE_BYTES,
    SET_FILE,
    CapturedReply,
    EvaluationItem,
    HistoryTurn,
    format_item,
    parse_item,
)
from sottovoce.runtime.conversation_set.question_files import NotCaptured, QuestionFiles, QuestionWriter
from sottovoce.runtime.question import Question
from sottovoce.runtime.reply import ReplyDone

Asked = tuple[Question, ReplyDone]


class CapturedConversation:
    """Tell it of every turn, and the folder's set can hold the conversation again.

        captured = CapturedConversation(CaptureFolder.open("captured", assistant.bundle), conversation.options)
        for event in conversation.ask("What is the time?"):
            if isinstance(event, ReplyDone):
                captured.add(conversation.question, event)

    A conversation is one line of the set: its last question with the reply to it, the turns before as history. The
    line is on the disk after every turn, and replaced by a longer one after the next.

    A reply that was given whole and then cut while it was played stays what the question is measured by; the turns
    that follow were said after what was heard of it: tell `cut` of that.

    A reply that was cancelled is not one to measure others by: its question is held back and becomes history with the
    next turn. What the model took as not meant for it leaves the conversation as it was, so it is a line of its own.

    Args:
        folder: where to.
        options: of the conversation.
    """

    def __init__(self, folder: CaptureFolder, options: ConversationOptions) -> None:
        self._folder = folder
        self._options = options
        self._name = secrets.token_hex(8)
        self._written_turns = 0
        self._history: tuple[HistoryTurn, ...] = ()
        self._held_back: tuple[Asked, ...] = ()
        self._line: bytes | None = None
        self._gap: str | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether the same bundle would reply the same to the same question: nothing is drawn or punished."""
        sampling = self._options.text_sampling
        return sampling.is_greedy and sampling.repetition_penalty == 1.0

    def add(self, question: Question, done: ReplyDone) -> str | None:
        """Write a turn: all of it, or nothing.

        Args:
            question: as it was asked; files that it names are read again, and samples are taken as they are.
            done: the end of the reply.

        Returns:
            None if the turn is in the set now; else a sentence that says why it is not. After that nothing of this
            conversation can be added, since a turn would be missing before it.

        Raises:
            InputError: a file of the question cannot be read any more.
            SottovoceError: the disk is full or not writable; names the file. The set is as it was.
        """
        if self._gap is not None:
            return self._gap
        if done.reason == "cancelled":
            self._held_back += ((question, done),)
            return "the reply was cancelled; its question is captured with the next one"
        joins = done.reason != "not_addressed"
        if joins:
            self._gap = "an earlier turn of this conversation could not be captured"
        try:
            self._write(question, done, joins)
        except NotCaptured as bound:
            if joins:
                self._gap = str(bound)
            return str(bound)
        self._gap = None
        return None

    def cut(self, heard: str) -> None:
        """Of the last reply only `heard` is in the history of the turns that follow; without a reply, nothing is."""
        if self._held_back:
            question, done = self._held_back[-1]
            self._held_back = (*self._held_back[:-1], (question, replace(done, text=heard)))
        elif self._history:
            self._history = (*self._history[:-1], HistoryTurn("assistant", heard))

    def _write(self, question: Question, done: ReplyDone, joins: bool) -> None:
        if self._line is None or not joins:
            self._folder.check_room()
        history = self._history
        with self._folder.unfinished() as folder:
            for held_question, held_done in self._held_back:
                history += _turns(held_question, self._write_files(held_question, folder), held_done.text)
            files = self._write_files(question, folder)
            line = self._line_of(question, files, done, history)
            self._folder.put(line, folder, self._line if joins else None)
        if joins:
            self._line, self._held_back = line, ()
            self._history = history + _turns(question, files, done.text)

    def _write_files(self, question: Question, folder: Path) -> QuestionFiles:
        self._written_turns += 1
        writer = QuestionWriter(folder, self._folder.front_end, self._folder.limits)
        return writer.write(question, f"{self._name}-{self._written_turns}")

    def _line_of(
        self, question: Question, files: QuestionFiles, done: ReplyDone, history: tuple[HistoryTurn, ...]
    ) -> bytes:
        """The set's line, accepted by the set's own reader before anyone else meets it."""
        item = EvaluationItem(
            task=task_of(question, done, is_follow_up=bool(history)),
            reply=done.text.strip(),  # `evaluate` compares without the space around it
            state=cast("Any", done.state),  # any string here; the reader holds it against the states that sets know
            text=question.text or None,
            audio=files.audio,
            images=files.images,
            video=files.video,
            history=history,
            system=self._options.system,
            captured=CapturedReply(self.is_repeatable, self._options.max_new_tokens),
        )
        line = format_item(item)
        if len(line) > MAX_LINE_BYTES:
            raise NotCaptured(f"the conversation is longer than the {MAX_LINE_BYTES:,} bytes of a line of {SET_FILE}")
        parse_item(line, str(self._folder.path / SET_FILE))
        return line


def task_of(question: Question, done: ReplyDone, *, is_follow_up: bool) -> str:
    """Which of the set's tasks a turn is, by what was said and shown in it."""
    if done.reason == "not_addressed":
        return "not_addressed"
    if question.video is not None:
        return "clip_question"
    if len(question.images):
        if question.audio is not None:
            return "spoken_picture_question"
        return "picture_question" if question.text else "picture_caption"
    if is_follow_up:
        return "follow_up"
    return "typed_question" if question.audio is None else "spoken_question"


def _turns(question: Question, files: QuestionFiles, reply: str) -> tuple[HistoryTurn, HistoryTurn]:
    asked = HistoryTurn("user", question.text or "", files.audio, files.images, files.video)
    return asked, HistoryTurn("assistant", reply)
