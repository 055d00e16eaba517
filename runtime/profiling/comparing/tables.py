"""A comparison for people, and as one JSON object."""

from __future__ import annotations

from typing import Any

from sottovoce.runtime.console import Console
from sottovoce.runtime.profiling.comparing.compare import Change, Comparison
from sottovoce.runtime.profiling.wording import distinct_name, plain, shown_ms
from sottovoce.runtime.records import write_record

NO_DIFFERENCE = "no difference shown"
COLUMNS = ["", "before, ms", "after, ms", "change", "interval", ""]


def show_comparison(console: Console, comparison: Comparison, names: tuple[str, str]) -> None:
    """The differences of setting first: they decide what the rest can mean."""
    if comparison.machines:
        console.warn("THESE ARE TWO DIFFERENT MACHINES, so there is no verdict:")
        for difference in comparison.machines:
            console.warn(f"  {plain(difference)}")
    console.say(f"before  {plain(names[0])}")
    console.say(f"after   {plain(names[1])}")
    for difference in comparison.settings:
        console.say(f"not the same: {plain(difference)}")
    for warning in comparison.warnings:
        console.warn(plain(warning))
    console.table("", COLUMNS, [_cells(change) for change in comparison.changes], [1, 2, 3, 4])
    for title, only in (("only before", comparison.only_before), ("only after", comparison.only_after)):
        if only:
            console.say(f"{title}: {plain(', '.join(map(distinct_name, only)))}")
    console.say()
    console.say(summary(comparison))


def summary(comparison: Comparison) -> str:
    """What changed, in a line or two."""
    if comparison.machines:
        return "no verdict: times of two machines say nothing about what was changed between them"
    if not comparison.changes:
        return "no verdict: the two reports have no measure in common"
    lines = []
    for verdict in ("slower", "faster"):
        named = [f"{distinct_name(one.name)} {one.change:+.1%}" for one in comparison.changes if one.verdict == verdict]
        if named:
            lines.append(f"{verdict}: {', '.join(named)}")
    few = sum(one.verdict == "too few runs" for one in comparison.changes)
    if few:
        lines.append(f"too few runs to tell {few} of {len(comparison.changes)} measures: --runs 5 or more")
    elif not lines:
        lines.append(NO_DIFFERENCE)
    return plain("; ".join(lines))


def comparison_json(comparison: Comparison, failed: list[Change] | None) -> dict[str, Any]:
    """One object; `failed` holds what was too much slower, or null where nobody asked."""
    value: dict[str, Any] = write_record(comparison)
    for entry, change in zip(value["changes"], comparison.changes, strict=True):
        entry["change"] = change.change
    value["summary"] = summary(comparison)
    value["failed"] = None if failed is None else [change.name for change in failed]
    return value


def _cells(change: Change) -> list[str]:
    interval = change.interval
    return [
        plain(distinct_name(change.name)),
        shown_ms(change.before),
        shown_ms(change.after),
        f"{change.change:+.1%}",
        "" if interval is None else f"{interval.low:+.1%} to {interval.high:+.1%}",
        change.verdict,
    ]
