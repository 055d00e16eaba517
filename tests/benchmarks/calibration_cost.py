"""What `calibrate` costs beside just holding the same conversations: CPU time, and peak memory over their number.

    python tests/benchmarks/calibration_cost.py BUNDLE --data DIR

Each figure comes from a process of its own, on one thread, in CPU seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.ranges.calibrate import observe
from sottovoce.calibration.replay import replay
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console
from sottovoce.runtime.progress import SilentProgress


def measure(bundle: Path, data: Path, count: int, observed: bool) -> str:
    """CPU seconds and peak megabytes of this process for the first `count` conversations."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # a second thread's waiting is no work
    items, started = read_evaluation_set(data)[:count], time.process_time()
    if observed:
        with tempfile.TemporaryDirectory(dir=bundle.absolute().parent) as scratch:
            observe(Bundle.open(bundle), items, data, SilentProgress(), Path(scratch))
    else:
        with Assistant.open(bundle) as assistant:
            for item in items:
                replay(assistant, item, data, speech=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return f"{time.process_time() - started:.1f} {peak:.0f}"


def main() -> int:
    """Print the table; 1 when calibrating is slower than 1.5 times running."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--child", nargs=2, metavar=("COUNT", "HOW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(measure(options.bundle, options.data, int(options.child[0]), options.child[1] == "observed"))
        return 0
    whole = len(read_evaluation_set(options.data))
    rows, ratio = [], 0.0
    for count in (whole // 4, whole):
        figures = {}
        for how in ("plain", "observed"):
            command = [sys.executable, __file__, str(options.bundle), "--data", str(options.data)]
            done = subprocess.run([*command, "--child", str(count), how], capture_output=True, text=True, check=True)
            figures[how] = [float(figure) for figure in done.stdout.split()]
        ratio = figures["observed"][0] / figures["plain"][0]
        rows.append([str(count), *(f"{figures[how][0]:.1f} s" for how in figures), f"{ratio:.2f}",
                     *(f"{figures[how][1]:.0f} MB" for how in figures)])  # fmt: skip
    columns = ["conversations", "held", "calibrated", "ratio", "memory held", "memory calibrated"]
    Console().table("", columns, rows, [0, 1, 2, 3, 4, 5])
    return 1 if ratio > 1.5 else 0


if __name__ == "__main__":
    sys.exit(main())
