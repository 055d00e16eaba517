"""SmolLM2 as a bundle's language model: exported, calibrated and quantized by sottovoce, one folder each."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from smollm2.checkpoint import SmolLM2
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.stage_quantizer import StageQuantizer
from sottovoce.calibration.ranges.observed_graph import ObservedSession, observed_tensors, write_observed_graph
from sottovoce.calibration.ranges.range_file import FORMAT_VERSION, RangeRecord, Ranges
from sottovoce.export.dialects import dialect_for
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.decoder_builder import (
    DecoderPlan,
    DecoderShape,
    DecoderWeightNames,
    build_decoder,
)
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import FileRecord, GraphSpec, StageName, TensorSpec
from sottovoce.runtime.progress import Progress

STAGE: StageName = "language_model"
CONTEXT = 8192
LAST_POSITION = "last_position"
"""What the graph calls the value that keeps the last position of a call alone."""
CHUNK = 16
"""Positions of a call while calibrating: as in a conversation, where calls are short and each has a last position."""


@dataclass(frozen=True)
class LanguageModelStage:
    """One language model in a folder; `host` is a bundle whose other stages are not looked at."""

    bundle: Bundle

    @property
    def spec(self) -> GraphSpec:
        return self.bundle.graph(STAGE)

    @property
    def graph(self) -> Path:
        return self.bundle.file(self.spec.file)

    @property
    def bytes(self) -> int:
        """Of the graph and its weights."""
        return sum(self.bundle.file(name).stat().st_size for name in (self.spec.file, *self.spec.data))

    def open(self) -> OnnxRuntimeSession:
        """On one thread."""
        return OnnxRuntimeSession(STAGE, self.spec, self.graph, threads=1)


def _stage(host: Bundle, folder: Path, spec: GraphSpec) -> LanguageModelStage:
    files = {name: FileRecord((folder / name).stat().st_size, "") for name in (spec.file, *spec.data)}
    manifest = replace(host.manifest, graphs={**host.manifest.graphs, STAGE: spec}, files=files)
    return LanguageModelStage(Bundle(folder, manifest))


def export_smollm2(model: SmolLM2, host: Bundle, folder: Path) -> LanguageModelStage:
    """In float32, for ONNX Runtime."""
    config = model.config
    shape = DecoderShape(
        config.hidden_size, config.num_layers, config.num_heads, config.num_kv_heads, config.head_size,
        config.vocab_size, CONTEXT, config.rms_norm_eps, config.rope_theta,
        query_key_value_bias=False, head_bias=False, prefix_attention=False,
    )  # fmt: skip
    names = DecoderWeightNames("model.layers", "model.norm", "model.embed_tokens")
    (folder / "graphs").mkdir(parents=True, exist_ok=True)
    spec = build_decoder(
        DecoderPlan(shape, names, dialect_for("cpu")), model.weights.__getitem__, StageFiles(STAGE, folder, "fp32")
    )
    return _stage(host, folder, spec)


def calibrate_stage(
    stage: LanguageModelStage, embeddings: npt.NDArray[np.float32], windows: npt.NDArray[np.int64], progress: Progress
) -> Ranges:
    """What (windows, T) tokens do to its tensors, fed in calls of `CHUNK` positions."""
    folder = stage.bundle.path / "observed"
    shutil.rmtree(folder, ignore_errors=True)
    watched = observed_tensors(StageGraph(stage.bundle, STAGE))
    spec = write_observed_graph(stage.bundle, STAGE, watched, folder)
    session = ObservedSession(STAGE, spec, folder / spec.file, watched, threads=1)
    for number, window in enumerate(windows, 1):
        cache = session.create_cache(len(window))
        for start in range(0, len(window), CHUNK):
            fed = {
                "embeddings": embeddings[window[start : start + CHUNK]][None],
                "cache_length": np.array([start], np.int64),
            }
            session.run_with_cache(fed, cache)
        progress.step("calibrating", number, len(windows))
    session.close()
    shutil.rmtree(folder)  # its weights are links, which onnx.load refuses to read from either name
    found = {(STAGE, n): c.statistics for n, c in session.collectors.items() if c.statistics is not None}
    record = RangeRecord(FORMAT_VERSION, "benchmark", "", {}, "", len(windows), {}, 0.0)
    return Ranges(record, found)


def quantize_stage(
    stage: LanguageModelStage, precision: str, ranges: Ranges | None, folder: Path
) -> LanguageModelStage:
    """As `sottovoce quantize --precision` does it for this stage."""
    plan = parse_plan(f"{STAGE}={precision}").of(STAGE)
    return _stage(stage.bundle, folder, StageQuantizer(stage.bundle, STAGE, plan, ranges).write(folder))


def all_positions(graph: Path) -> Path:
    """A copy of a graph, beside it and on the same weights, that gives the logits of every position of a call."""
    model = onnx.load(str(graph), load_external_data=False)
    kept = [node for node in model.graph.node if LAST_POSITION not in node.output]
    gathered = next(node for node in model.graph.node if LAST_POSITION in node.output)
    for node in kept:
        for place, name in enumerate(node.input):
            if name == LAST_POSITION:
                node.input[place] = gathered.input[0]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    logits = next(value for value in model.graph.output if value.name == "logits")
    dimensions = logits.type.tensor_type.shape.dim
    width = dimensions[-1].dim_value
    del dimensions[:]
    dimensions.add().dim_value = 1
    dimensions.add().dim_param = "positions"
    dimensions.add().dim_value = width
    path = graph.with_name(f"{graph.stem}.all.onnx")
    path.write_bytes(model.SerializeToString())
    return path


def all_positions_spec(spec: GraphSpec, name: str) -> GraphSpec:
    """Its contract."""
    width = next(tensor.shape[-1] for tensor in spec.outputs if tensor.role == "logits")
    outputs = tuple(
        TensorSpec("logits", "logits", "float32", (1, "positions", width)) if tensor.role == "logits" else tensor
        for tensor in spec.outputs
    )
    return replace(spec, file=name, outputs=outputs)


def window_feeds(
    spec: GraphSpec, embeddings: npt.NDArray[np.float32], window: Sequence[int] | npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[np.generic]]:
    """What a graph is fed for a window from an empty cache: embeddings, and buffers of zeros."""
    cache = spec.cache
    assert cache is not None
    buffer = np.zeros((1, cache.kv_heads, len(window), cache.head_size), cache.dtype)
    past = {tensor.name: buffer for tensor in spec.inputs if tensor.role.startswith("past_")}
    return {"embeddings": embeddings[window][None], "cache_length": np.zeros(1, np.int64), **past}
