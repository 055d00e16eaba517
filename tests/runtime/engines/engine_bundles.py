"""Bundles to build engines from: the tiny checkpoint in half precision, with decoders that TensorRT-RTX can parse."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from sealing import seal

from sottovoce.calibration.quantization.plan import StagePlan
from sottovoce.calibration.quantization.stage_quantizer import StageQuantizer
from sottovoce.calibration.ranges.range_file import RangeRecord, Ranges
from sottovoce.calibration.ranges.statistics import BINS, TensorStatistics
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.dialects import DIALECTS
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.language_model import export_language_model
from sottovoce.export.graphs.speech_codes import export_speech_codes
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import StageName, StagePrecision

CONTEXT = 256
QUANTIZING = ("QuantizeLinear", "DequantizeLinear")


def with_portable_decoders(source: Path, checkpoint: Path, folder: Path) -> Path:
    """A copy of the bundle whose decoders are spelled in the portable dialect; encoders are so in every bundle."""
    shutil.copytree(source, folder)
    opened = Checkpoint.open(checkpoint)
    dialect, config = DIALECTS["portable"], opened.config
    model, speech = opened.component_state("language_model"), opened.component_state("speech_decoder")
    specs = (
        export_language_model(
            config.language_model, CONTEXT, dialect, model.__getitem__, StageFiles("language_model", folder, "fp16")
        ),
        export_speech_codes(
            config.speech_decoder, dialect, speech.__getitem__, StageFiles("speech_codes", folder, "fp16")
        ),
    )
    seal(folder, {"language_model": specs[0], "speech_codes": specs[1]})
    return folder


class _SameEverywhere(Mapping[Any, TensorStatistics]):
    """Statistics of any tensor that is asked for: evenly spread from -4 to 4."""

    def __getitem__(self, key: Any) -> TensorStatistics:
        none = np.zeros((0, 1), np.float32)
        histogram = np.ones(BINS, np.int64)
        return TensorStatistics(-4.0, 4.0, BINS, histogram, 4.0, np.full(1, 4.0, np.float32), np.ones(1), 1, none)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0


def quantized(source: Path, folder: Path, stage: StageName, precision: StagePrecision) -> Path:
    """A copy of the bundle with one stage in integers, by ranges that nobody measured: good for building only."""
    shutil.copytree(source, folder)
    block = 32 if precision == "int4-weights" else None
    ranges = Ranges(RangeRecord(1, "tests", "", {}, "", 0, {}, 0.0), _SameEverywhere()) if precision == "int8" else None
    quantizer = StageQuantizer(Bundle.open(source), stage, StagePlan(precision, block), ranges)
    (folder / "graphs" / f"{stage}.onnx.data").unlink(missing_ok=True)
    seal(folder, {stage: quantizer.write(folder)})
    return folder


def drop_rounding(folder: Path, stage: StageName) -> None:
    """Take every other pair of Q/DQ off the activations, as a broken exporter might."""
    spec = Bundle.open(folder).graph(stage)
    path = folder / spec.file
    model = onnx.load(str(path), load_external_data=False)
    givers = {node.output[0]: node for node in model.graph.node}
    pairs = [
        (givers[node.input[0]], node)
        for node in model.graph.node
        if node.op_type == QUANTIZING[1] and node.input[0] in givers
    ]
    for quantize, dequantize in pairs[::2]:
        replaced = {dequantize.output[0]: quantize.input[0]}
        model.graph.node.remove(dequantize)
        for node in model.graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = replaced.get(name, name)
    onnx.save(model, str(path))
    seal(folder, {stage: replace(spec)})
