"""Horizontal bars as an inline SVG: plain ones against a limit, stacked ones, and spreads from median to p99."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from sottovoce.runtime.web_page import Scale

WIDTH, LEFT, RIGHT = 900, 220, 110
ROW_HEIGHT, BAR_HEIGHT, TOP = 24, 14, 6


@dataclass(frozen=True)
class Part:
    """One piece of a bar: its length, its colour, and what it tells when it is pointed at."""

    value: float
    color: str
    told: str


@dataclass(frozen=True)
class Bar:
    """A row: its label, its parts from left to right, what stands behind them, and marks on the line."""

    label: str
    parts: tuple[Part, ...]
    behind: str
    whiskers: tuple[float, ...] = ()


def bars_picture(bars: Sequence[Bar], told: str, limit: float | None = None) -> str:
    """All rows on one scale.

    Args:
        bars: the rows; of no rows there is no picture.
        told: what it shows, for those who cannot see it.
        limit: a line across the rows, and never outside of the picture.
    """
    if not bars:
        return ""
    height = TOP + ROW_HEIGHT * len(bars) + TOP
    longest = max(max(sum(part.value for part in bar.parts), *bar.whiskers, 0.0) for bar in bars)
    across = Scale([0.0, max(longest, limit or 0.0, 1e-9)], LEFT, WIDTH - RIGHT)
    rows = [_row(bar, TOP + ROW_HEIGHT * place + ROW_HEIGHT / 2, across) for place, bar in enumerate(bars)]
    line = ""
    if limit is not None:
        x = across.at(limit)
        line = f"<path d='M{x:.1f} {TOP}V{height - TOP}' stroke='#a1260d' stroke-dasharray='4 4'/>"
    return (
        f"<svg viewBox='0 0 {WIDTH} {height}' width='100%' role='img' aria-label='{escape(told)}'>"
        f"{''.join(rows)}{line}</svg>"
    )


def _row(bar: Bar, middle: float, across: Scale) -> str:
    parts = [f"<text x='{LEFT - 8}' y='{middle + 4:.1f}' text-anchor='end'>{escape(bar.label)}</text>"]
    at = 0.0
    for part in bar.parts:
        x, end = across.at(at), across.at(at + part.value)
        at += part.value
        parts.append(
            f"<rect x='{x:.2f}' y='{middle - BAR_HEIGHT / 2:.1f}' width='{max(end - x, 0):.2f}' "
            f"height='{BAR_HEIGHT}' fill='{part.color}'><title>{escape(part.told)}</title></rect>"
        )
    if bar.whiskers:
        ends = [across.at(value) for value in bar.whiskers]
        ticks = "".join(f"M{x:.1f} {middle - 5:.1f}v10" for x in ends)
        parts.append(f"<path d='M{across.at(at):.1f} {middle:.1f}H{max(ends):.1f}{ticks}' stroke='#1b1f24'/>")
    furthest = max([across.at(at), *(across.at(value) for value in bar.whiskers)])
    parts.append(f"<text x='{furthest + 6:.1f}' y='{middle + 4:.1f}'>{escape(bar.behind)}</text>")
    return "".join(parts)
