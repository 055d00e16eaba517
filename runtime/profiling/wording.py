"""Names and numbers of a profile as people read them, the same in tables and on the page."""

from __future__ import annotations

from sottovoce.runtime.profiling.measure import Measure

SHOWN_NAMES = {
    "first_token": "first token",
    "first_audio": "first audio",
    "total": "whole turn",
    "between_tokens": "between tokens",
}
SMALL, MIDDLING = 1.0, 100.0


CALL = ".call"


def shown_name(name: str) -> str:
    """`language_model.step` → `language model, step`; `codec.call` → `codec`, where all are calls."""
    return SHOWN_NAMES.get(name, name.removesuffix(CALL).replace(".", ", ").replace("_", " "))


def distinct_name(name: str) -> str:
    """The same where calls stand beside spans of their stage."""
    return f"{shown_name(name)}, one call" if name.endswith(CALL) else shown_name(name)


def shown_ms(value: float) -> str:
    """Three digits or so, whatever the size."""
    if value < SMALL:
        return f"{value:.3f}"
    return f"{value:.2f}" if value < MIDDLING else f"{value:.0f}"


def measure_cells(one: Measure) -> list[str]:
    """A row: name, how many, mean, p50, p90, p99, max."""
    return [shown_name(one.name), str(one.count), *map(shown_ms, (one.mean, one.p50, one.p90, one.p99, one.max))]


MEASURE_COLUMNS = ["", "n", "mean", "p50", "p90", "p99", "max"]


def percent(share: float) -> str:
    """A share from 0 to 1."""
    return f"{100 * share:.1f} %" if share < SMALL / 10 else f"{100 * share:.0f} %"


def pictures(count: int) -> str:
    """How many, in words; nothing if none."""
    return f"{count} picture{'s' if count > 1 else ''}" if count else ""


def threads(count: int) -> str:
    """How many, in words."""
    return f"{count} thread{'s' if count > 1 else ''}"


def megabytes(value: float | None) -> str:
    """MB, or a dash where it is not known."""
    return "–" if value is None else f"{value:,.0f}"


def plain(text: str) -> str:
    """A string that came from a file, without what a terminal would take as a command."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)
