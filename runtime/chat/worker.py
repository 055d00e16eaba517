"""The conversation in a thread of its own: it carries out what turn taking asks for, and tells what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.chat.pictures import unseen
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.duplex.events import CAPTURE_RATE
from sottovoce.runtime.errors import BackendError, SottovoceError
from sottovoce.runtime.question import Question
from sottovoce.runtime.reply import ReplyDone, ReplyEvent
from sottovoce.runtime.steady_memory import trim_freed_memory

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Made:
    """An event of the reply `epoch`; `made_at` is of `time.perf_counter`, whatever clock the conversation goes by."""

    epoch: int
    event: ReplyEvent
    made_at: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class Ended:
    """Nothing more comes of the reply `epoch`; `error` if it failed."""

    epoch: int
    reason: str
    error: SottovoceError | None = None


@dataclass(frozen=True)
class Cut:
    """The reply `epoch` was cancelled: `text` is what the history keeps of it."""

    epoch: int
    text: str


@dataclass(frozen=True)
class Trouble:
    """Something outside of a reply failed: what was heard could not be taken, a picture could not be read."""

    error: SottovoceError


@dataclass(frozen=True)
class Uncaptured:
    """Turns are to be captured, and this one, and perhaps those behind it, could not be: `reason` is a sentence."""

    reason: str


Message = Made | Ended | Cut | Trouble | Uncaptured


class TurnCapture(Protocol):
    """Who writes turns down; nothing is written unless there is one."""

    def add(self, question: Question, done: ReplyDone) -> str | None:
        """A turn whose reply has ended; returns why it is not written, if it is not."""

    def cut(self, heard: str) -> None:
        """Of the last reply only this was heard."""


class ConversationWorker:
    """Does one thing after the other, as told; only a reply that is being given can be interrupted.

    Epochs are those of turn taking. Every reply that was asked for has one `Ended`, also when it was withdrawn.

    Args:
        conversation: used by this thread alone from now on, until `close`.
        capture: is told of every turn.
    """

    def __init__(self, conversation: Conversation, capture: TurnCapture | None = None) -> None:
        self._conversation, self._capture = conversation, capture
        self._uncaptured: str | None = None
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._lock = threading.Lock()
        self._busy = 0
        self._idle = threading.Condition(self._lock)
        self._giving: int | None = None
        self._kept: int | None = None  # the reply that the history ends with
        self._closing = False
        self._unwanted: dict[int, int | None] = {}
        self._shown: list[Path] = []
        self._failed: dict[int, SottovoceError] = {}
        self._thread = threading.Thread(target=self._run, name="conversation")
        self._thread.start()

    def hear(self, samples: Samples) -> None:
        """Captured speech (n,) at 16 kHz."""
        self._do(partial(self._hear, samples))

    def prepare(self, epoch: int, pictures: Sequence[Path]) -> None:
        """Begin the reply silently."""
        self._do(partial(self._prepare, epoch, pictures))

    def withdraw(self, epoch: int) -> None:
        """The prepared reply is not wanted; the turn goes on."""
        self._interrupt(epoch, None)
        self._do(partial(self._withdraw, epoch))

    def end_of_speech(self, epoch: int, pictures: Sequence[Path]) -> None:
        """The turn is over: give the reply."""
        self._do(partial(self._end_of_speech, epoch, pictures))

    def ask(self, epoch: int, text: str, pictures: Sequence[Path]) -> None:
        """Give the reply to a typed line."""
        self._do(partial(self._ask, epoch, text, pictures))

    def cancel(self, epoch: int, played_samples: int | None) -> None:
        """End a reply; of it, only what was played is kept."""
        self._interrupt(epoch, played_samples)
        self._do(partial(self._cancel, epoch, played_samples))

    def discard(self) -> None:
        """Forget what was heard of a turn that nobody answers; what was shown with it is shown again with the next."""
        self._do(self._discard)

    def messages(self) -> Iterator[Message]:
        """What came of it since the last call; never waits."""
        while True:
            try:
                yield self._messages.get_nowait()
            except Empty:
                return

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until all that was asked for is done, or so much time went by; returns whether it is done."""
        with self._idle:
            return self._idle.wait_for(lambda: self._busy == 0, timeout_s)

    def close(self) -> None:
        """Interrupt what is going on, drop what waits, and end the thread; again is harmless."""
        if self._thread.is_alive():
            with self._lock:
                self._closing = True
                if self._giving is not None:
                    self._conversation.interrupt()
            self._tasks.put(None)
            self._thread.join()

    def _do(self, task: Callable[[], None]) -> None:
        with self._lock:
            self._busy += 1
        self._tasks.put(task)

    def _interrupt(self, epoch: int, played_samples: int | None) -> None:
        with self._lock:
            self._unwanted[epoch] = played_samples
            if self._giving == epoch:
                self._conversation.interrupt(played_samples)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                if not self._closing:
                    task()
            except SottovoceError as problem:
                self._messages.put(Trouble(problem))
            except Exception as problem:  # noqa: BLE001  # a dead thread would be silence without a reason
                self._messages.put(Trouble(_unexpected(problem)))
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    # In the thread.

    def _hear(self, samples: Samples) -> None:
        self._conversation.accept_waveform(samples, CAPTURE_RATE)

    def _discard(self) -> None:
        self._shown.clear()
        self._conversation.discard_speech()

    def _prepare(self, epoch: int, pictures: Sequence[Path]) -> None:
        """What fails here is told when the reply is wanted."""
        if epoch in self._unwanted:
            return
        try:
            self._show(pictures)
            with self._giving_epoch(epoch):
                self._conversation.prepare()
        except SottovoceError as problem:
            self._failed[epoch] = problem

    def _withdraw(self, epoch: int) -> None:
        self._conversation.withdraw()
        self._unwanted.pop(epoch, None)
        self._failed.pop(epoch, None)
        self._end(epoch, "cancelled")

    def _end_of_speech(self, epoch: int, pictures: Sequence[Path]) -> None:
        failed = self._failed.pop(epoch, None)
        if failed is not None:
            self._conversation.discard_speech()
            self._shown.clear()
            self._end(epoch, "error", failed)
            return
        self._give(epoch, lambda: self._show_and_end(pictures))

    def _show_and_end(self, pictures: Sequence[Path]) -> Iterator[ReplyEvent]:
        self._show(pictures)
        self._shown.clear()
        return self._conversation.end_of_speech()

    def _ask(self, epoch: int, text: str, pictures: Sequence[Path]) -> None:
        self._give(epoch, lambda: self._conversation.ask(text, images=pictures))

    def _give(self, epoch: int, begin: Callable[[], Iterator[ReplyEvent]]) -> None:
        reason, error, done = "error", None, None
        try:
            with self._giving_epoch(epoch):
                events = begin()
                self._interrupt_unwanted(epoch)
                for event in events:
                    self._messages.put(Made(epoch, event))
                    if isinstance(event, ReplyDone):
                        reason, done = event.reason, event
        except SottovoceError as problem:
            error = problem
        except Exception as problem:  # noqa: BLE001  # whoever waits for this reply must be told of its end
            error = _unexpected(problem)
        self._kept = epoch if error is None and reason != "not_addressed" else None
        self._end(epoch, reason, error)
        if error is None and not self._closing:
            # Nobody waits now: the reply is being played.
            self._conversation.make_room()
            if self._capture is not None and done is not None:
                self._write_down(self._capture, done)
            trim_freed_memory()

    @contextmanager
    def _giving_epoch(self, epoch: int) -> Iterator[None]:
        """While a reply is being computed, it can be interrupted."""
        with self._lock:
            self._giving = epoch
        try:
            yield
        finally:
            with self._lock:
                self._giving = None

    def _interrupt_unwanted(self, epoch: int) -> None:
        """What was asked for before there was a reply to interrupt."""
        with self._lock:
            if epoch in self._unwanted or self._closing:
                self._conversation.interrupt(self._unwanted.get(epoch))

    def _cancel(self, epoch: int, played_samples: int | None) -> None:
        """The history keeps what was played, however far the reply had come when it was interrupted."""
        self._unwanted.pop(epoch, None)
        if self._kept != epoch:  # it failed, or was not meant for us: nothing of it is in the history
            return
        self._conversation.cancel(played_samples)
        heard = self._conversation.history[-1].text
        if self._capture is not None:
            self._capture.cut(heard)
        self._messages.put(Cut(epoch, heard))

    def _write_down(self, capture: TurnCapture, done: ReplyDone) -> None:
        """A cancelled reply is captured as history, with the next turn; anything else that is missing is told, once."""
        reason = capture.add(self._conversation.question, done)
        if reason is not None and done.reason != "cancelled" and reason != self._uncaptured:
            self._uncaptured = reason
            self._messages.put(Uncaptured(reason))

    def _end(self, epoch: int, reason: str, error: SottovoceError | None = None) -> None:
        self._messages.put(Ended(epoch, reason, error))

    def _show(self, pictures: Sequence[Path]) -> None:
        """Those that are new in this turn."""
        new = unseen(pictures, self._shown)
        if new:
            self._shown += new
            self._conversation.show(new)


def _unexpected(problem: Exception) -> SottovoceError:
    message = f"unexpected {type(problem).__name__}: {problem}"
    return BackendError(message, fix="report it, with what was said before")
