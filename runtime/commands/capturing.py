"""`--capture DIR` of a command that converses: says that it is on, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.conversation_set.capture_folder import CaptureFolder
from sottovoce.runtime.conversation_set.captured_conversation import CapturedConversation
from sottovoce.runtime.conversation_set.question_files import CaptureLimits
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.reply import ReplyDone


class Capturing:
    """The folder of one command, opened before anything is computed, and the conversation that is held.

    Args:
        path: the folder.
        maximum: conversations that it may hold; None for the default.
        bundle: the one that replies.
        console: where people read that they are recorded.

    Raises:
        InputError: the folder holds something else, or captures of another bundle, model or format.
        SottovoceError: it cannot be written to.
    """

    def __init__(self, path: Path, maximum: int | None, bundle: Bundle, console: Console) -> None:
        limits = CaptureLimits() if maximum is None else CaptureLimits(conversations=maximum)
        self._console = console
        self._folder = CaptureFolder.open(path, bundle, limits)
        self._conversation: Conversation | None = None
        self._captured: CapturedConversation | None = None
        usage = self._folder.usage()
        filled = f"{usage.conversations:,} of {limits.conversations:,} conversations, {usage.bytes / 1e6:,.1f} MB"
        console.say(f"capture   on: what is said and shown is written to {path} ({filled})")

    def begin(self, conversation: Conversation) -> CapturedConversation:
        """Capture the turns of `conversation` from now on; it has had none. Returns who is told of them."""
        self._conversation = conversation
        self._captured = CapturedConversation(self._folder, conversation.options)
        if not self._captured.is_repeatable:
            self._console.say("capture   replies are drawn: `evaluate` will not get all of them again (see --greedy)")
        return self._captured

    def add(self, done: ReplyDone) -> dict[str, Any]:
        """Write the turn that `done` ended; returns what `--json` says of it.

        Raises:
            SottovoceError: the disk is full or not writable, or a file of the question cannot be read any more.
        """
        if self._conversation is None or self._captured is None:
            raise InputError("no conversation is being captured", fix="begin() one first")
        reason = self._captured.add(self._conversation.question, done)
        if reason is not None:
            self._console.warn(f"not captured: {reason}")
        return {"folder": str(self._folder.path), "written": reason is None, "reason": reason}
