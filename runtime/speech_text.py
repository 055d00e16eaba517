"""A reply as it is written into pieces as they are spoken: cut at punctuation, cleaned, numbers as words, lower case."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from sottovoce.runtime.manifest import SpeechSpec, StateTokens
from sottovoce.runtime.spoken_numbers import language_of, spell_out

_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_CODE_FENCE = re.compile(r"```\w*")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+", re.MULTILINE)
_BULLET = re.compile(r"^\s*[-*+•]\s+", re.MULTILINE)
_QUOTE = re.compile(r"^\s*>\s?", re.MULTILINE)
_EMPHASIS = re.compile(r"(?<![\d\s])\*{1,3}|\*{1,3}(?![\d\s])|`+|~~|(?<!\w)_{1,3}|_{1,3}(?!\w)")
_SPACES = re.compile(r"\s+")
_SPACE_BEFORE_MARK = re.compile(r"\s+([,.?!;:])")
NUMBER_MARKS = ".,"
"""Between two digits these belong to a number (3.5, 1,000), and no piece ends there."""


@dataclass(frozen=True)
class SpeechPiece:
    """What the speech decoder says in one go, and which characters of the reply (start, end) it says."""

    text: str
    start: int
    end: int


def spoken_text(text: str, states: StateTokens, language: str | None = None) -> str:
    """Clean written text for speaking: no markdown, state tokens or emoji; numbers and symbols as words; lower case.

    Args:
        text: a piece of a reply.
        states: the state tokens to leave out.
        language: a language code for numbers; None guesses it from the script.
    """
    for token in (states.question, states.not_addressed, states.typed):
        text = text.replace(token, "")
    text = _LINK.sub(r"\1", _CODE_FENCE.sub("", text))
    for marks in (_HEADING, _BULLET, _QUOTE, _EMPHASIS):
        text = marks.sub("", text)
    text = "".join(c for c in text if unicodedata.category(c) not in ("So", "Cs", "Co", "Cf") or c == "°")
    text = spell_out(text, language or language_of(text))
    text = _SPACE_BEFORE_MARK.sub(r"\1", _SPACES.sub(" ", text))
    return text.strip().lower()


class SpeechPieces:
    """Cuts a reply into pieces while it is being written.

    A piece ends behind a mark of `split_after` once it has `min_piece_characters`. Where the reference would cut a
    number in two ("3." "5"), this waits for the next character.
    """

    def __init__(self, spec: SpeechSpec, states: StateTokens, language: str | None = None) -> None:
        self._spec, self._states, self._language = spec, states, language
        self.reset()

    def reset(self) -> None:
        """Begin a new reply."""
        self._pending = ""
        self._start = 0

    def append(self, text: str) -> list[SpeechPiece]:
        """Take what was written; return the pieces that are complete."""
        self._pending += text
        pieces: list[SpeechPiece] = []
        place = 0
        while place < len(self._pending):
            cut = self._cuts_after(place)
            if cut is None:  # undecided until the next character is there
                break
            place += 1
            if cut:
                pieces += self._take(place)
                place = 0
        return pieces

    def finish(self) -> list[SpeechPiece]:
        """The reply is over: what is left is the last piece."""
        pieces = self.append("")
        return pieces + self._take(len(self._pending))

    def _cuts_after(self, place: int) -> bool | None:
        mark = self._pending[place]
        if mark not in self._spec.split_after or len(self._pending[: place + 1].strip()) < self._spec.min_piece_characters:
            return False
        if mark in NUMBER_MARKS and place > 0 and self._pending[place - 1].isdigit():
            following = self._pending[place + 1 : place + 2]
            return None if not following else not following.isdigit()
        return True

    def _take(self, length: int) -> list[SpeechPiece]:
        written, self._pending = self._pending[:length], self._pending[length:]
        start, self._start = self._start, self._start + length
        spoken = spoken_text(written, self._states, self._language)
        # Marks alone are nothing to say.
        return [SpeechPiece(spoken, start, start + length)] if any(c.isalnum() for c in spoken) else []
