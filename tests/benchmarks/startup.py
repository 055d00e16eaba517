"""How long until a bundle is ready, against bare ONNX Runtime sessions on the same files; and what importing costs.

    OMP_NUM_THREADS=1 python tests/benchmarks/startup.py BUNDLE [--threads 2] [--rounds 15] [--json]

Every start is a process of its own, and the kinds take turns, so that what else the machine does meets all alike. The
clock starts when the process is asked for and stops when it says that it is ready: interpreter, imports, checking and
loading are all in it. "Loaded" is what a first spoken question needs, hashes compared; "warm" has also spoken once, as
`chat` does before it listens. The bare process opens the same graphs in sessions of ONNX Runtime's own settings.
Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from judged import Bar, none_missed

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console
from sottovoce.runtime.manifest import STAGES, StageName

SPOKEN: tuple[StageName, ...] = tuple(stage for stage in STAGES if stage != "vision_encoder")
"""What a spoken question needs: the vision encoder waits for a picture."""
READY = "ready"
AGAINST: dict[str, tuple[str, float | None]] = {
    "import sottovoce.runtime": ("import onnxruntime", 1.3),
    "import its Assistant": ("import onnxruntime", None),
    "loaded": ("bare sessions", 1.5),
    "warm": ("bare sessions", None),
}
"""What a start is compared with, and how many times as long it may take."""

BARE = f"""
import sys, onnxruntime
sessions = []
for path in sys.argv[2:]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(sys.argv[1])
    options.log_severity_level = 3
    sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
print({READY!r}, flush=True)
"""
OURS = f"""
import sys
from sottovoce.runtime import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.model import Model
model = Model(Bundle.open(sys.argv[2]), threads=int(sys.argv[1]))
assistant = Assistant(model)
model.load({SPOKEN!r}) if sys.argv[3] == "loaded" else assistant.load()
print({READY!r}, flush=True)
"""


def seconds_until_ready(code: str, *arguments: str) -> float:
    """From asking for a process to its word."""
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        spent = time.perf_counter() - started
    if said != READY or process.returncode != 0:
        raise SystemExit(f"a start ended with {process.returncode} and said {said!r}, expected {READY!r}")
    return spent


def measure(bundle: Bundle, threads: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of every start by its kind; one round before them is not counted."""
    graphs = [str(bundle.file(bundle.graph(stage).file)) for stage in SPOKEN]
    folder = str(bundle.path)
    ready = f"print({READY!r}, flush=True)"
    starts = {
        "python": (ready,),
        "import onnxruntime": (f"import onnxruntime; {ready}",),
        "import sottovoce.runtime": (f"import sottovoce.runtime; {ready}",),
        "import its Assistant": (f"from sottovoce.runtime import Assistant; {ready}",),
        "bare sessions": (BARE, str(threads), *graphs),
        "loaded": (OURS, str(threads), folder, "loaded"),
        "warm": (OURS, str(threads), folder, "warm"),
    }
    spent: dict[str, list[float]] = {name: [] for name in starts}
    for number in range(rounds + 1):
        for name, start in starts.items():
            seconds = seconds_until_ready(*start)
            if number:
                spent[name].append(seconds)
    return spent


def main() -> int:
    """Print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(options.json)
    spent = measure(Bundle.open(options.bundle), options.threads, 5 if options.quick else options.rounds)
    bars = {
        name: Bar(name, float(np.median(np.array(spent[name]) / np.array(spent[other]))), at_most=most)
        for name, (other, most) in AGAINST.items()
    }
    rows, figures = [], {}
    for name, seconds in spent.items():
        low, middle, high = (1000 * float(value) for value in np.quantile(seconds, [0.25, 0.5, 0.75]))
        row = [name, f"{middle:.0f} ms", f"{low:.0f} to {high:.0f}"]
        figures[name] = {"median_ms": middle, "quartiles_ms": [low, high]}
        if name in bars:
            bar, other = bars[name], AGAINST[name][0]
            row += [f"{bar.found:.2f} × {other}", bar.wanted, bar.verdict]
            figures[name] |= {"ratio": bar.found, "against": other, "bar": bar.at_most}
        rows.append(row + [""] * (6 - len(row)))
    console.table("", ["until", "median", "quartiles", "against", "should be", "reached"], rows, [1, 2, 3, 4])
    console.result({"threads": options.threads, "starts": figures})
    return 0 if none_missed(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
