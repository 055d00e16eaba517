"""The turn of the median as bars on a line of time: what waited for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sottovoce.runtime.profiling.turn import Turn
from sottovoce.runtime.profiling.turn_measures import MOMENTS, STAGE_SPANS

PLAYED = "played"
SAME_BAR_SHARE = 0.002
"""Bars of one row that are nearer than this share of the turn are one: nobody could see them apart."""


@dataclass(frozen=True)
class Row:
    """One stage's bars: (start, end) in milliseconds since the question."""

    name: str
    bars: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Waterfall:
    """One turn: its length, its moments and its rows, the first to begin on top."""

    total_ms: float
    moments: Mapping[str, float]
    rows: tuple[Row, ...]


def waterfall(turns: Sequence[Turn], sample_rate: int) -> Waterfall:
    """Of the turn whose length is the median's."""
    turn = sorted(turns, key=lambda turn: turn.milliseconds)[(len(turns) - 1) // 2]
    rows = []
    for name in STAGE_SPANS:
        spans = sorted((span.start, span.end) for span in turn.spans if span.name == name)
        bars = [(1000 * (start - turn.start), 1000 * (end - turn.start)) for start, end in spans]
        if bars:
            rows.append(Row(name, _joined(bars, turn.milliseconds * SAME_BAR_SHARE)))
    if turn.chunks:
        rows.append(Row(PLAYED, _joined(_played(turn, sample_rate), 0.0)))
    moments = {name: round(turn.timings[name], 3) for name in MOMENTS if name in turn.timings}
    total = max([turn.milliseconds, *(bar[1] for row in rows for bar in row.bars)])
    return Waterfall(round(total, 3), moments, tuple(rows))


def _played(turn: Turn, sample_rate: int) -> list[tuple[float, float]]:
    """When a player that begins with the first chunk would play each of them."""
    bars: list[tuple[float, float]] = []
    for chunk in turn.chunks:
        start = max(1000 * chunk.at, bars[-1][1] if bars else 0.0)
        bars.append((start, start + 1000 * chunk.samples / sample_rate))
    return bars


def _joined(bars: Sequence[tuple[float, float]], gap: float) -> tuple[tuple[float, float], ...]:
    joined: list[tuple[float, float]] = []
    for start, end in bars:
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple((round(start, 3), round(end, 3)) for start, end in joined)
