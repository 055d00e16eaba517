"""A reply as it is written into the pieces that are spoken one by one."""

from __future__ import annotations

from dataclasses import dataclass

from sottovoce.runtime.manifest import SpeechSpec, StateTokens
from sottovoce.runtime.text.spoken_numbers import SpokenNumbers
from sottovoce.runtime.text.spoken_text import language_of, spoken_text

__all__ = ["SpeechPiece", "SpeechPieces", "spoken_text"]

NUMBER_MARKS = ".,"
"""Between two digits these belong to a number (3.5, 1,000), and no piece ends there."""
ADDRESS_SIGNS = ("://", "www.", "@")
"""A word with one of these is an address: a piece does not end at the points inside it."""
MAX_PIECE_CHARACTERS = 200
"""Text without marks is cut behind a word: the speech decoder's limit of codes would swallow the end of it."""


@dataclass(frozen=True)
class SpeechPiece:
    """What the speech decoder says in one go, and which characters of the reply (start, end) it says."""

    text: str
    start: int
    end: int


class SpeechPieces:
    """Cuts a reply into pieces while it is being written.

    A piece ends behind a mark of `split_after` once it has `min_piece_characters`. Where the released code would cut a
    number or an address in two ("3." "5"), this waits for the next character.

    Args:
        spec: where to cut.
        states: the state tokens, which are not spoken.
        language: what numbers are said in; None goes by the script of the piece, or else of what came before it.

    Raises:
        InputError: a language that has no numbers.
    """

    def __init__(self, spec: SpeechSpec, states: StateTokens, language: str | None = None) -> None:
        if language is not None:
            SpokenNumbers(language)  # refused now rather than in the middle of a reply
        self._spec, self._states, self._language = spec, states, language
        self.reset()

    def reset(self) -> None:
        """Begin a new reply."""
        self._pending = ""
        self._decided = 0
        self._start = 0
        self._last_language = "en"

    def append(self, text: str) -> list[SpeechPiece]:
        """Take what was written; return the pieces that are complete."""
        self._pending += text
        pieces: list[SpeechPiece] = []
        while self._decided < len(self._pending):
            length = self._cut(self._decided)
            if length is None:  # undecided until the next character is there
                break
            self._decided += 1
            if length:
                pieces += self._take(length)
        return pieces

    def finish(self) -> list[SpeechPiece]:
        """The reply is over: what is left is the last piece."""
        return self._take(len(self._pending))

    def _cut(self, place: int) -> int | None:
        """The length of the piece that ends at `place`: 0 if none does, None if the next character will tell."""
        written = self._pending[: place + 1]
        if len(written) >= MAX_PIECE_CHARACTERS:
            return written.rfind(" ") + 1 or len(written)
        if written[-1] not in self._spec.split_after or len(written.strip()) < self._spec.min_piece_characters:
            return 0
        goes_on = self._goes_on(written, self._pending[place + 1 : place + 2])
        return None if goes_on is None else 0 if goes_on else len(written)

    @staticmethod
    def _goes_on(written: str, following: str) -> bool | None:
        """Whether the mark at the end stands inside a number or an address; None if `following` must tell and is ""."""
        if written[-1] in NUMBER_MARKS and written[-2:-1].isdigit():
            return following.isdigit() if following else None
        if written[-1] == "." and any(sign in written.rsplit(maxsplit=1)[-1] for sign in ADDRESS_SIGNS):
            return following.isalnum() if following else None
        return False

    def _take(self, length: int) -> list[SpeechPiece]:
        written, self._pending = self._pending[:length], self._pending[length:]
        start, self._start = self._start, self._start + length
        self._decided = max(self._decided - length, 0)
        self._last_language = language_of(written, self._last_language)
        spoken = spoken_text(written, self._states, self._language or self._last_language)
        return [SpeechPiece(spoken, start, start + length)] if spoken else []
