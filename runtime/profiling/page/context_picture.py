"""Tokens a second by length of context as an inline SVG: a dot a length, its spread, and a line between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from sottovoce.runtime.profiling.context_speed import ContextSpeed
from sottovoce.runtime.web_page import Scale

WIDTH, HEIGHT = 440, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 30, 30, 34


def context_picture(speeds: Sequence[ContextSpeed], what: str) -> str:
    """Of `what`, "prefill" or "decode"; lengths double to the right."""
    samples = [_tokens_per_second(speed, what) for speed in speeds]
    if not samples:
        return ""
    quartiles = [np.quantile(values, [0.25, 0.5, 0.75]) for values in samples]
    across = Scale([math.log2(speed.context) for speed in speeds], LEFT + 20, WIDTH - RIGHT)
    upwards = Scale([0.0, max(float(high) for _, _, high in quartiles)], HEIGHT - BOTTOM, TOP)
    lengths = [across.at(math.log2(speed.context)) for speed in speeds]
    points = [(x, upwards.at(float(middle))) for x, (_, middle, _) in zip(lengths, quartiles, strict=True)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts = [
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' role='img' "
        f"aria-label='{escape(what)}, tokens a second by length of context'>",
        f"<path d='M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}' fill='none' stroke='#d8dee4'/>",
        f"<text x='{LEFT}' y='{TOP - 12}'>{escape(what)}, tokens a second</text>",
        f"<text x='{LEFT - 6}' y='{TOP + 4}' text-anchor='end'>{upwards.high:,.0f}</text>",
        f"<text x='{LEFT - 6}' y='{HEIGHT - BOTTOM}' text-anchor='end'>0</text>",
        f"<polyline points='{line}' fill='none' stroke='#2f6f8f'/>",
    ]
    for speed, (low, middle, high), (x, y) in zip(speeds, quartiles, points, strict=True):
        told = f"{speed.context}: {middle:,.1f} tokens/s, half between {low:,.1f} and {high:,.1f}"
        parts += [
            f"<path d='M{x:.1f} {upwards.at(float(low)):.1f}V{upwards.at(float(high)):.1f}' stroke='#1b1f24'/>",
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4' fill='#2f6f8f'><title>{escape(told)}</title></circle>",
            f"<text x='{x:.1f}' y='{HEIGHT - BOTTOM + 18}' text-anchor='middle'>{speed.context}</text>",
        ]
    return "".join((*parts, "</svg>"))


def _tokens_per_second(speed: ContextSpeed, what: str) -> list[float]:
    samples = speed.prefill_ms if what == "prefill" else [value for run in speed.decode_ms for value in run]
    return [1000 / value for value in samples]
