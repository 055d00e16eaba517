"""What `calibrate` costs beside just holding the same conversations: CPU time, and peak memory over their number.

    OMP_NUM_THREADS=1 python tests/benchmarks/calibration_cost.py BUNDLE --data DIR [--counts 100 300 1000]
        [--quick] [--json]

Each figure comes from a process of its own, on one core, in CPU seconds. A set that is smaller than a count is held
again from its start: what statistics take in memory does not depend on whether conversations differ. The heap of a
process grows with the conversations it holds, calibrating or not, so what calibrating adds is shown, too. Exit code 1
when calibrating takes more than 1.5 times as long as just holding them, or when its memory grows by more than a tenth
between the last two counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.ranges.calibrate import observe
from sottovoce.calibration.replay import replay
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console
from sottovoce.runtime.progress import SilentProgress
from sottovoce.runtime.steady_memory import give_back_freed_memory


def measure(bundle: Path, data: Path, count: int, observed: bool) -> str:
    """CPU seconds and peak megabytes of this process for the first `count` conversations."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # a second thread's waiting is no work
    items = list(islice(cycle(read_evaluation_set(data)), count))
    give_back_freed_memory()  # as the command does
    started = time.process_time()
    if observed:
        with tempfile.TemporaryDirectory(dir=bundle.absolute().parent) as scratch:
            observe(Bundle.open(bundle), items, data, SilentProgress(), Path(scratch))
    else:
        with Assistant.open(bundle) as assistant:
            for item in items:
                replay(assistant, item, data, speech=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return f"{time.process_time() - started:.1f} {peak:.0f}"


def figures(bundle: Path, data: Path, count: int) -> dict[str, float]:
    """Seconds and megabytes of holding `count` conversations, and of calibrating on them."""
    found: dict[str, float] = {"conversations": count}
    for how in ("held", "calibrated"):
        command = [sys.executable, __file__, str(bundle), "--data", str(data), "--child", str(count), how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[f"{how}_seconds"], found[f"{how}_megabytes"] = (float(figure) for figure in done.stdout.split())
    return {**found, "ratio": found["calibrated_seconds"] / found["held_seconds"]}


def main() -> int:
    """Print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--quick", action="store_true", help="20 and 60 conversations")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("COUNT", "HOW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(measure(options.bundle, options.data, int(options.child[0]), options.child[1] == "calibrated"))
        return 0
    console = Console(options.json)
    counts = [20, 60] if options.quick else options.counts
    rows = [figures(options.bundle, options.data, count) for count in counts]
    cells = [
        [f"{row['conversations']:,}", f"{row['held_seconds']:.1f} s", f"{row['calibrated_seconds']:.1f} s",
         f"{row['ratio']:.2f}", f"{row['held_megabytes']:.0f} MB", f"{row['calibrated_megabytes']:.0f} MB"]
        for row in rows
    ]  # fmt: skip
    columns = ["conversations", "held", "calibrated", "ratio", "memory held", "memory calibrated"]
    console.table("", columns, cells, [0, 1, 2, 3, 4, 5])
    added = [row["calibrated_megabytes"] - row["held_megabytes"] for row in rows]
    memory = [row["calibrated_megabytes"] for row in rows]
    flat = len(memory) < 2 or memory[-1] < 1.1 * memory[-2]
    console.say(f"calibrating adds {', '.join(f'{megabytes:.0f}' for megabytes in added)} MB")
    console.result({"rows": rows, "added_megabytes": added, "memory_flat": flat})
    return 0 if flat and rows[-1]["ratio"] <= 1.5 else 1


if __name__ == "__main__":
    sys.exit(main())
