"""How much of a stage's arithmetic has INT8 factors, counted from the graph with the sizes of a typical call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from sottovoce.calibration.bundles.graph_contract import ELEMENT_TYPES
from sottovoce.calibration.bundles.grouped_attention import GROUPED_ATTENTION, PASTS
from sottovoce.calibration.quantization.sites import CONVOLUTIONS, PRODUCTS, attribute
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import GraphSpec, StageName, TensorSpec

TYPICAL_SIZES: Mapping[str, int] = {
    "frames": 400, "tiles": 1, "positions": 1, "capacity": 256, "codes": 64, "tokens": 16,
    "past": 0, "tail": 0, "padding": 4,
}  # fmt: skip
"""Of symbolic dimensions: 4 s of speech (whole, where it could come in parts), one tile, a step of decoding with 256
places of cache, 1.6 s of reply."""
TEXT_FRAMES = 16
"""What the speech decoder calls frames are those of its text: the role of its input is `frames`, too."""
OTHER_SIZE = 16
CALLS_A_TURN: Mapping[StageName, int] = {
    "audio_encoder": 1, "language_model": 80, "speech_text": 1, "speech_codes": 80, "codec": 1,
}  # fmt: skip
"""Of these sizes in a typical spoken turn: 64 positions of prompt and speech, 16 tokens of reply; 16 frames, 64 codes.

A position is counted alike whether it is prefilled with others or decoded alone. Pictures are not in it.
"""
COUNTED = (*PRODUCTS, *CONVOLUTIONS, "Attention", GROUPED_ATTENTION)
NUMPY_TYPES = {element: onnx.helper.tensor_dtype_to_np_dtype(element) for element in ELEMENT_TYPES.values()}


@dataclass(frozen=True)
class MultiplyAdds:
    """Of one typical call, or of a turn."""

    total: int
    int8: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.int8 / self.total if self.total else 0.0


def count_multiply_adds(folder: Path, spec: GraphSpec) -> MultiplyAdds:
    """Run a stage's graph once with the factors of every product as outputs, and add up what their shapes say.

    A product counts as INT8 where both of its factors come out of a DequantizeLinear of INT8 or narrower values.
    """
    path = folder / spec.file
    model = onnx.load(str(path), load_external_data=False)
    nodes = [node for node in model.graph.node if node.op_type in COUNTED]
    shapes = _shapes(path, model, spec, nodes)
    rounded = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    total = int8 = 0
    for node in nodes:
        size = _multiply_adds(node, shapes)
        total += size
        if "Attention" not in node.op_type and set(node.input[:2]) <= rounded:
            int8 += size
    return MultiplyAdds(total, int8)


def count_turn(bundle: Bundle) -> MultiplyAdds:
    """Of all stages in a typical spoken turn, weighted by how often each is called."""
    stages = {stage: count_multiply_adds(bundle.path, bundle.graph(stage)) for stage in CALLS_A_TURN}
    return MultiplyAdds(
        sum(CALLS_A_TURN[stage] * counted.total for stage, counted in stages.items()),
        sum(CALLS_A_TURN[stage] * counted.int8 for stage, counted in stages.items()),
    )


def _shapes(
    path: Path, model: onnx.ModelProto, spec: GraphSpec, nodes: list[onnx.NodeProto]
) -> dict[str, tuple[int, ...]]:
    """Of every factor and result of the nodes; weights' are in the graph."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    feeds = {}
    for tensor in spec.inputs:
        sizes = [_typical(tensor, size) for size in tensor.shape]
        feeds[tensor.name] = np.zeros(sizes, NUMPY_TYPES[ELEMENT_TYPES[tensor.dtype]])
        shapes[tensor.name] = tuple(sizes)
    wanted = [name for node in nodes for name in (*node.input[:3], *node.output) if name and name not in shapes]
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(wanted) if name not in known)
    probe = path.with_name(f".{path.name}.shapes")
    try:
        probe.write_bytes(model.SerializeToString())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(str(probe), options, providers=["CPUExecutionProvider"])
        names = list(dict.fromkeys(wanted))
        shapes.update(zip(names, (value.shape for value in session.run(names, feeds)), strict=True))
    finally:
        probe.unlink(missing_ok=True)
    return shapes


def _typical(tensor: TensorSpec, size: int | str) -> int:
    """A dimension's size, or its symbol's typical one."""
    if isinstance(size, int):
        return size
    return TEXT_FRAMES if tensor.role == size == "frames" else TYPICAL_SIZES.get(size, OTHER_SIZE)


def _multiply_adds(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    first, second, result = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":
        return prod(result) * prod(second[1:])
    if node.op_type == "ConvTranspose":
        return prod(first) * prod(second[1:])
    if node.op_type == "Attention":
        return 2 * prod(first) * second[-2]
    if node.op_type == GROUPED_ATTENTION:
        return 2 * prod(first) * shapes[node.input[PASTS[0]]][-2]
    summed = first[-2] if node.op_type == "Gemm" and attribute(node, "transA", 0) else first[-1]
    return prod(result) * summed
