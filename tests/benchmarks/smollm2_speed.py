"""Tokens a second of SmolLM2-135M in each precision, all on one thread and in turns.

    OMP_NUM_THREADS=1 python tests/benchmarks/smollm2_speed.py BUNDLE [--quick] [--json]

Each round decodes some tokens with every precision, one after the other, at a context of 256 and of 1,024; the ratio to
float32 is the median over rounds of that round's two times, so that what else the machine does meets all alike. INT8
needs ranges; how good they are does not change its speed, so few are taken. Exit code 1 when int4 is less than twice as
fast as float32.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from smollm2.checkpoint import gguf_path, read_smollm2
from smollm2.stage import LanguageModelStage, calibrate_stage, export_smollm2, quantize_stage
from smollm2.text import windows

from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console

PRECISIONS = ("fp32", "int8", "int8-weights", "int4-weights:32", "int4-weights:128")
CONTEXTS = (256, 1024)
BAR = {"int4-weights:32": 2.0, "int4-weights:128": 2.0}
PREFILLED_AT_ONCE = 256


@dataclass
class Decoder:
    """A session with a filled cache; decoding always writes behind the same context."""

    session: OnnxRuntimeSession
    context: int
    embeddings: np.ndarray
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cache = self.session.create_cache(self.context + 64)
        ids = np.arange(self.context) % len(self.embeddings)
        for start in range(0, self.context, PREFILLED_AT_ONCE):
            self._run(ids[start : start + PREFILLED_AT_ONCE], start)

    def decode(self, tokens: int) -> float:
        """Seconds a token."""
        started = time.perf_counter()
        for place in range(tokens):
            self._run(np.array([place]), self.context + place)
        return (time.perf_counter() - started) / tokens

    def _run(self, ids: np.ndarray, length: int) -> None:
        fed = {"embeddings": self.embeddings[ids][None], "cache_length": np.array([length], np.int64)}
        self.session.run_with_cache(fed, self._cache)


def measure(stages: dict[str, LanguageModelStage], table: np.ndarray, rounds: int, tokens: int) -> list[dict]:
    """One row a precision and context: tokens a second, their spread, and the ratio to float32 with its own."""
    rows = []
    sessions = {name: stage.open() for name, stage in stages.items()}
    for context in CONTEXTS:
        decoders = {name: Decoder(session, context, table) for name, session in sessions.items()}
        for decoder in decoders.values():
            decoder.decode(2)
        for _ in range(rounds):
            for decoder in decoders.values():
                decoder.seconds.append(decoder.decode(tokens))
        base = np.array(decoders["fp32"].seconds)
        for name, decoder in decoders.items():
            seconds = np.array(decoder.seconds)
            low, middle, high = np.quantile(1 / seconds, [0.25, 0.5, 0.75])
            ratio = np.quantile(base / seconds, [0.25, 0.5, 0.75])
            rows.append(
                {"precision": name, "context": context, "tokens_per_second": middle, "quartiles": [low, high],
                 "ratio": ratio[1], "ratio_quartiles": [ratio[0], ratio[2]]}
            )  # fmt: skip
    return rows


def main() -> int:
    """Print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--work", type=Path, default=Path("out/smollm2-speed"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(options.json)
    with console.progress() as progress:
        model = read_smollm2(options.gguf or gguf_path())
        table = model.weights["model.embed_tokens.weight"].numpy()
        stages = {"fp32": export_smollm2(model, Bundle.open(options.bundle), options.work / "fp32")}
        ranges = calibrate_stage(stages["fp32"], table, windows(model.tokenizer, False, 2, 128), progress)
        for place, name in enumerate(PRECISIONS[1:], 1):
            folder = options.work / name.replace(":", "-")
            stages[name] = quantize_stage(stages["fp32"], name, ranges, folder)
            progress.step("quantizing", place, len(PRECISIONS) - 1)
    rows = measure(stages, table, 5 if options.quick else 15, 8 if options.quick else 16)
    cells = []
    for row in rows:
        bar = BAR.get(row["precision"])
        cells.append(
            [str(row["context"]), row["precision"], f"{row['tokens_per_second']:.1f}",
             "{:.1f} to {:.1f}".format(*row["quartiles"]), f"{row['ratio']:.2f} ×",
             "{:.2f} to {:.2f}".format(*row["ratio_quartiles"]),
             "" if bar is None else f"{bar:.1f} ×", "" if bar is None else "yes" if row["ratio"] >= bar else "NO"]
        )  # fmt: skip
    columns = ["context", "precision", "tokens/s", "quartiles", "fp32", "quartiles", "at least", "reached"]
    console.table("", columns, cells, [0, 2, 3, 4, 5, 6])
    console.result({"threads": 1, "rows": rows})
    return 0 if all(row["ratio"] >= BAR.get(row["precision"], 0.0) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
