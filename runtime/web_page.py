"""What all rooms' HTML reports share: one page that needs nothing beside it, its tables, and a scale for plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0 2rem; }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #d8dee4; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.bar { display: inline-block; height: .7rem; background: #2f6f8f; }
.rest { display: inline-block; height: .7rem; background: #d8dee4; }
.line { white-space: nowrap; }
.worse { color: #a1260d; } .note { color: #57606a; }
audio { height: 2rem; vertical-align: middle; }
svg text { font: 12px system-ui, sans-serif; fill: #57606a; }
"""


def html_page(title: str, parts: Iterable[str], more_style: str = "") -> str:
    """A whole page.

    Args:
        title: plain text.
        parts: HTML.
        more_style: CSS beside `STYLE`.
    """
    head = f"<meta charset='utf-8'><title>{escape(title)}</title><style>{STYLE}{more_style}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table.

    Args:
        columns: plain text.
        rows: cells of HTML: text from elsewhere must be escaped already.
        numbers: indices of columns that are aligned to the right.
    """
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = []
    for row in rows:
        cells = (
            f"<td class='number'>{cell}</td>" if place in numbers else f"<td>{cell}</td>"
            for place, cell in enumerate(row)
        )
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


class Scale:
    """Values onto a line of a picture, from the least to the largest."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self.low, self.high = min(values), max(values)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """Where a value lies; in the middle, if all are the same."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self._start + share * (self._end - self._start)
