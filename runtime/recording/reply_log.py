"""The replies of a conversation that is being recorded: their sound as it comes, and a line for each at its end."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sottovoce.runtime.duplex.events import FinishReason
from sottovoce.runtime.recording.growing_files import GrowingWav
from sottovoce.runtime.recording.lines import RecordedReply, reply_file
from sottovoce.runtime.recording.sound import float_bytes
from sottovoce.runtime.reply import AudioChunk, ReplyDone, ReplyEvent, TextDelta


@dataclass
class ReplyTally:
    """What came of a reply so far; made again when it is held again."""

    epoch: int
    text: str = ""
    events: int = 0
    samples: int = 0
    kept: str = ""
    state: str | None = None
    tokens: tuple[int, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()

    def take(self, event: ReplyEvent) -> None:
        """The reply's next event."""
        match event:
            case TextDelta(text):
                self.text += text
                self.events += 1
            case AudioChunk(samples):
                self._digest.update(float_bytes(samples))
                self.samples += len(samples)
                self.events += 1
            case ReplyDone():
                self.kept, self.state, self.tokens = event.text, event.state, event.tokens
                self.timings, self.reason = dict(event.timings), event.reason

    def as_recorded(self) -> RecordedReply:
        """The line of `replies.jsonl`."""
        return RecordedReply(
            self.epoch,
            self.reason,
            self.text,
            self.kept,
            self.state,
            self.tokens,
            self.timings,
            self.events,
            self.samples,
            self._digest.hexdigest(),
        )


class ReplyLog:
    """Keeps the replies that have not ended yet, usually one, and their files.

    Args:
        folder: where the sound goes.
        sample_rate: of the replies.
    """

    def __init__(self, folder: Path, sample_rate: int) -> None:
        self._folder = folder
        self._rate = sample_rate
        self._open: dict[int, ReplyTally] = {}
        self._sounds: dict[int, GrowingWav] = {}

    @property
    def epochs(self) -> tuple[int, ...]:
        """Of the replies that have not ended."""
        return tuple(self._open)

    def begin(self, epoch: int) -> None:
        """A reply was asked for."""
        self._open.setdefault(epoch, ReplyTally(epoch))

    def take(self, epoch: int, event: ReplyEvent) -> None:
        """The next event of a reply.

        Raises:
            OSError: the disk is full.
        """
        self.begin(epoch)
        if isinstance(event, AudioChunk):
            if epoch not in self._sounds:
                self._sounds[epoch] = GrowingWav(self._folder / reply_file(epoch), self._rate)
            self._sounds[epoch].append(event.samples)
        self._open[epoch].take(event)

    def end(self, epoch: int, reason: FinishReason | None = None) -> RecordedReply:
        """Nothing more comes of it; `reason` if it did not tell its own."""
        if epoch in self._sounds:
            self._sounds.pop(epoch).close()
        tally = self._open.pop(epoch)
        tally.reason = tally.reason or reason
        return tally.as_recorded()

    def close(self) -> None:
        """Let go of all files."""
        while self._sounds:
            self._sounds.popitem()[1].close()
        self._open.clear()
