"""Lines that are typed while the conversation goes on: read without waiting, from a terminal or a pipe."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from types import TracebackType
from typing import Any, Literal

Key = Literal["interrupt", "quit"]
ESCAPE, END_OF_INPUT, INTERRUPT = "\x1b", "\x04", "\x03"
DELETE, DELETE_ALL = ("\x7f", "\b"), "\x15"
LONGEST_LINE = 4096
READ_BYTES = 4096


class Keyboard:
    """Standard input. On a terminal, keys come one by one and `line` holds what is typed so far; a context manager."""

    def __init__(self) -> None:
        self._descriptor = sys.stdin.fileno() if sys.stdin is not None and not sys.stdin.closed else -1
        self.is_terminal = self._descriptor >= 0 and os.isatty(self._descriptor)
        self._saved: list[Any] | None = None
        self._rest = b""
        self._escape: str | None = None  # the beginning of what an arrow or another key sends
        self.line = ""
        """What is typed and not entered yet."""
        self.ended = self._descriptor < 0
        """Nothing more will be typed."""

    def __enter__(self) -> Keyboard:
        if self.is_terminal:
            import termios
            import tty

            self._saved = termios.tcgetattr(self._descriptor)
            tty.setcbreak(self._descriptor)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._saved is not None:
            import termios

            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)
            self._saved = None

    def read(self) -> list[str | tuple[Key]]:
        """Lines that were entered, and keys, since the last call; never waits."""
        entered: list[str | tuple[Key]] = []
        if self._escape == ESCAPE and not self._has_more():  # nothing followed: it was the key of that name
            self._escape = None
            entered.append(("interrupt",))
        while self._has_more():
            data = self._read()
            self.ended = not data
            text, self._rest = _whole_characters(self._rest + data)
            for character in text:
                entered += self._take(character)
        if self.ended and self.line:
            entered.append(self.line)
            self.line = ""
        return entered

    def _has_more(self) -> bool:
        return not self.ended and bool(select.select([self._descriptor], [], [], 0)[0])

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, READ_BYTES)
        except OSError:  # the terminal was closed
            return b""

    def _take(self, character: str) -> list[str | tuple[Key]]:
        if self._escape is not None:
            return self._take_escaped(self._escape, character)
        if character in "\r\n":
            line, self.line = self.line, ""
            return [line] if line.strip() else []
        if self.is_terminal and character in DELETE:
            self.line = self.line[:-1]
        elif self.is_terminal and character == ESCAPE:
            self._escape = ESCAPE
        elif self.is_terminal and character == DELETE_ALL:
            self.line = ""
        elif self.is_terminal and character in (END_OF_INPUT, INTERRUPT):
            return [("quit",)]
        elif character.isprintable() and len(self.line) < LONGEST_LINE:
            self.line += character
        return []

    def _take_escaped(self, begun: str, character: str) -> list[str | tuple[Key]]:
        """Arrows and the like send Esc, [ or O, numbers, and a letter or ~: none of it was meant as Esc or as text."""
        if begun == ESCAPE and character not in "[O":
            self._escape = None
            return [("interrupt",), *self._take(character)]
        is_last = begun != ESCAPE and "@" <= character <= "~"
        self._escape = None if is_last else begun + character
        return []


def _whole_characters(data: bytes) -> tuple[str, bytes]:
    """UTF-8 as far as its characters are complete, and the rest."""
    for cut in range(min(4, len(data) + 1)):
        with contextlib.suppress(UnicodeDecodeError):
            return data[: len(data) - cut].decode("utf-8"), data[len(data) - cut :]
    return data.decode("utf-8", errors="replace"), b""
