"""One node of a graph again, in float64 and numpy: what it should give, whatever an engine makes of it.

ONNX's own reference implementation does the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from sottovoce.calibration.bundles.grouped_attention import is_grouped_attention
from sottovoce.calibration.quantization.sites import attribute

Array = npt.NDArray[Any]


def recompute(node: onnx.NodeProto, output: str, operands: Sequence[Array | None], opset: int) -> Array | None:
    """One result of a node.

    Args:
        node: of the standard's own operators, or attention over buffers (`over_presents`).
        output: the name of the result that is wanted.
        operands: its inputs in their order, floats of any width; None for one that is left out.
        opset: of the graph it is from.

    Returns:
        The result, floats in float64; None where ONNX has no reference for this operator or these inputs.
    """
    if is_grouped_attention(node):
        return grouped_attention(node, operands)
    names = ["" if operand is None else f"operand_{place}" for place, operand in enumerate(operands)]
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    del alone.input[:]
    alone.input.extend(names)
    graph = helper.make_graph(
        [alone],
        "one_node",
        [onnx.ValueInfoProto(name=name) for name in names if name],
        [onnx.ValueInfoProto(name=output)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    feeds = {name: _widened(values) for name, values in zip(names, operands, strict=True) if values is not None}
    try:
        with np.errstate(all="ignore"):
            [result] = ReferenceEvaluator(model).run([output], feeds)
    except Exception:  # noqa: BLE001  # the evaluator raises whatever its operators meet
        return None
    return np.asarray(_widened(np.asarray(result)))


def grouped_attention(node: onnx.NodeProto, operands: Sequence[Array | None]) -> Array | None:
    """Causal attention of (1, T, heads · head) over buffers of which all places up to a last one are filled.

    A sink is left out: the decoders' weighs nothing.
    """
    if any(operand is None for operand in operands):
        return None
    query, keys, values, last = (_widened(np.asarray(operand)) for operand in operands)
    kv_heads, size = keys.shape[1], keys.shape[3]
    positions, filled = query.shape[1], int(last[0]) + 1
    by_head = query.reshape(positions, kv_heads, -1, size).transpose(1, 2, 0, 3)
    scores = by_head @ keys[0, :, None, :filled].swapaxes(-1, -2) * (attribute(node, "scale", 0.0) or size**-0.5)
    own_place = np.arange(filled - positions, filled)
    scores[..., np.arange(filled) > own_place[:, None]] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    found = weights @ values[0, :, None, :filled]
    return np.asarray(found.transpose(2, 0, 1, 3).reshape(query.shape))


def _widened(values: Array) -> Array:
    return values.astype(np.float64) if np.issubdtype(values.dtype, np.floating) else values
