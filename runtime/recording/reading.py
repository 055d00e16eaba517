"""A recording read back: nothing in it is believed until it was looked at, and nothing outside its folder is opened.

What a killed program leaves is no damage: the last line of a file may be cut, replies may lack their end, the note that
all was written is missing. All of that is told by `Recording.remarks`; anything else that is not as the recorder writes
it is an error that names file, line and key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sottovoce.runtime.errors import InputError, SottovoceError
from sottovoce.runtime.recording.lines import (
    COPY_AGAIN,
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
    read_note,
    reply_file,
)
from sottovoce.runtime.recording.session import FORMAT_VERSION, RecordedSession
from sottovoce.runtime.recording.sound import RecordedSound
from sottovoce.runtime.records import RecordError, read_record

MAX_SESSION_BYTES = 1 << 20
MAX_LINES_BYTES = 1 << 30
MAX_LINE_BYTES = 1 << 20
MAX_THREADS = 1024
MAX_KEPT_BYTES = 64 << 20
"""Of the files that are read as a whole: replies and notes."""

Line = TypeVar("Line")


@dataclass(frozen=True)
class Recording:
    """A folder that `chat --record` wrote.

    Args:
        folder: where it is.
        session: what the conversation was held with.
        replies: by epoch.
        notes: what was noted beside.
        remarks: what a person should know about the recording itself, one sentence each.
    """

    folder: Path
    session: RecordedSession
    replies: Mapping[int, RecordedReply]
    notes: tuple[Note, ...]
    remarks: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path) -> Recording:
        """Read all of it but the events and the sound.

        Raises:
            InputError: not a recording, of another version, damaged, or reaching outside its folder.
        """
        session = _read_session(folder)
        replies: dict[int, RecordedReply] = {}
        for number, data in _lines(folder, REPLIES_FILE, MAX_KEPT_BYTES):
            path = f"line {number}"
            reply = read_record(RecordedReply, data, source=str(folder / REPLIES_FILE), path=path)
            _check_reply(reply, replies, folder / REPLIES_FILE, path)
            replies[reply.epoch] = reply
        source = str(folder / NOTES_FILE)
        numbered = _lines(folder, NOTES_FILE, MAX_KEPT_BYTES)
        notes = tuple(read_note(data, source=source, path=f"line {number}") for number, data in numbered)
        return cls(folder, session, replies, notes, tuple(_remarks(folder, notes)))

    def steps(self) -> Iterator[tuple[int, Step]]:
        """The events and what was done about them, with their line numbers; read as they are taken.

        Raises:
            InputError: a line is not such a step; the message holds line and key.
        """
        source = str(self.folder / EVENTS_FILE)
        for number, data in _lines(self.folder, EVENTS_FILE, MAX_LINES_BYTES):
            yield number, Step.read(data, source=source, path=f"line {number}")

    def microphone(self) -> RecordedSound:
        """What was captured; close it after use.

        Raises:
            InputError: missing, not such a WAV, or of another rate.
        """
        return RecordedSound(file_inside(self.folder, MICROPHONE_FILE), self.session.capture_rate)

    def reply_sound(self, epoch: int) -> RecordedSound:
        """The sound of a reply; close it after use.

        Raises:
            InputError: missing, not such a WAV, or of another rate.
        """
        return RecordedSound(file_inside(self.folder, reply_file(epoch)), self.session.reply_rate)

    def check_sounds(self) -> None:
        """Make sure that the replies' sound is what was given out then.

        Raises:
            InputError: a file is missing, or holds something else.
        """
        for epoch, reply in self.replies.items():
            if reply.samples == 0:
                continue
            with self.reply_sound(epoch) as sound:
                if len(sound) != reply.samples or sound.sha256() != reply.samples_sha256:
                    message = f"its {len(sound)} samples are not the {reply.samples} that {REPLIES_FILE} tells of"
                    raise InputError(message, file=sound.path, fix=COPY_AGAIN)

    def picture(self, name: str, events: int) -> Path:
        """The file of the picture that was last shown as `name` when `events` events were recorded.

        Raises:
            InputError: it was not recorded, or is not in the folder.
        """
        shown = [note for note in self.notes if isinstance(note, PictureFile) and note.name == name]
        note = next((note for note in reversed(shown) if note.events <= events), None)
        source = self.folder / NOTES_FILE
        if note is None:
            raise InputError(f"the picture {name!r} was shown, but there is no note of it", file=source, fix=COPY_AGAIN)
        if note.file is None:
            raise InputError(f"the picture {name!r} was not recorded: {note.reason}", file=source)
        return file_inside(self.folder, note.file)


def file_inside(folder: Path, name: str) -> Path:
    """The path of a file of the recording.

    Raises:
        InputError: there is none, or the name (or a link of that name) leads out of the folder.
    """
    strange = not name or Path(name).name != name or "\\" in name or "\0" in name
    path = folder / name if not strange else folder
    if strange or path.resolve().parent != folder.resolve():
        message = f"the file {name!r} leaves the recording's folder"
        raise InputError(message, file=folder, fix="do not use this recording: it was tampered with")
    if not path.is_file():
        raise InputError(f"{name!r} of this recording is missing, or no file", file=folder, fix=COPY_AGAIN)
    return path


def _read_session(folder: Path) -> RecordedSession:
    if not (folder / SESSION_FILE).exists():
        what = f"it holds no {SESSION_FILE}" if folder.is_dir() else "there is no such folder"
        raise InputError(f"not a recording: {what}", file=folder, fix="give a folder that `chat --record` wrote")
    path = file_inside(folder, SESSION_FILE)
    _check_size(path, MAX_SESSION_BYTES)
    data = parse(path.read_bytes(), path, "")
    found = data.get("format_version") if isinstance(data, dict) else None
    if found != FORMAT_VERSION or isinstance(found, bool):
        message = f"format_version is {found!r}; this sottovoce reads version {FORMAT_VERSION}"
        raise InputError(message, file=path, fix="replay it with the sottovoce that recorded it")
    session = _in_file(path, lambda: read_record(RecordedSession, data, source=str(path)))
    if not 1 <= session.threads <= MAX_THREADS:
        message = f"threads is {session.threads}, expected 1 to {MAX_THREADS}"
        raise InputError(message, file=path, fix=COPY_AGAIN)
    for name, rate in (("capture_rate", session.capture_rate), ("reply_rate", session.reply_rate)):
        if not 1_000 <= rate <= 384_000:
            raise InputError(f"{name} is {rate}, expected 1000 to 384000", file=path, fix=COPY_AGAIN)
    return session


def _in_file(path: Path, read: Callable[[], Line]) -> Line:
    """What is wrong with a value inside does not know which file it came from."""
    try:
        return read()
    except OverflowError as problem:
        raise RecordError("a number is too large", file=path, fix=COPY_AGAIN) from problem
    except SottovoceError as problem:
        if problem.file is not None:
            raise
        raise InputError(problem.message, file=path, fix=problem.fix or COPY_AGAIN) from problem


def _lines(folder: Path, name: str, limit: int) -> Iterator[tuple[int, Any]]:
    """The parsed lines of a file, numbered from 1; a last one without an end was cut and is left out."""
    path = file_inside(folder, name)
    _check_size(path, limit)
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise InputError(f"line {number} has more than {MAX_LINE_BYTES:,} bytes", file=path, fix=COPY_AGAIN)
            if line.endswith(b"\n"):
                data = parse(line, path, f"line {number}: ")
                yield number, data


def parse(content: bytes, path: Path, where: str) -> Any:
    """JSON, without the numbers that JSON does not have.

    Raises:
        InputError: it is none.
    """
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{where}not JSON in UTF-8 ({problem})", file=path, fix=COPY_AGAIN) from problem


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _check_size(path: Path, limit: int) -> None:
    size = path.stat().st_size
    if size > limit:
        raise InputError(f"it has {size:,} bytes, at most {limit:,} are read", file=path, fix=COPY_AGAIN)


def _check_reply(reply: RecordedReply, known: Mapping[int, RecordedReply], path: Path, where: str) -> None:
    numbers = {"epoch": reply.epoch, "events": reply.events, "samples": reply.samples}
    for name, number in numbers.items():
        if number < 0:
            raise InputError(f"{where}.{name} is {number}, expected 0 or more", file=path, fix=COPY_AGAIN)
    if reply.epoch in known:
        raise InputError(f"{where}: a second reply with the epoch {reply.epoch}", file=path, fix=COPY_AGAIN)


def _remarks(folder: Path, notes: tuple[Note, ...]) -> Iterator[str]:
    for note in notes:
        if isinstance(note, Stopped):
            yield f"recording stopped before the conversation's end: {note.reason}"
    if not any(isinstance(note, (Closed, Stopped)) for note in notes):
        yield "recording was cut off (the program was killed, or is still running): it is replayed as far as it goes"
    for name in (EVENTS_FILE, REPLIES_FILE, NOTES_FILE):
        if _ends_cut(file_inside(folder, name)):
            yield f"the last line of {name} was cut off, and is left out"
    gaps = [note for note in notes if isinstance(note, Gap)]
    if gaps:
        lost = sum(gap.end - gap.start for gap in gaps)
        yield f"{lost:,} samples of the microphone were lost in {len(gaps)} gaps, which are silent"


def _ends_cut(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            return False
        file.seek(-1, 2)
        return file.read(1) != b"\n"
