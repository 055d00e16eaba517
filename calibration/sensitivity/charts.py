"""A search as a part of the report's page: bars of the layers' sensitivity, and the frontier of size against cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from sottovoce.calibration.sensitivity.report import FrontierPoint, LayerSensitivity, SearchReport, by_sensitivity
from sottovoce.runtime.web_page import Scale

STYLE = """
.kept { display: inline-block; height: .7rem; background: #b3541e; }
svg .chosen { fill: #b3541e; }
"""
BAR_REM = 16
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 60, 36, 44
"""Margins of the plot, for its labels."""
LETTER_WIDTH, LETTER_HEIGHT = 7, 11
"""Of 12 pixels' type, at most."""


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
    across = Scale([point.bytes / 1e6 for point in points], LEFT, WIDTH - RIGHT)
    upwards = Scale([0.0, search.limit, *(point.cost for point in points)], HEIGHT - BOTTOM, TOP)
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
        *(label.text for label in place_labels(search, across, upwards)),
        *_sizes_below(across),
        f"<text x='{LEFT - 6}' y='{HEIGHT - BOTTOM}' text-anchor='end'>{upwards.low:.3g}</text>",
        f"<text x='{LEFT - 6}' y='{TOP + 4}' text-anchor='end'>{upwards.high:.3g}</text>",
        f"<text x='{LEFT}' y='{TOP - 24}'>{escape(search.unit)}</text>",
        "</svg>",
    ]
    return "".join(parts)


def _dot(point: FrontierPoint, search: SearchReport, across: Scale, upwards: Scale) -> str:
    x, y = across.at(point.bytes / 1e6), upwards.at(point.cost)
    is_chosen = point.kept == search.kept
    look = "r='7' class='chosen'" if is_chosen else "r='4' fill='#2f6f8f'"
    told = f"{point.kept} kept: {point.bytes / 1e6:,.1f} MB, {point.cost:.3g} {search.unit}"
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' {look}><title>{escape(told)}</title></circle>"


@dataclass(frozen=True)
class Label:
    """A text on the plot and the box that it covers."""

    text: str
    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: Label) -> bool:
        """Whether the two boxes overlap."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def place_labels(search: SearchReport, across: Scale, upwards: Scale) -> list[Label]:
    """The labels of the points, beside them, that do not overlap; of points that crowd, some have none.

    The chosen point comes first, and is named in any case. What has no label tells itself when it is pointed at.
    """
    placed: list[Label] = []
    limit = upwards.at(search.limit)
    taken = [Label("", LEFT, WIDTH, limit - 3, limit + 3)]
    for point in sorted(search.points, key=lambda point: (point.kept != search.kept, point.kept)):
        x, y = across.at(point.bytes / 1e6), upwards.at(point.cost)
        taken.append(Label("", x - 5, x + 5, y - 5, y + 5))
    for point in sorted(search.points, key=lambda point: (point.kept != search.kept, point.kept)):
        x, y = across.at(point.bytes / 1e6), upwards.at(point.cost)
        said = f"{point.kept} kept{', chosen' if point.kept == search.kept else ''}"
        places = [label for label in _around(x, y, said) if label.left >= LEFT - 4 and label.bottom < HEIGHT - BOTTOM]
        free = [label for label in places if not any(label.meets(other) for other in (*taken, *placed))]
        placed += free[:1] or places[: point.kept == search.kept]
    return placed


def _around(x: float, y: float, said: str) -> list[Label]:
    """A point's label above it, below, to the right and to the left."""
    wide, tall, gap = LETTER_WIDTH * len(said), LETTER_HEIGHT, 9
    return [
        Label(_label(middle, base, said), middle - wide / 2, middle + wide / 2, base - tall, base + 2)
        for middle, base in (
            (x, y - gap - 1),
            (x, y + gap + tall),
            (x + gap + wide / 2, y + tall / 2 - 1),
            (x - gap - wide / 2, y + tall / 2 - 1),
        )
    ]


def _sizes_below(across: Scale) -> tuple[str, ...]:
    """Both ends of the line of sizes; one number where all are the same."""
    y = HEIGHT - BOTTOM + 18
    if across.low == across.high:
        return (_label(across.at(across.low), y, f"{across.low:.4g} MB"),)
    return _label(LEFT, y, f"{across.low:.4g}"), _label(WIDTH - RIGHT, y, f"{across.high:.4g} MB")


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
