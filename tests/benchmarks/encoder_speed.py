"""The audio encoder in INT8 beside float32, at the released width: 1024 wide, four layers, 10 s of audio, one thread.

    OMP_NUM_THREADS=1 python tests/benchmarks/encoder_speed.py BUNDLE [--quick] [--json]

Weights are random: they do not change the speed. BUNDLE is any exported bundle, whose other stages are not looked at.
Both are timed in turns; the ratio is the median over pairs. Exit code 1 when INT8 is less than 1.3 times as fast.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from judged import Bar

from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.stage_quantizer import StageQuantizer
from sottovoce.calibration.ranges.observed_graph import ObservedSession, observed_tensors, write_observed_graph
from sottovoce.calibration.ranges.range_file import FORMAT_VERSION, RangeRecord, Ranges
from sottovoce.export.config import AdapterConfig, AudioEncoderConfig
from sottovoce.export.graphs.audio_encoder import export_audio_encoder
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.modules.audio_encoder import AudioEncoder
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console
from sottovoce.runtime.manifest import FileRecord, StageName

STAGE: StageName = "audio_encoder"
CONFIG = AudioEncoderConfig(
    mel_bins=80, subsampling_size=1024, attention_size=1024, num_heads=16, linear_units=4096, num_blocks=4,
    adapter=AdapterConfig("subsampling", 1024, 3584),
)  # fmt: skip
FRAMES = 1000
LEAST = 1.3


def exported(host: Bundle, folder: Path) -> Bundle:
    """A folder with the encoder's graph in float32, which can be quantized as a bundle's."""
    torch.manual_seed(0)
    (folder / "graphs").mkdir(parents=True, exist_ok=True)
    spec = export_audio_encoder(AudioEncoder(CONFIG).eval(), CONFIG, StageFiles(STAGE, folder, "fp32"))
    files = {name: FileRecord((folder / name).stat().st_size, "") for name in (spec.file, *spec.data)}
    return Bundle(folder, replace(host.manifest, graphs={**host.manifest.graphs, STAGE: spec}, files=files))


def observed(bundle: Bundle, features: np.ndarray, folder: Path) -> Ranges:
    """Ranges of one utterance."""
    shutil.rmtree(folder, ignore_errors=True)
    watched = observed_tensors(StageGraph(bundle, STAGE))
    spec = write_observed_graph(bundle, STAGE, watched, folder)
    session = ObservedSession(STAGE, spec, folder / spec.file, watched, threads=1)
    session.run({"features": features})
    found = {(STAGE, n): c.statistics for n, c in session.collectors.items() if c.statistics is not None}
    return Ranges(RangeRecord(FORMAT_VERSION, "benchmark", "", {}, "", 1, {}, 0.0), found)


def main() -> int:
    """Print the table; 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, default=Path("out/encoder-speed"))
    parser.add_argument("--quick", action="store_true", help="5 rounds instead of 15")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(options.json)
    source = exported(Bundle.open(options.bundle), options.work / "fp32")
    features = np.random.default_rng(0).normal(12, 3, (1, FRAMES, CONFIG.mel_bins)).astype(np.float32)
    ranges = observed(source, features, options.work / "observed")
    spec = StageQuantizer(source, STAGE, parse_plan(f"{STAGE}=int8").of(STAGE), ranges).write(options.work / "int8")
    sessions = {
        "fp32": OnnxRuntimeSession(STAGE, source.graph(STAGE), source.file(source.graph(STAGE).file), threads=1),
        "int8": OnnxRuntimeSession(STAGE, spec, options.work / "int8" / spec.file, threads=1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range((5 if options.quick else 15) + 1):
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run({"features": features})
            if number:  # the first call allocates
                seconds[name].append(time.perf_counter() - started)
    ratios = np.quantile(np.array(seconds["fp32"]) / np.array(seconds["int8"]), [0.25, 0.5, 0.75])
    rows = [
        [name, *(f"{1000 * value:.0f} ms" for value in np.quantile(times, [0.5, 0.25, 0.75]))]
        for name, times in seconds.items()
    ]
    console.table("", ["precision", "10 s of audio", "quartile", "quartile"], rows, [1, 2, 3])
    quantized = spec.quantization
    assert quantized is not None
    assert quantized.multiply_adds_share is not None
    bar = Bar("int8 against fp32", ratios[1], LEAST)
    console.say(
        f"int8 is {ratios[1]:.2f} × as fast ({ratios[0]:.2f} to {ratios[2]:.2f}), should be {bar.wanted}: "
        f"{bar.verdict}; {100 * quantized.multiply_adds_share:.1f} % of its multiply-adds are in INT8"
    )
    console.result(
        {"threads": 1, "seconds": seconds, "ratio": ratios[1], "ratio_quartiles": [ratios[0], ratios[2]],
         "multiply_adds_share": quantized.multiply_adds_share}
    )  # fmt: skip
    return 0 if bar.reached else 1


if __name__ == "__main__":
    sys.exit(main())
