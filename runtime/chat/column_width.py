"""How many columns of a terminal text takes: two for each East Asian wide character, none for a combining mark."""

from __future__ import annotations

import unicodedata


def width_of(text: str) -> int:
    """Columns of `text`."""
    return sum(map(_columns, text))


def cut_to(text: str, columns: int, *, from_end: bool = False) -> str:
    """As much of `text` as fits, of its beginning or of its end; always whole characters, and at least one.

    One too many is better than none at all: whoever cuts text piece by piece must come to its end.
    """
    characters = text[::-1] if from_end else text
    used, count = 0, 0
    for character in characters:
        used += _columns(character)
        if used > columns and count:
            break
        count += 1
    return text[len(text) - count :] if from_end else text[:count]


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
