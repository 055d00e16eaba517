"""The miniature in each precision: size and answers, measured on held-out voices and combinations.

    python -m sottovoce.demos.miniature data --calibration CALIBRATION --items 60
    python -m sottovoce.demos.miniature data --held-out HELD_OUT --items 120
    python tests/benchmarks/quantization.py BUNDLE --calibration CALIBRATION --held-out HELD_OUT

Speech is judged by `python -m sottovoce.demos.miniature listen --bundle …` on the bundles that this leaves in --work.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.quantize import QuantizeJob, QuantizeReport, quantize
from sottovoce.calibration.ranges.calibrate import calibrate
from sottovoce.calibration.ranges.range_file import read_ranges
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console

FOUR_BITS = "int8,language_model=int4-weights:{block},speech_codes=int4-weights:{block}"
DECODERS = ("language_model", "speech_codes")


@dataclass(frozen=True)
class Row:
    """One precision, and what it may cost: points of exact replies, and its share of the fp32 size."""

    name: str
    plan: str
    points: float
    size: float
    decoders_only: bool = False


ROWS = (
    Row("fp16", "fp16", 0.0, 0.51),
    Row("int8", "int8", 0.5, 0.27),
    Row("int4", "int8,language_model=int4-weights:32,speech_codes=int4-weights:32", 1.0, 0.18, decoders_only=True),
    Row(
        "int4-128", "int8,language_model=int4-weights:128,speech_codes=int4-weights:128", 1.0, 0.18, decoders_only=True
    ),
    Row("kv-int8", "kv_cache=int8", 0.2, 1.02),
)


def share(report: QuantizeReport, row: Row) -> float:
    """Size after over size before: of everything, or of both decoders with their tables."""
    if not row.decoders_only:
        return report.bytes_after / report.bytes_before
    changes = [change for change in report.stages if change.stage in DECODERS]
    return sum(change.bytes_after for change in changes) / sum(change.bytes_before for change in changes)


def main() -> int:
    """Print the table; 1 when a row misses its bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="in fp32")
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/quantization"), help="where the bundles go")
    parser.add_argument("--only", nargs="*", choices=[row.name for row in ROWS], help="these rows")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(options.json)
    source, ranges = Bundle.open(options.bundle), options.work / "ranges"
    options.work.mkdir(parents=True, exist_ok=True)
    with console.progress() as progress:
        calibrate(source, options.calibration, ranges, progress=progress)
        found = []
        for row in ROWS:
            if options.only and row.name not in options.only:
                continue
            started = time.monotonic()
            job = QuantizeJob(source, parse_plan(row.plan), read_ranges(ranges), options.held_out)
            report = quantize(job, BundleWriter(options.work / f"{row.name}.bundle", force=True), progress)
            found.append((row, report, time.monotonic() - started))
    return show(console, found)


def show(console: Console, found: list[tuple[Row, QuantizeReport, float]]) -> int:
    """The table, and whether every bar holds."""
    cells, figures, missed = [], {}, 0
    for row, report, seconds in found:
        assert report.cost is not None
        size, lost = share(report, row), report.cost.points_lost
        shares = {change.stage: change.multiply_adds_share for change in report.stages}
        counted = [f"{100 * value:.0f}" for value in shares.values() if value is not None]
        good = size <= row.size and lost <= row.points + 1e-9
        missed += not good
        cells.append(
            [row.name, f"{size:.3f}", f"{row.size:.2f}", f"{lost:+.2f}", f"{row.points:.1f}",
             f"{100 * report.cost.same_replies:.1f} %", "/".join(counted), "yes" if good else "NO", f"{seconds:.0f}"]
        )  # fmt: skip
        figures[row.name] = {"size": size, "points_lost": lost, "same_replies": report.cost.same_replies,
                             "multiply_adds": shares, "reached": good}  # fmt: skip
    columns = [
        "precision",
        "size ×",
        "at most",
        "points lost",
        "at most",
        "same",
        "INT8 multiply-adds, %",
        "reached",
        "s",
    ]
    console.table("", columns, cells, [1, 2, 3, 4, 5, 8])
    console.result(figures)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
