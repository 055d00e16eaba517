"""Where activations become INT8: a QuantizeLinear and a DequantizeLinear in front of each product and convolution.

That is TensorRT's explicit quantization: both factors of a product come out of a DequantizeLinear, and the engine takes
an INT8 kernel for it. Norms, softmax and residual sums get no pair, so they stay in floating point; their readers that
are no products go on reading the value as it was.
"""

from __future__ import annotations

import numpy as np

from sottovoce.calibration.quantization.graph import SCALED_OPSET, StageGraph
from sottovoce.calibration.quantization.sites import CONVOLUTIONS, PRODUCTS

MOVES = ("Reshape", "Transpose")
UNUSED_AXES = (None, 0, -1, -2)
"""An axis means nothing where a whole tensor has one scale, and tells the pairs of several readers apart.

ONNX Runtime multiplies integers only where a product has a pair of QuantizeLinear and DequantizeLinear to itself; pairs
that are the same to the letter it makes one of, and then all their readers multiply floats, with weights that are
dequantized in every call (a token of SmolLM2-135M: 86 ms so, and 11 ms with pairs that differ).
"""


def round_activations(graph: StageGraph, value: str, scale: float) -> None:
    """Let the products and convolutions that read `value` read it in steps of `scale`, -127 to 127 of them."""
    graph.require_opset(SCALED_OPSET)
    readers = [(node, place) for node, place in graph.consumers(value) if is_factor(node.op_type, place)]
    if not readers:
        raise ValueError(f"no product reads {value!r}")
    dtype = graph.float_type
    stored = max(np.dtype(dtype).type(scale), np.finfo(dtype).tiny)
    scale_name = graph.add(f"{value}.scale", np.asarray(stored, dtype))
    zero_name = graph.add(f"{value}.zero_point", np.asarray(0, np.int8))
    _round_convolution(graph, value, scale_name, zero_name)
    for number, (node, place) in enumerate(readers):
        suffix = "" if number == 0 else f".{number + 1}"
        axis = UNUSED_AXES[number % len(UNUSED_AXES)]
        attributes = {} if axis is None else {"axis": axis}
        first = graph.nodes.index(node)
        names = [scale_name, zero_name]
        quantized = graph.insert(first, "QuantizeLinear", [value, *names], f"{value}.quantized{suffix}", **attributes)
        node.input[place] = graph.insert(
            first + 1, "DequantizeLinear", [quantized, *names], f"{value}.rounded{suffix}", **attributes
        )


def _round_convolution(graph: StageGraph, value: str, scale: str, zero: str) -> None:
    """Where `value` is a convolution's result after a Relu, let the convolution give these steps already.

    Nothing is lost: what the Relu makes 0 may be any step below it. ONNX Runtime multiplies integers in a convolution
    only if its result is rounded, too (1024 channels, 3 × 3, 10 s of audio: 400 ms in floats).
    """
    relu = graph.producer(value)
    while relu is not None and relu.op_type in MOVES and len(graph.consumers(relu.input[0])) == 1:
        relu = graph.producer(relu.input[0])
    if relu is None or relu.op_type != "Relu":
        return
    convolved = relu.input[0]
    convolution = graph.producer(convolved)
    if convolution is None or convolution.op_type != "Conv" or len(graph.consumers(convolved)) > 1:
        return
    place = graph.nodes.index(relu)
    quantized = graph.insert(place, "QuantizeLinear", [convolved, scale, zero], f"{convolved}.quantized")
    rounded = f"{convolved}.rounded"
    relu.input[0] = graph.insert(place + 1, "DequantizeLinear", [quantized, scale, zero], rounded)


def is_factor(op: str, place: int) -> bool:
    """Whether an operator multiplies what it reads at that place: a bias is added, not multiplied."""
    return (op in PRODUCTS and place < 2) or (op in CONVOLUTIONS and place == 0)
