"""What `sottovoce profile` costs the turns that it measures, and what our Python costs a decoded token.

    OMP_NUM_THREADS=1 python tests/benchmarks/profile_overhead.py BUNDLE --audio F [--threads 1] [--quick] [--json]
    … --decode BUNDLE2    also a step's Python with BUNDLE2's language model; shown, not judged
    … --smollm2           also with SmolLM2-135M's, exported and quantized into --work

The same question is asked of two assistants in one process by turns, one whose spans and calls are recorded and one
whose are not, each first in every second pair. Both have the same loaded graphs: where a second copy of the weights
happens to lie makes a difference of some percent. What else the machine does meets both alike: the overhead is the
median over pairs of the ratio of their two times, its spread the quartiles. The same is shown in processor time, which
others do not take part in.

A step's Python is all of its time that is not spent inside ONNX Runtime's own `run` call: row of the embedding table,
feeds and bindings, copies, checks, choosing the token. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from judged import Bar, none_missed

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import open_session
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console
from sottovoce.runtime.embeddings import EmbeddingTable
from sottovoce.runtime.features.audio_file import read_audio
from sottovoce.runtime.manifest import EmbeddingTableSpec, FileRecord
from sottovoce.runtime.model import Model
from sottovoce.runtime.profiling.recording import Recording
from sottovoce.runtime.profiling.timed_session import TimedSession
from sottovoce.runtime.profiling.turn import Asked, take_turn
from sottovoce.runtime.sampling import Sampler, SamplingOptions
from sottovoce.runtime.stages.language_model import LanguageModel

MOST_OVERHEAD_PERCENT, MOST_PYTHON_PERCENT = 3, 5
SMOLLM2 = "SmolLM2-135M"
DECODED = 64
CONTEXT = 256


def overhead(bundle: Bundle, asked: Asked, pairs: int, threads: int) -> dict[str, Any]:
    """Ratios of turns that are recorded to turns that are not, less 1: quartiles in wall and in processor time."""
    recording, loaded = Recording(), {}

    def shared(stage):
        if stage not in loaded:
            loaded[stage] = open_session(bundle, stage, threads=threads)
        return loaded[stage]

    def timed(stage):
        return TimedSession(shared(stage), stage, recording)

    with Assistant(Model(bundle, open_stage=shared)) as plain, Assistant(Model(bundle, open_stage=timed)) as recorded:
        turns = {"plain": lambda: take_turn(plain, asked), "recorded": lambda: take_turn(recorded, asked, recording)}
        for _ in range(3):
            for turn in turns.values():
                turn()
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
        for pair in range(pairs):
            for name in sorted(turns, reverse=bool(pair % 2)):
                spent[name].append(both_clocks(turns[name]))
    ratios = np.array(spent["recorded"]) / np.array(spent["plain"]) - 1
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75], axis=0)
    return {
        "pairs": pairs,
        "turn_ms": 1000 * float(np.median([wall for wall, _ in spent["plain"]])),
        "wall": {"overhead": middle[0], "quartiles": [low[0], high[0]]},
        "processor": {"overhead": middle[1], "quartiles": [low[1], high[1]]},
    }


def both_clocks(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the wall's clock, and of the processor's."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


class EngineClock:
    """ONNX Runtime's session, with the time of its `run` calls added up."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.seconds, self.calls = 0.0, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._session, name)
        if not name.startswith("run"):
            return found

        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return found(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - started
                self.calls += 1

        return timed


def python_share(bundle: Bundle, rounds: int, threads: int) -> dict[str, Any]:
    """Of a decoded token's time in a conversation's own loop: share outside of ONNX Runtime, quartiles over rounds."""
    spec = bundle.graph("language_model")
    session = OnnxRuntimeSession("language_model", spec, bundle.file(spec.file), threads)
    clock = session._session = EngineClock(session._session)
    table = EmbeddingTable(bundle, bundle.manifest.token_embeddings)
    model = LanguageModel(session)
    cache = model.create_cache()
    sampler = Sampler(SamplingOptions(greedy=True))
    model.prefill(table.rows(np.arange(CONTEXT) % table.spec.rows), cache)
    shares, steps, outside = [], [], []
    for number in range(rounds + 1):
        cache.rewind(CONTEXT)
        token, clock.seconds, clock.calls = 1, 0.0, 0
        started = time.perf_counter()
        for _ in range(DECODED):
            token = sampler.pick(model.step(table.rows([token]), cache))
        spent = time.perf_counter() - started
        assert clock.calls == DECODED, "the engine's calls were not seen"
        if number:
            shares.append(1 - clock.seconds / spent)
            steps.append(1000 * spent / DECODED)
            outside.append(1e6 * (spent - clock.seconds) / DECODED)
    low, middle, high = np.quantile(shares, [0.25, 0.5, 0.75])
    return {
        "share": middle, "quartiles": [low, high], "step_ms": float(np.median(steps)),
        "python_us": float(np.median(outside)), "rounds": rounds,
    }  # fmt: skip


def smollm2(host: Bundle, work: Path) -> dict[str, Bundle]:
    """SmolLM2-135M as a language model with its table, in float32 and in int4, which is the harder of the two."""
    from smollm2.checkpoint import gguf_path, read_smollm2
    from smollm2.stage import export_smollm2, quantize_stage

    model = read_smollm2(gguf_path())
    table = np.ascontiguousarray(model.weights["model.embed_tokens.weight"].numpy(), dtype="<f4")
    stages = {"fp32": export_smollm2(model, host, work / "fp32")}
    shutil.rmtree(work / "int4", ignore_errors=True)
    stages["int4"] = quantize_stage(stages["fp32"], "int4-weights:32", None, work / "int4")
    return {name: with_table(stage.bundle, table) for name, stage in stages.items()}


def with_table(bundle: Bundle, table: np.ndarray) -> Bundle:
    """A folder with one graph, and the embedding table that goes with it."""
    name = "token_embeddings.bin"
    table.tofile(bundle.path / name)
    files = {**bundle.manifest.files, name: FileRecord(table.nbytes, "")}
    spec = EmbeddingTableSpec(name, "float32", *table.shape)
    return Bundle(bundle.path, replace(bundle.manifest, files=files, token_embeddings=spec))


def main() -> int:
    """Print the tables; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--audio", type=Path, help="a recorded question; without it, a typed one")
    parser.add_argument("--decode", type=Path, help="also a step's Python in this bundle; shown, not judged")
    parser.add_argument("--smollm2", action="store_true", help="also a step's Python in SmolLM2-135M")
    parser.add_argument("--work", type=Path, default=Path("out/profile-overhead"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(options.json)
    bundle = Bundle.open(options.bundle)
    audio = None if options.audio is None else read_audio(options.audio)
    asked = Asked("What is the capital of France?" if audio is None else None, audio)
    cost = overhead(bundle, asked, 30 if options.quick else 150, options.threads)
    bars, rows = [], []

    def note(what: str, share: float, quartiles: list[float], of: str, most: float | None) -> None:
        bars.append(Bar(what, 100 * share, at_most=most))
        spread = " to ".join(f"{100 * end:+.2f} %" for end in quartiles)
        wanted = f"{bars[-1].wanted} %" if bars[-1].wanted else ""
        rows.append([what, f"{100 * share:+.2f} %", spread, of, wanted, bars[-1].verdict])

    for clock, most in (("wall", MOST_OVERHEAD_PERCENT), ("processor", None)):
        measured = cost[clock]
        of = f"{cost['turn_ms']:.0f} ms a turn"
        note(f"profile, {clock} time", measured["overhead"], measured["quartiles"], of, most)
    shares = python_shares(bundle, options)
    for name, share in shares.items():
        of = f"{share['step_ms']:.2f} ms a step, {share['python_us']:.0f} µs of it Python"
        most = MOST_PYTHON_PERCENT if name.startswith(SMOLLM2) else None
        note(f"Python a step, {name}", share["share"], share["quartiles"], of, most)
    console.table("", ["", "share", "quartiles", "of", "should be", "reached"], rows, [1, 2, 3, 4])
    console.result({"threads": options.threads, "profile": cost, "python": shares})
    return 0 if none_missed(bars) else 1


def python_shares(bundle: Bundle, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Of the language models that were asked for, by what they are called."""
    shares: dict[str, dict[str, Any]] = {}
    if options.decode is not None:
        shares[options.decode.name] = python_share(Bundle.open(options.decode), 20, options.threads)
    if options.smollm2:
        for name, stage in smollm2(bundle, options.work).items():
            shares[f"{SMOLLM2} {name}"] = python_share(stage, 5 if options.quick else 20, options.threads)
    return shares


if __name__ == "__main__":
    sys.exit(main())
