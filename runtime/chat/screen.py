"""The conversation on a terminal: one line a turn, and below them a line with levels, state and what is typed."""

from __future__ import annotations

import contextlib
import shutil
import sys
from dataclasses import dataclass
from math import log10
from typing import TextIO

from sottovoce.runtime.chat.column_width import cut_to, width_of
from sottovoce.runtime.chat.transcript import TurnRecord
from sottovoce.runtime.devices.interface import Levels
from sottovoce.runtime.errors import SottovoceError

BARS = " ▁▂▃▄▅▆▇█"
QUIETEST_DB = -60.0
CLEAR_LINE = "\r\x1b[2K"
LINE_UP = "\x1b[1A"
INDENT = " " * 11
HINT = "(type a line, or just speak; Esc stops, Ctrl-C ends)"
STATES = {
    "idle": "·  ready    ", "listening": "●  listening", "pausing": "○  pause    ", "thinking": "◌  thinking ",
    "speaking": "▶  speaking ", "stopping": "■  stopping ", "closed": "   closed   ",
}  # fmt: skip


@dataclass(frozen=True)
class Status:
    """What the last line shows."""

    state: str
    microphone: Levels | None
    speaker: Levels | None
    typed: str
    is_ducked: bool = False


class Screen:
    """Shows a conversation to a person; on a pipe, without the moving line.

    On a terminal no line is left to be wrapped by it, so that the last line can be drawn anew in its place: a reply
    that is being written is continued above it.

    Args:
        stream: where to; standard error when standard output is for programs.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._moves = self._stream.isatty()
        self._column: int | None = None  # of a reply that is being written, where it goes on
        self._shown = ""  # the last line
        self._is_gone = False

    def turn_ended(self, turn: TurnRecord) -> None:
        """The user's line; what was spoken has no words here, since no separate recognizer listens."""
        said = turn.typed if turn.typed is not None else f"(spoken, {turn.seconds:.1f} s)"
        pictures = f"  [{turn.pictures} picture{'s' * (turn.pictures > 1)}]" if turn.pictures else ""
        self._line(f"you        {said}{pictures}")

    def said(self, turn: TurnRecord, text: str) -> None:
        """The reply as it is written."""
        del turn
        self._begin("sottovoce  ")
        self._go_on(text)

    def reply_over(self, turn: TurnRecord) -> None:
        """The end of the reply: how long it was waited for, and how it ended if not by itself."""
        latency = f"{turn.latency_ms:.0f} ms" if turn.latency_ms is not None else "no sound"
        how = {
            "not_addressed": "not meant for me: forgotten",
            "cancelled": f"interrupted; heard: {turn.text or 'nothing'}",
            "length": f"{latency}; cut at its longest",
            "error": "failed",
        }.get(turn.reason or "", latency)
        if self._column is None:
            self._begin(INDENT)
            self._go_on(f"[{how}]")
        else:
            self._go_on(f"   [{how}]")
        self._finish()

    def trouble(self, error: SottovoceError) -> None:
        """A failure that does not end the conversation."""
        for line in f"error: {error}".splitlines():
            self._line(line)

    def notice(self, text: str) -> None:
        """Something a person should know."""
        self._line(INDENT + text)

    def status(self, status: Status) -> None:
        """Draw the last line anew, if it changed."""
        if not self._moves:
            return
        parts = [STATES.get(status.state, status.state)]
        for name, levels in (("mic", status.microphone), ("out", status.speaker)):
            if levels is not None:
                parts.append(f"{name} {meter(levels)}{' clipped!' if levels.peak >= 1.0 else ''}")
        before = "  ".join(parts) + "  "
        room = self._columns - width_of(before)
        typed = f"> {cut_to(status.typed, room - 2, from_end=True)}" if status.typed else HINT
        text = cut_to(before + typed, self._columns)
        if text != self._shown:
            below = "\n" if self._column is not None and not self._shown else CLEAR_LINE
            self._shown = text
            self._write(below + text)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._finish()
        self._hide_status()

    @property
    def _columns(self) -> int:
        """One fewer than there are: a full line would be wrapped."""
        return max(shutil.get_terminal_size().columns - 1, len(INDENT) + 10) if self._moves else 1 << 30

    def _line(self, text: str) -> None:
        self._finish()
        self._begin("")
        self._go_on(text)
        self._finish()

    def _begin(self, text: str) -> None:
        if self._column is None:
            self._hide_status()
            self._column = len(text)
            self._write(text)

    def _go_on(self, text: str) -> None:
        """Words behind those that are there, on a new line where they do not fit."""
        self._hide_status()
        written, column = [], self._column or 0
        words = text.replace("\n", " ").replace(" ", "\0 ").split("\0")
        while words:
            word = words.pop(0)
            if column + width_of(word) > self._columns and column > len(INDENT):
                written.append("\n" + INDENT)
                column, word = len(INDENT), word.lstrip()
            piece = cut_to(word, self._columns - column)
            written.append(piece)
            column += width_of(piece)
            words[:0] = [word[len(piece) :]] if len(piece) < len(word) else []
        self._column = column
        self._write("".join(written))

    def _finish(self) -> None:
        if self._column is not None:
            self._hide_status()
            self._column = None
            self._write("\n")

    def _hide_status(self) -> None:
        """Go to where text goes on."""
        if not self._shown:
            return
        self._shown = ""
        up = "" if self._column is None else LINE_UP + (f"\x1b[{self._column}C" if self._column else "")
        self._write(CLEAR_LINE + up)

    def _write(self, text: str) -> None:
        """To a terminal that was closed, nothing: the conversation must end in order."""
        if text and not self._is_gone:
            try:
                self._stream.write(text)
                self._stream.flush()
            except BrokenPipeError:
                raise
            except OSError:
                self._is_gone = True
                with contextlib.suppress(OSError, ValueError):
                    self._stream.close()


def meter(levels: Levels) -> str:
    """Loudness as eight bars, on a scale of decibels."""
    decibels = 20 * log10(max(levels.rms, 1e-9))
    share = min(max(1 - decibels / QUIETEST_DB, 0.0), 1.0)
    full, rest = divmod(round(share * 64), 8)
    return ("█" * full + (BARS[rest] if full < 8 else "")).ljust(8)
