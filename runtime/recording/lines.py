"""What the files of a recording are called, and what one line of each says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

from sottovoce.runtime.duplex.actions import Action
from sottovoce.runtime.duplex.events import Event, FinishReason
from sottovoce.runtime.duplex.serialization import read_action, read_event, write_action, write_event
from sottovoce.runtime.records import RecordError, read_record, write_record

SESSION_FILE = "recording.json"
EVENTS_FILE = "events.jsonl"
MICROPHONE_FILE = "microphone.wav"
REPLIES_FILE = "replies.jsonl"
NOTES_FILE = "notes.jsonl"
COPY_AGAIN = "copy the whole folder again, or record again"


def reply_file(epoch: int) -> str:
    """The sound of one reply."""
    return f"reply-{epoch:04d}.wav"


@dataclass(frozen=True)
class Step:
    """A line of `events.jsonl`: what happened, and what `Duplex` wanted done about it."""

    event: Event
    actions: tuple[Action, ...]

    def as_json(self) -> dict[str, Any]:
        """The line's object."""
        return {"event": write_event(self.event), "actions": [write_action(action) for action in self.actions]}

    @classmethod
    def read(cls, data: object, *, source: str, path: str) -> Step:
        """The inverse.

        Raises:
            RecordError: anything but such a line; the message holds the path.
        """
        fields = _fields(data, source, path)
        for key in fields:
            if key not in ("event", "actions"):
                raise RecordError(f"{path}: unknown key {key!r} (known here: actions, event)", file=source)
        for key in ("event", "actions"):
            if key not in fields:
                raise RecordError(f"{path}: key {key!r} is missing", file=source)
        actions = fields["actions"]
        if not isinstance(actions, list):
            raise RecordError(f"{path}.actions is {type(actions).__name__}, expected a list", file=source)
        event = read_event(fields["event"], source=source, path=f"{path}.event")
        places = enumerate(actions)
        return cls(event, tuple(read_action(one, source=source, path=f"{path}.actions[{i}]") for i, one in places))


@dataclass(frozen=True)
class RecordedReply:
    """A line of `replies.jsonl`: one reply, as the conversation gave it.

    Args:
        epoch: its number, as `Duplex` counts.
        reason: why it ended; None if the recording ended before it did.
        text: all that was given out.
        kept: what the history keeps of it (less than `text` of one that was cancelled while it was spoken).
        state: the state token that it began with.
        tokens: the ids that were generated.
        timings: milliseconds, as `ReplyDone` has them.
        events: pieces of text and of sound that were taken before its end.
        samples: of its sound.
        samples_sha256: of these as little-endian float32.
    """

    epoch: int
    reason: FinishReason | None
    text: str
    kept: str
    state: str | None
    tokens: tuple[int, ...]
    timings: Mapping[str, float]
    events: int
    samples: int
    samples_sha256: str


@dataclass(frozen=True)
class Gap:
    """Samples [start, end) were not captured; `microphone.wav` holds silence there."""

    start: int
    end: int


@dataclass(frozen=True)
class PictureFile:
    """A picture was shown.

    Args:
        name: as the events call it.
        events: how many were recorded before it.
        file: its copy in the folder, or None…
        reason: …for this reason.
    """

    name: str
    events: int
    file: str | None
    reason: str | None = None


@dataclass(frozen=True)
class Stopped:
    """Recording ended while the conversation went on."""

    reason: str


@dataclass(frozen=True)
class Closed:
    """The recording is whole: all was written that there was."""


Note: TypeAlias = Gap | PictureFile | Stopped | Closed
_NOTES: dict[str, Any] = {kind.__name__: kind for kind in get_args(Note)}


def write_note(note: Note) -> dict[str, Any]:
    """The object of a line of `notes.jsonl`."""
    return {"note": type(note).__name__, **write_record(note)}


def read_note(data: object, *, source: str, path: str) -> Note:
    """The inverse of `write_note`.

    Raises:
        RecordError: anything but a note; the message holds the path.
    """
    fields = _fields(data, source, path)
    kind = fields.pop("note", None)
    if not isinstance(kind, str) or kind not in _NOTES:
        raise RecordError(f"{path}.note is {kind!r}, expected one of {', '.join(_NOTES)}", file=source)
    note: Note = read_record(_NOTES[kind], fields, source=source, path=path)
    return note


def _fields(data: object, source: str, path: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise RecordError(f"{path} is {type(data).__name__}, expected an object", file=source)
    return dict(data)
