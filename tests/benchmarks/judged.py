"""What a benchmark found against what it should find: the lines of a table, and whether all of it was reached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    @property
    def wanted(self) -> str:
        """The value that it should have, for a table's cell; empty where nothing is asked for."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"

    @property
    def verdict(self) -> str:
        """Whether it was reached, for the cell beside it."""
        return {None: "not measured" if self.found is None else "", True: "yes", False: "NO"}[self.reached]


def show(console: Console, found: Sequence[Bar]) -> bool:
    """The table; whether no bar was missed."""
    rows = [[bar.what, "" if bar.found is None else f"{bar.found:,.2f}", bar.wanted, bar.verdict] for bar in found]
    console.table("", ["", "found", "should be", "reached"], rows, [1, 2])
    return none_missed(found)


def none_missed(found: Iterable[Bar]) -> bool:
    """Whether whatever was measured was reached."""
    return all(bar.reached is not False for bar in found)


def as_records(found: Sequence[Bar]) -> list[dict[str, object]]:
    """For JSON."""
    return [{**vars(bar), "reached": bar.reached} for bar in found]
