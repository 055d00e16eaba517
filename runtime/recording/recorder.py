"""Writes a conversation down while it is held, so that it can be held again: all that turn taking learned and wanted,
what the microphone heard, what was shown, and every reply.

Speech is private: nothing is written unless a `Recorder` was made, and then for the owner alone.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.duplex.actions import Action, Ask, EndOfSpeech
from sottovoce.runtime.duplex.events import Event, ReplyFinished
from sottovoce.runtime.errors import InputError, SottovoceError
from sottovoce.runtime.recording.growing_files import GrowingWav, LinesFile, line_of
from sottovoce.runtime.recording.lines import (
    EVENTS_FILE,
    MICROPHONE_FILE,
    NOTES_FILE,
    REPLIES_FILE,
    SESSION_FILE,
    Closed,
    Gap,
    Note,
    PictureFile,
    RecordedReply,
    Step,
    Stopped,
    write_note,
)
from sottovoce.runtime.recording.reply_log import ReplyLog
from sottovoce.runtime.recording.session import RecordedSession
from sottovoce.runtime.records import write_record
from sottovoce.runtime.reply import AudioChunk, ReplyDone, ReplyEvent

MAX_TOTAL_BYTES = 1 << 30
"""A microphone alone fills it in four hours and a quarter; replies come on top, at their own rate."""
MIN_TOTAL_BYTES = 64 << 10
LAST_WORDS_BYTES = 4 << 10
"""Kept free for the note that says why recording stopped."""
MAX_PICTURE_BYTES = 64 << 20
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
PRIVATE_FOLDER = 0o700
ANOTHER_FOLDER = "choose a new or empty folder"


def tell_on_stderr(reason: str) -> None:
    """A line for who has no better place for it."""
    print(f"recording stopped: {reason}", file=sys.stderr)


class Recorder:
    """One conversation's recording. Its methods may be called from several threads; none of them fails for the disk:
    recording stops then, as it does at its limit, and the conversation goes on.

    Args:
        folder: a new or empty one; made at once, for the owner alone.
        about: what the conversation is held with.
        limit_bytes: of all files together.
        on_stop: told why, if recording stops before `close`.

    Raises:
        InputError: something is in the folder, or it is a file, or the limit is too small for anything.
        SottovoceError: the folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        about: RecordedSession,
        limit_bytes: int = MAX_TOTAL_BYTES,
        on_stop: Callable[[str], None] = tell_on_stderr,
    ) -> None:
        if limit_bytes < MIN_TOTAL_BYTES:
            raise InputError(f"a recording of {limit_bytes} bytes", fix=f"allow {MIN_TOTAL_BYTES} or more")
        self.folder = folder
        self.stopped: str | None = None
        """Why recording stopped before the end, if it did."""
        self._limit, self._on_stop = limit_bytes, on_stop
        self._lock = threading.RLock()
        self._closed = False
        self._spent = self._events = self._pictures = 0
        with _refusals_named(folder):
            _claim(folder)
            self._notes = LinesFile(folder / NOTES_FILE)
            self._steps = LinesFile(folder / EVENTS_FILE)
            self._replies = LinesFile(folder / REPLIES_FILE)
            self._microphone = GrowingWav(folder / MICROPHONE_FILE, about.capture_rate)
            session = LinesFile(folder / SESSION_FILE)
            session.append(about.as_json())
            session.close()
        self._log = ReplyLog(folder, about.reply_rate)
        self._spent = len(about.as_json())

    def captured(self, samples: npt.NDArray[np.float32], start: int) -> None:
        """Samples (n,) of the capture stream, whose first is number `start`; a gap before them is silence, and noted.

        Raises:
            InputError: they were captured before.
        """
        with self._lock:
            end = self._microphone.samples
            if self._writes and start < end:
                message = f"the samples from {start} on were captured again, after sample {end}"
                raise InputError(message, fix="give every captured sample once, in order")
            self._attempt(partial(self._write_captured, samples, start))

    def handled(self, event: Event, actions: tuple[Action, ...]) -> None:
        """What happened, and what `Duplex.handle` gave back."""
        with self._lock:
            self._attempt(partial(self._write_step, Step(event, actions)))

    def picture(self, name: str, file: Path) -> None:
        """A picture that is shown as `name` is copied; one that cannot be, or is too large, is noted."""
        with self._lock:
            self._attempt(partial(self._write_picture, name, file))

    def replied(self, epoch: int, event: ReplyEvent) -> None:
        """An event of the reply that `Duplex` calls `epoch`."""
        with self._lock:
            self._attempt(partial(self._write_reply, epoch, event))

    def close(self) -> None:
        """All is written that there was; a reply that has not ended is kept as far as it came."""
        with self._lock:
            if self._closed:
                return
            self._attempt(self._write_end)
            self._closed = True
            self._log.close()
            for file in (self._notes, self._steps, self._replies, self._microphone):
                file.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()

    @property
    def _writes(self) -> bool:
        return self.stopped is None and not self._closed

    def _attempt(self, write: Callable[[], None]) -> None:
        """Write, unless recording has stopped; what the disk or the limit refuses stops it."""
        if not self._writes:
            return
        try:
            write()
        except _FullError:
            self._stop(f"it has reached its limit of {self._limit:,} bytes")
        except OSError as problem:
            self._stop(f"it cannot be written: {problem.strerror or problem}")

    def _stop(self, reason: str) -> None:
        self.stopped = reason
        with suppress(OSError):  # a full disk: then only who is listening is told
            self._notes.append(line_of(write_note(Stopped(reason))))
        self._on_stop(reason)

    def _spend(self, size: int) -> None:
        if self._spent + size > self._limit - LAST_WORDS_BYTES:
            raise _FullError
        self._spent += size

    def _append(self, file: LinesFile, line: bytes) -> None:
        self._spend(len(line))
        file.append(line)

    def _note(self, note: Note) -> None:
        self._append(self._notes, line_of(write_note(note)))

    def _write_captured(self, samples: npt.NDArray[np.float32], start: int) -> None:
        end = self._microphone.samples
        self._spend(4 * (start - end + len(samples)))
        if start > end:
            self._note(Gap(end, start))
            self._microphone.append_silence(start - end)
        self._microphone.append(samples)

    def _write_step(self, step: Step) -> None:
        for action in step.actions:
            if isinstance(action, (EndOfSpeech, Ask)):
                self._log.begin(action.epoch)
        self._append(self._steps, line_of(step.as_json()))
        self._events += 1
        if isinstance(step.event, ReplyFinished) and step.event.epoch in self._log.epochs:
            self._end_reply(self._log.end(step.event.epoch, step.event.reason))

    def _write_picture(self, name: str, file: Path) -> None:
        try:
            content = _read_picture(file)
        except (OSError, InputError) as problem:
            reason = problem.message if isinstance(problem, InputError) else problem.strerror
            self._note(PictureFile(name, self._events, None, reason or "it could not be read"))
            return
        self._pictures += 1
        suffix = file.suffix.lower() if file.suffix.lower() in PICTURE_SUFFIXES else ""
        copy = f"picture-{self._pictures:04d}{suffix}"
        picture = LinesFile(self.folder / copy)
        try:
            self._append(picture, content)
        finally:
            picture.close()
        self._note(PictureFile(name, self._events, copy))

    def _write_reply(self, epoch: int, event: ReplyEvent) -> None:
        if isinstance(event, AudioChunk):
            self._spend(4 * len(event.samples))
        self._log.take(epoch, event)
        if isinstance(event, ReplyDone):
            self._end_reply(self._log.end(epoch))

    def _write_end(self) -> None:
        for epoch in self._log.epochs:
            self._end_reply(self._log.end(epoch))
        self._note(Closed())

    def _end_reply(self, reply: RecordedReply) -> None:
        self._append(self._replies, line_of(write_record(reply)))


class _FullError(Exception):
    """The limit is reached."""


def _claim(folder: Path) -> None:
    """Make the folder, or make sure that nothing is in it."""
    if folder.exists() and not folder.is_dir():
        raise InputError("this is a file, expected a folder to record into", file=folder, fix=ANOTHER_FOLDER)
    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    names = os.listdir(folder)
    if names:
        message = f"{len(names)} files are in this folder, such as {min(names)!r}; a recording begins in an empty one"
        raise InputError(message, file=folder, fix=ANOTHER_FOLDER)


def _read_picture(file: Path) -> bytes:
    size = file.stat().st_size
    if not file.is_file() or size > MAX_PICTURE_BYTES:
        raise InputError(f"not a file of at most {MAX_PICTURE_BYTES:,} bytes")
    with file.open("rb") as picture:
        return picture.read(MAX_PICTURE_BYTES)


@contextmanager
def _refusals_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        message = f"a conversation cannot be recorded here: {problem.strerror or problem}"
        fix = "check that the folder may be written to, or choose another with --record"
        raise SottovoceError(message, file=problem.filename or folder, fix=fix) from problem
