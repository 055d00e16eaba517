"""The waterfall of one turn as an inline SVG: a row a stage, time to the right, moments as lines across."""

from __future__ import annotations

from html import escape
from itertools import pairwise

from sottovoce.runtime.profiling.page.colors import stage_color
from sottovoce.runtime.profiling.waterfall import Row, Waterfall
from sottovoce.runtime.profiling.wording import shown_ms, shown_name
from sottovoce.runtime.web_page import Scale

WIDTH, LEFT, RIGHT = 900, 150, 20
TOP, ROW_HEIGHT, BAR_HEIGHT, FOOT = 34, 24, 14, 30
LEAST_WIDTH = 0.7
"""Pixels of a bar: nothing that happened is invisible."""
TICKS = 6
LABEL_WIDTH = 125


def waterfall_picture(shown: Waterfall) -> str:
    """The whole picture."""
    height = TOP + ROW_HEIGHT * len(shown.rows) + FOOT
    across = Scale([0.0, max(shown.total_ms, 1e-6)], LEFT, WIDTH - RIGHT)
    rows = [_row(row, place, across) for place, row in enumerate(shown.rows)]
    return (
        f"<svg viewBox='0 0 {WIDTH} {height}' width='100%' role='img' aria-label='When each stage worked in one turn'>"
        f"{_axis(across, height)}{''.join(rows)}{_moments(shown, across, height)}</svg>"
    )


def _row(row: Row, place: int, across: Scale) -> str:
    middle = TOP + ROW_HEIGHT * place + ROW_HEIGHT / 2
    parts = [f"<text x='{LEFT - 8}' y='{middle + 4:.1f}' text-anchor='end'>{escape(shown_name(row.name))}</text>"]
    for start, end in row.bars:
        x = across.at(start)
        width = max(across.at(end) - x, LEAST_WIDTH)
        told = f"{shown_name(row.name)}: {shown_ms(start)} to {shown_ms(end)} ms"
        parts.append(
            f"<rect x='{x:.2f}' y='{middle - BAR_HEIGHT / 2:.1f}' width='{width:.2f}' height='{BAR_HEIGHT}' "
            f"fill='{stage_color(row.name)}'><title>{escape(told)}</title></rect>"
        )
    return "".join(parts)


def _axis(across: Scale, height: int) -> str:
    parts = []
    for tick in range(TICKS + 1):
        value = across.high * tick / TICKS
        x = across.at(value)
        parts.append(f"<path d='M{x:.1f} {TOP}V{height - FOOT}' stroke='#eaeef2'/>")
        parts.append(f"<text x='{x:.1f}' y='{height - 10}' text-anchor='middle'>{value:.0f}</text>")
    parts.append(f"<text x='{LEFT - 8}' y='{height - 10}' text-anchor='end'>ms</text>")
    return "".join(parts)


def _moments(shown: Waterfall, across: Scale, height: int) -> str:
    """Lines across all rows; a label that would lie on its neighbour's moves to the right."""
    known = sorted((value, name) for name, value in shown.moments.items())
    places = [across.at(value) for value, _ in known]
    labels = list(places)
    for index, _ in enumerate(pairwise(places), 1):
        labels[index] = max(labels[index], labels[index - 1] + LABEL_WIDTH)
    over = max(labels[-1] + LABEL_WIDTH - WIDTH, 0.0) if labels else 0.0
    parts = []
    for (value, name), x, label in zip(known, places, labels, strict=True):
        told = f"{shown_name(name)} {shown_ms(value)}"
        parts.append(f"<path d='M{x:.1f} {TOP - 6}V{height - FOOT}' stroke='#a1260d' stroke-dasharray='3 3'/>")
        parts.append(f"<text x='{label - over:.1f}' y='{TOP - 14}'>{escape(told)}</text>")
    return "".join(parts)
