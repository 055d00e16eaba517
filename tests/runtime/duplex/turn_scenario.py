"""Scenarios as tables: what happens when, and what is to be done about it within how many milliseconds.

    time | event          | expected actions, each `within N` ms of the row's time
    0    | speech 1000    |
    1000 | quiet          | Prepare(1) within 240, EndOfSpeech(1, _, _, pause) within 540

`speech N` is N milliseconds of it; otherwise the microphone hears silence, a window every 32 ms. All actions between
a row and the next must be those of the row, in order; `Play` is checked only where a row names it, `Hear` never (that
is what `heard()` is for). Arguments are the action's, in order; `_` and those left out may be any. Without `within`,
it is at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from sottovoce.runtime.duplex.actions import Action, Hear, Play
from sottovoce.runtime.duplex.events import (
    CAPTURE_RATE,
    WINDOW_SAMPLES,
    DeviceLost,
    DeviceReturned,
    Event,
    InterruptKey,
    Picture,
    PlaybackStopped,
    Played,
    Quit,
    ReplyAudio,
    ReplyFinished,
    ReplyStarted,
    Tick,
    TypedLine,
    VoiceWindow,
)
from sottovoce.runtime.duplex.machine import Duplex
from sottovoce.runtime.duplex.settings import DuplexSettings

WINDOW_MS = 1000 * WINDOW_SAMPLES / CAPTURE_RATE
EVENTS: dict[str, Any] = {
    "started": ReplyStarted,
    "audio": ReplyAudio,
    "finished": ReplyFinished,
    "played": Played,
    "stopped": PlaybackStopped,
    "key": InterruptKey,
    "lost": DeviceLost,
    "returned": DeviceReturned,
    "tick": Tick,
    "quit": Quit,
}


@dataclass
class Row:
    """One line of a table."""

    ms: float
    event: str
    expected: list[str]


@dataclass
class Outcome:
    """What came of a scenario: every action with its time in milliseconds, and the machine."""

    duplex: Duplex
    actions: list[tuple[float, Action]] = field(default_factory=list)

    def of(self, kind: type) -> list[Any]:
        return [action for _, action in self.actions if isinstance(action, kind)]

    def heard(self) -> list[tuple[int, int]]:
        """Handed over samples, adjoining ranges joined."""
        joined: list[tuple[int, int]] = []
        for action in self.of(Hear):
            if joined and joined[-1][1] == action.start:
                joined[-1] = (joined[-1][0], action.end)
            else:
                joined.append((action.start, action.end))
        return joined


class Player:
    """Feeds a machine the events of a table, and windows in between."""

    def __init__(self, settings: DuplexSettings | None) -> None:
        self.outcome = Outcome(Duplex(settings))
        self.speech_until = 0.0
        self.window_ms = 0.0
        self.has_microphone = True

    def give(self, event: Event) -> None:
        self.outcome.actions += [(event.at * 1000, action) for action in self.outcome.duplex.handle(event)]

    def capture_to(self, ms: float) -> None:
        """Windows that end at or before `ms`."""
        while self.has_microphone and self.window_ms + WINDOW_MS <= ms + 1e-6:
            self.window_ms += WINDOW_MS
            probability = 0.9 if self.window_ms <= self.speech_until + 1e-6 else 0.02
            self.give(VoiceWindow(self.window_ms / 1000, round(self.window_ms * CAPTURE_RATE / 1000), probability))

    def happen(self, row: Row) -> None:
        word, *rest = row.event.split(maxsplit=1)
        if word in ("speech", "quiet"):
            self.speech_until = row.ms + float(rest[0]) if word == "speech" else row.ms
            return
        if word in ("line", "picture"):
            self.give((TypedLine if word == "line" else Picture)(row.ms / 1000, rest[0]))
            return
        values = [int(value) if value.isdigit() else value for value in (rest[0].split() if rest else [])]
        self.give(EVENTS[word](row.ms / 1000, *values))
        if values == ["microphone"]:
            self.has_microphone = word == "returned"
            self.window_ms = max(self.window_ms, (row.ms // WINDOW_MS) * WINDOW_MS)


def play(table: str, settings: DuplexSettings | None = None) -> Outcome:
    """Run a table and check it; returns what happened for more checks."""
    rows = [_parse(line) for line in table.strip().splitlines() if line.strip()]
    player = Player(settings)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        player.capture_to(row.ms)
        before = len(player.outcome.actions)
        player.happen(row)
        if following is not None:
            player.capture_to(following.ms)
        _check(row, player.outcome.actions[before:])
    return player.outcome


def _parse(line: str) -> Row:
    ms, event, expected = (part.strip() for part in line.split("|"))
    return Row(float(ms), event, re.findall(r"\w+\([^)]*\)(?: within \d+)?", expected))


def _check(row: Row, actions: list[tuple[float, Action]]) -> None:
    checks_play = any(expected.startswith("Play(") for expected in row.expected)
    skipped = (Hear,) if checks_play else (Hear, Play)
    left = [(ms, action) for ms, action in actions if not isinstance(action, skipped)]
    told = f"at {row.ms:.0f} ms, after {row.event!r}: expected {row.expected}, got {left}"
    assert len(left) == len(row.expected), told
    for (ms, action), expected in zip(left, row.expected, strict=True):
        name, arguments, within = re.fullmatch(r"(\w+)\(([^)]*)\)(?: within (\d+))?", expected).groups()  # type: ignore[union-attr]
        assert type(action).__name__ == name, told
        values = [str(value) for value in vars(action).values()]
        wanted = [part.strip() for part in arguments.split(",") if part.strip()]
        assert [value for value, want in zip(values, wanted, strict=False) if want not in (value, "_")] == [], told
        assert ms - row.ms <= float(within or 0), f"{action} came {ms - row.ms:.0f} ms after; {told}"
