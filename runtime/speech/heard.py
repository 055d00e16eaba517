"""From samples that were played to characters that were heard: what a cancelled reply leaves in the history."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.text.speech_text import SpeechPiece

SOUND = 0.003
"""A sample beyond it is sound: quieter are the silences that a voice puts before and behind a piece."""


@dataclass
class SpokenPiece:
    """A piece of the reply and the samples that it has become so far.

    Args:
        piece: which.
        samples: how many.
        complete: there will be no more.
        first_sound: samples before it begins to sound, if it does yet.
        last_sound: samples up to the last that sounds.
    """

    piece: SpeechPiece
    samples: int = 0
    complete: bool = False
    first_sound: int | None = None
    last_sound: int = 0

    def append(self, samples: npt.NDArray[np.float32]) -> None:
        """More samples (n,) of it."""
        sounding = np.flatnonzero(np.abs(samples) > SOUND)
        if len(sounding):
            if self.first_sound is None:
                self.first_sound = self.samples + int(sounding[0])
            self.last_sound = self.samples + int(sounding[-1]) + 1
        self.samples += len(samples)

    def share(self, played: int, total: int) -> float:
        """How much of its text was said within `played` of the `total` samples that it has, or will have."""
        first = self.first_sound or 0
        last = self.last_sound if self.complete and self.last_sound else total
        return min(max((played - first) / max(last - first, 1), 0.0), 1.0)


@dataclass
class SpokenReply:
    """All pieces that were spoken, in their order."""

    pieces: list[SpokenPiece] = field(default_factory=list)

    def begin(self, piece: SpeechPiece) -> SpokenPiece:
        """Note that `piece` is being spoken; the caller counts its samples."""
        self.pieces.append(SpokenPiece(piece))
        return self.pieces[-1]

    @property
    def samples(self) -> int:
        """Samples given out so far."""
        return sum(spoken.samples for spoken in self.pieces)

    def heard(self, text: str, played_samples: int) -> str:
        """The beginning of `text` that `played_samples` samples said, in whole words: of the last one, most was said.

        A piece that was cut off is taken as spoken at an even pace between its first and its last sound; one that was
        not spoken to its end, at the pace of those that were. A word counts if at least half of it was heard: so a
        listener understands it, too (tests/benchmarks/barge_in.py).
        """
        left = played_samples
        end = 0
        for spoken in self.pieces:
            total = spoken.samples if spoken.complete else max(spoken.samples, self._expected_samples(spoken))
            if left < total:
                piece = spoken.piece
                reached = piece.start + (piece.end - piece.start) * spoken.share(left, total)
                return _whole_words(text, max(reached, end))
            left -= total
            end = spoken.piece.end
        return text[:end].rstrip()

    def _expected_samples(self, spoken: SpokenPiece) -> int:
        complete = [other for other in self.pieces if other.complete and other.samples]
        characters = sum(other.piece.end - other.piece.start for other in complete)
        if not characters:
            return spoken.samples
        pace = sum(other.samples for other in complete) / characters
        return int(pace * (spoken.piece.end - spoken.piece.start))


def _whole_words(text: str, length: float) -> str:
    """`text` up to the last word whose middle lies within its first `length` characters."""
    end = 0
    for word in re.finditer(r"\S+", text):
        if (word.start() + word.end()) / 2 > length:
            break
        end = word.end()
    return text[:end]
