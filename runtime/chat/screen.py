"""The conversation on a terminal: one line a turn, and below them a line with levels, state and what is typed."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import TextIO

from sottovoce.runtime.chat.transcript import TurnRecord
from sottovoce.runtime.devices.interface import Levels
from sottovoce.runtime.errors import SottovoceError

BARS = " ▁▂▃▄▅▆▇█"
QUIETEST_DB = -60.0
CLEAR_LINE = "\r\x1b[2K"
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

    Args:
        stream: where to; standard error when standard output is for programs.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._moves = self._stream.isatty()
        self._is_open = False
        self._shown = ""

    def turn_ended(self, turn: TurnRecord) -> None:
        """The user's line; what was spoken has no words here, since no separate recognizer listens."""
        said = turn.typed if turn.typed is not None else f"(spoken, {turn.seconds:.1f} s)"
        pictures = f"  [{turn.pictures} picture{'s' * (turn.pictures > 1)}]" if turn.pictures else ""
        self._line(f"you        {said}{pictures}")

    def said(self, turn: TurnRecord, text: str) -> None:
        """The reply as it is written."""
        del turn
        if not self._is_open:
            self._write(CLEAR_LINE * self._moves + "sottovoce  ")
            self._is_open = True
        self._write(text)

    def reply_over(self, turn: TurnRecord) -> None:
        """The end of the reply: how long it was waited for, and how it ended if not by itself."""
        latency = f"{turn.latency_ms:.0f} ms" if turn.latency_ms is not None else "no sound"
        how = {
            "not_addressed": "not meant for me: forgotten",
            "cancelled": f"interrupted; heard: {turn.text or 'nothing'}",
            "length": f"{latency}; cut at its longest",
            "error": "failed",
        }.get(turn.reason or "", latency)
        if self._is_open:
            self._write(f"   [{how}]\n")
            self._is_open = False
        else:
            self._line(f"           [{how}]")

    def trouble(self, error: SottovoceError) -> None:
        """A failure that does not end the conversation."""
        self._line(f"error: {error}")

    def notice(self, text: str) -> None:
        """Something a person should know."""
        self._line(f"           {text}")

    def status(self, status: Status) -> None:
        """Draw the last line anew, if it changed; not while a reply is being written."""
        if not self._moves or self._is_open:
            return
        parts = [STATES.get(status.state, status.state)]
        for name, levels in (("mic", status.microphone), ("out", status.speaker)):
            if levels is not None:
                parts.append(f"{name} {meter(levels)}{' clipped!' if levels.peak >= 1.0 else ''}")
        parts.append(f"> {status.typed}" if status.typed else "(type a line, or just speak; Esc stops, Ctrl-C ends)")
        text = "  ".join(parts)[: shutil.get_terminal_size().columns - 1]
        if text != self._shown:
            self._shown = text
            self._write(CLEAR_LINE + text)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._is_open:
            self._write("\n")
        elif self._moves:
            self._write(CLEAR_LINE)
        self._is_open = False

    def _line(self, text: str) -> None:
        if self._is_open:
            self._write("\n")
            self._is_open = False
        self._write(CLEAR_LINE * self._moves + text + "\n")
        self._shown = ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def meter(levels: Levels) -> str:
    """Loudness as eight bars, on a scale of decibels."""
    from math import log10

    decibels = 20 * log10(max(levels.rms, 1e-9))
    share = min(max(1 - decibels / QUIETEST_DB, 0.0), 1.0)
    full, rest = divmod(round(share * 64), 8)
    return ("█" * full + (BARS[rest] if full < 8 else "")).ljust(8)
