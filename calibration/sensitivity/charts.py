"""A search as a part of the report's page: bars of the layers' sensitivity, and the frontier of size against cost."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sottovoce.calibration.sensitivity.report import FrontierPoint, LayerSensitivity, SearchReport, by_sensitivity

STYLE = """
.kept { display: inline-block; height: .7rem; background: #b3541e; }
svg text { font: 12px system-ui, sans-serif; fill: #57606a; } svg .chosen { fill: #b3541e; }
"""
BAR_REM = 16
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 60, 24, 44
"""Margins of the plot, for its labels."""


def search_section(search: SearchReport) -> str:
    """Headings, plot and bars."""
    chosen = search.chosen
    text = sum(layer.measure == "kl" for layer in search.layers)
    said = (
        f"Budget {search.budget}: the {search.kept} most sensitive of {text} layers stay in floating point, which "
        f"costs {chosen.cost:.3g} {search.unit} on {search.accepted_on} conversations that no layer was measured on."
    )
    return "".join(
        (
            "<h2>Size against cost</h2>",
            f"<p>{escape(said)}</p>",
            frontier_plot(search),
            "<h2>Sensitivity</h2>",
            f"<p>What it costs when one layer alone is as planned, on {search.ranked_on} conversations.</p>",
            _bars("KL divergence of the next token", by_sensitivity(search.layers, "kl"), search.kept),
            _bars("Relative squared error of the stage", by_sensitivity(search.layers, "relative_error"), 0),
        )
    )


def frontier_plot(search: SearchReport) -> str:
    """Each bundle that was tried, as an inline SVG: bytes to the right, cost upwards, the budget as a line."""
    points = search.points
    across = _Scale([point.bytes / 1e6 for point in points], LEFT, WIDTH - RIGHT)
    upwards = _Scale([0.0, search.limit, *(point.cost for point in points)], HEIGHT - BOTTOM, TOP)
    line = " ".join(f"{across.at(point.bytes / 1e6):.1f},{upwards.at(point.cost):.1f}" for point in points)
    limit = upwards.at(search.limit)
    parts = [
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' role='img' "
        "aria-label='Size of each bundle that was tried, against what it costs'>",
        f"<path d='M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}' fill='none' stroke='#d8dee4'/>",
        f"<path d='M{LEFT} {limit:.1f}H{WIDTH - RIGHT}' stroke='#a1260d' stroke-dasharray='4 4'/>",
        f"<text x='{WIDTH - RIGHT + 4}' y='{limit + 4:.1f}'>budget</text>",
        f"<polyline points='{line}' fill='none' stroke='#2f6f8f'/>",
        *(_dot(point, search, across, upwards) for point in points),
        _label(LEFT, HEIGHT - BOTTOM + 18, f"{across.low:.3g}"),
        _label(WIDTH - RIGHT, HEIGHT - BOTTOM + 18, f"{across.high:.3g} MB"),
        f"<text x='{LEFT - 6}' y='{HEIGHT - BOTTOM}' text-anchor='end'>{upwards.low:.3g}</text>",
        f"<text x='{LEFT - 6}' y='{TOP + 4}' text-anchor='end'>{upwards.high:.3g}</text>",
        f"<text x='{LEFT}' y='{TOP - 10}'>{escape(search.unit)}</text>",
        "</svg>",
    ]
    return "".join(parts)


class _Scale:
    """Values onto a line of the picture, from the least to the largest."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self.low, self.high = min(values), max(values)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """Where a value lies; in the middle, if all are the same."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self._start + share * (self._end - self._start)


def _dot(point: FrontierPoint, search: SearchReport, across: _Scale, upwards: _Scale) -> str:
    x, y = across.at(point.bytes / 1e6), upwards.at(point.cost)
    is_chosen = point.kept == search.kept
    look = "r='7' class='chosen'" if is_chosen else "r='4' fill='#2f6f8f'"
    told = f"{point.kept} kept: {point.bytes / 1e6:,.1f} MB, {point.cost:.3g} {search.unit}"
    label = f"{point.kept} kept{', chosen' if is_chosen else ''}"
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' {look}><title>{escape(told)}</title></circle>" + _label(x, y - 10, label)


def _label(x: float, y: float, text: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='middle'>{escape(text)}</text>"


def _bars(title: str, layers: Sequence[LayerSensitivity], kept: int) -> str:
    """One row a layer, the most sensitive first; the first `kept` are marked."""
    if not layers:
        return ""
    largest = max(layer.value for layer in layers) or 1.0
    rows = []
    for place, layer in enumerate(layers):
        look, note = ("kept", "kept") if place < kept else ("bar", "")
        bar = f"<span class='{look}' style='width:{BAR_REM * layer.value / largest:.2f}rem'></span>"
        cells = (escape(layer.stage), escape(layer.layer), bar, f"{layer.value:.2g}", note)
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in ("stage", "layer", title, "", ""))
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"
