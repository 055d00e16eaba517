"""What a benchmark found against what it should find: the lines of a table, and whether all of it was reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sottovoce.runtime.console import Console


@dataclass(frozen=True)
class Bar:
    """One line: what it is, what was found (None: not measured), and the value it should have (neither: just told)."""

    what: str
    found: float | None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool | None:
        """None where nothing was measured, or nothing is asked for."""
        if self.found is None or (self.at_least is None and self.at_most is None):
            return None
        return self.found >= self.at_least if self.at_least is not None else self.found <= (self.at_most or 0.0)


def show(console: Console, found: Sequence[Bar]) -> bool:
    """The table; whether no bar was missed."""
    rows = []
    for bar in found:
        wanted = "" if bar.at_most is None else f"≤ {bar.at_most:g}"
        wanted = wanted if bar.at_least is None else f"≥ {bar.at_least:g}"
        reached = {None: "not measured" if bar.found is None else "", True: "yes", False: "NO"}[bar.reached]
        rows.append([bar.what, "" if bar.found is None else f"{bar.found:,.2f}", wanted, reached])
    console.table("", ["", "found", "should be", "reached"], rows, [1, 2])
    return all(bar.reached is not False for bar in found)


def as_records(found: Sequence[Bar]) -> list[dict[str, object]]:
    """For JSON."""
    return [{**vars(bar), "reached": bar.reached} for bar in found]
