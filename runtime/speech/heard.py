"""From samples that were played to characters that were heard: what a cancelled reply leaves in the history."""

from __future__ import annotations

from dataclasses import dataclass, field

from sottovoce.runtime.text.speech_text import SpeechPiece


@dataclass
class SpokenPiece:
    """A piece of the reply and the samples that it has become so far."""

    piece: SpeechPiece
    samples: int = 0
    complete: bool = False


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
        """The beginning of `text` that `played_samples` samples said, in whole words.

        A piece that was cut off is taken as spoken at an even pace; one that was not spoken to its end, at the pace of
        those that were.
        """
        left = played_samples
        end = 0
        for spoken in self.pieces:
            total = spoken.samples if spoken.complete else max(spoken.samples, self._expected_samples(spoken))
            if left < total:
                piece = spoken.piece
                reached = piece.start + int((piece.end - piece.start) * left / total)
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


def _whole_words(text: str, length: int) -> str:
    """At most `length` characters of `text`, cut behind a whole word."""
    if length >= len(text) or text[length].isspace():
        return text[:length].rstrip()
    words = text[:length].split(" ")
    return " ".join(words[:-1]).rstrip()
