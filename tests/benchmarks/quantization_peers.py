"""INT8 encoders by ONNX Runtime's own `quantize_static` and by sottovoce, on the same conversations.

    python tests/benchmarks/quantization_peers.py BUNDLE --ranges RANGES --calibration DIR --held-out DIR

Both calibrate on the same set and are judged by the same answers; only the named stage is quantized. ONNX Runtime is
asked for what it recommends for such weights: Q/DQ, per channel, symmetric signed integers, minima and maxima.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.quality import QualityCost, measure_cost
from sottovoce.calibration.quantization.quantize import QuantizeJob, quantize
from sottovoce.calibration.ranges.range_file import read_ranges
from sottovoce.calibration.replay import replay
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import open_session
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.session import Array, Session
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console
from sottovoce.runtime.manifest import QuantizationSpec, StageName
from sottovoce.runtime.model import Model
from sottovoce.runtime.progress import Progress

STAGES: tuple[StageName, ...] = ("audio_encoder", "vision_encoder")
MOST_CALLS = 200


class RecordingSession(OnnxRuntimeSession):
    """Keeps what it was fed."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.fed: list[dict[str, Array]] = []

    def run(self, feeds: Mapping[str, Array], outputs: Any = None) -> dict[str, Array]:
        if len(self.fed) < MOST_CALLS:
            self.fed.append(dict(feeds))
        return super().run(feeds, outputs)


class Reader(CalibrationDataReader):
    """The recorded feeds, one after the other."""

    def __init__(self, fed: list[dict[str, Array]]) -> None:
        self._left: Iterator[dict[str, Array]] = iter(fed)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def record(bundle: Bundle, data: Path, progress: Progress) -> dict[str, list[dict[str, Array]]]:
    """What the encoders are fed in the conversations of a set."""
    sessions: dict[str, RecordingSession] = {}

    def open_stage(stage: StageName) -> Session:
        if stage not in STAGES:
            return open_session(bundle, stage)
        spec = bundle.graph(stage)
        sessions[stage] = RecordingSession(stage, spec, bundle.file(spec.file))
        return sessions[stage]

    items = read_evaluation_set(data)
    with Assistant(Model(bundle, open_stage=open_stage)) as assistant:
        for number, item in enumerate(items, 1):
            replay(assistant, item, data, speech=False)
            progress.step("recording", number, len(items))
    return {stage: session.fed for stage, session in sessions.items()}


def peer(bundle: Bundle, stage: StageName, fed: list[dict[str, Array]], output: Path) -> None:
    """A bundle whose `stage` ONNX Runtime has quantized."""
    spec = bundle.graph(stage)
    with BundleWriter(output, force=True) as writer, tempfile.TemporaryDirectory() as scratch:
        for name in bundle.manifest.files:
            if name not in (spec.file, *spec.data):
                writer.copy(bundle.file(name), name)
        whole, small = Path(scratch) / "whole.onnx", writer.folder / spec.file
        onnx.save(onnx.load(str(bundle.file(spec.file))), str(whole))
        quantize_static(
            str(whole), str(small), Reader(fed), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )  # fmt: skip
        record = QuantizationSpec("fp32", "onnxruntime", None, 1, small.stat().st_size, 1.0)
        graph = replace(spec, data=(), precision="int8", quantization=record)
        manifest = replace(bundle.manifest, graphs={**bundle.manifest.graphs, stage: graph}, files={})
        writer.seal(manifest)
        writer.publish()


def main() -> int:
    """Print the table; 1 when ours is worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--ranges", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("out/quantization"))
    options = parser.parse_args()
    console, source = Console(), Bundle.open(options.bundle)
    rows, worse = [], 0
    with console.progress() as progress:
        fed = record(source, options.calibration, progress)
        for stage in STAGES:
            job = QuantizeJob(source, parse_plan(f"{stage}=int8"), read_ranges(options.ranges), options.held_out)
            ours = quantize(job, BundleWriter(options.work / "ours.bundle", force=True), progress).cost
            peer(source, stage, fed[stage], options.work / "peer.bundle")
            theirs = measure_cost(source.path, options.work / "peer.bundle", options.held_out, progress)
            assert ours is not None
            rows += [_row(stage, "sottovoce", ours), _row(stage, "onnxruntime", theirs)]
            worse += ours.points_lost > theirs.points_lost
    console.table("", ["stage", "by", "exact before", "after", "points lost", "same replies"], rows, [2, 3, 4, 5])
    return 1 if worse else 0


def _row(stage: str, by: str, cost: QualityCost) -> list[str]:
    before, after = (f"{100 * scores.reply_exact:.1f} %" for scores in (cost.before, cost.after))
    return [stage, by, before, after, f"{cost.points_lost:+.2f}", f"{100 * cost.same_replies:.1f} %"]


if __name__ == "__main__":
    sys.exit(main())
