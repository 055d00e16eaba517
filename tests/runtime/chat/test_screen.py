"""What a person sees: a terminal that follows the same control codes, and a file that gets none."""

from __future__ import annotations

import io
import os
import re

import pytest

from sottovoce.runtime.chat.column_width import cut_to, width_of
from sottovoce.runtime.chat.screen import Screen, Status, meter
from sottovoce.runtime.chat.transcript import TurnRecord
from sottovoce.runtime.devices import Levels
from sottovoce.runtime.errors import InputError

REPLY = "One fine day, two good friends went to see three old houses, four tall trees and six lakes."
IDLE = Status("idle", Levels(0.1, 0.5), None, "")


class Terminal(io.StringIO):
    """Keeps rows of cells, moves a cursor, and fails where text would be wrapped."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns, self.rows, self.row, self.column = columns, [[]], 0, 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for part in re.findall(r"\x1b\[\d*[A-Za-z]|[\s\S]", text):
            if part.startswith("\x1b["):
                self._control(part)
            elif part == "\n":
                self.row, self.column = self.row + 1, 0
                while len(self.rows) <= self.row:
                    self.rows.append([])
            elif part == "\r":
                self.column = 0
            else:
                self._put(part)
        return len(text)

    def _control(self, part: str) -> None:
        count = int(part[2:-1] or 1)
        match part[-1]:
            case "A":
                self.row -= count
            case "C":
                self.column += count
            case "K":
                assert part == "\x1b[2K"
                self.rows[self.row] = []
            case _:
                raise AssertionError(f"{part!r} is not known here")

    def _put(self, character: str) -> None:
        cells = self.rows[self.row]
        cells += [" "] * (self.column - len(cells))
        width = width_of(character)
        if width == 0:  # it stands over the one before
            cells[self.column - 1] += character
            return
        cells[self.column : self.column + width] = [character, *[""] * (width - 1)]
        self.column += width
        assert self.column < self.columns, "a line of the terminal is full"

    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.rows]


def turn(**known: object) -> TurnRecord:
    return TurnRecord(1, known.pop("typed", None), known.pop("seconds", 1.5), 0.0, **known)  # type: ignore[arg-type]


@pytest.fixture(params=[30, 44, 80, 200])
def terminal(request, monkeypatch) -> Terminal:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((request.param, 24)))
    return Terminal(request.param)


@pytest.mark.parametrize("reply", [REPLY, REPLY.replace(" ", ""), "你好，今天是星期三。" * 4, "e\u0301te\u0301 " * 20])
def test_the_status_stays_below_a_reply_that_is_written(terminal, reply):
    screen = Screen(terminal)
    screen.status(IDLE)
    screen.turn_ended(turn())
    for place in range(0, len(reply), 3):
        screen.status(Status("speaking", Levels(0.1 + place / 1000, 0.5), None, "typed meanwhile"))
        screen.said(turn(), reply[place : place + 3])
        assert sum("speaking" in line for line in terminal.lines()) <= 1
    screen.status(Status("speaking", None, Levels(), ""))
    assert "speaking" in terminal.lines()[-1]
    screen.reply_over(turn(reason="stop", first_sound_at=0.12))
    screen.status(IDLE)
    lines = terminal.lines()
    assert "ready" in lines[-1]
    assert lines[0] == "you        (spoken, 1.5 s)"
    assert lines[1].startswith("sottovoce  ")
    shown = "".join(line[11:] for line in lines[1:-1]).replace(" ", "")
    assert shown == reply.replace(" ", "") + "[120ms]"
    screen.close()
    assert terminal.lines()[-1] == ""


def test_what_is_typed_shows_its_end_where_it_does_not_fit(terminal):
    screen = Screen(terminal)
    screen.status(Status("idle", None, None, "你" * 300 + "end"))
    assert terminal.lines()[-1].endswith("end")


def test_a_file_gets_no_control_codes():
    stream = io.StringIO()
    screen = Screen(stream)
    screen.status(IDLE)
    screen.turn_ended(turn(typed="How are you?", seconds=None, pictures=2))
    screen.said(turn(), REPLY[:40])
    screen.status(IDLE)
    screen.said(turn(), REPLY[40:])
    screen.reply_over(turn(reason="stop", first_sound_at=0.05))
    screen.notice("sound from the microphone was lost")
    screen.trouble(InputError("it is broken", fix="mend it"))
    screen.reply_over(turn(reason="not_addressed"))
    screen.said(turn(), "One fine")
    screen.reply_over(turn(reason="cancelled", text="One"))
    screen.close()
    assert stream.getvalue().splitlines() == [
        "you        How are you?  [2 pictures]",
        f"sottovoce  {REPLY}   [50 ms]",
        "           sound from the microphone was lost",
        *f"error: {InputError('it is broken', fix='mend it')}".splitlines(),
        "           [not meant for me: forgotten]",
        "sottovoce  One fine   [interrupted; heard: One]",
    ]


def test_a_notice_in_a_reply_does_not_end_up_within_its_line():
    stream = io.StringIO()
    screen = Screen(stream)
    screen.said(turn(), "One")
    screen.notice("by the way")
    screen.said(turn(), "two")
    screen.close()
    assert stream.getvalue().splitlines() == ["sottovoce  One", "           by the way", "sottovoce  two"]


def test_a_terminal_that_went_away_is_no_failure():
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    screen = Screen(Gone(80))
    screen.notice("hello")
    screen.notice("again")
    screen.close()


def test_widths():
    assert width_of("a你é") == 4
    assert width_of("e\u0301") == 1
    assert cut_to("你好", 3) == "你"
    assert cut_to("abc", 2, from_end=True) == "bc"
    assert cut_to("你", 1) == "你"  # never nothing


@pytest.mark.parametrize(("rms", "bars"), [(0.0, 0), (0.001, 0), (0.0317, 4), (1.0, 8), (3.0, 8)])
def test_a_meter_is_eight_bars_of_decibels(rms, bars):
    assert len(meter(Levels(rms, rms))) == 8
    assert meter(Levels(rms, rms)).count("█") == bars
