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

Array = npt.NDArray[Any]


def recompute(node: onnx.NodeProto, output: str, operands: Sequence[Array | None], opset: int) -> Array | None:
    """One result of a node.

    Args:
        node: of the standard's own operators.
        output: the name of the result that is wanted.
        operands: its inputs in their order, floats of any width; None for one that is left out.
        opset: of the graph it is from.

    Returns:
        The result, floats in float64; None where ONNX has no reference for this operator or these inputs.
    """
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


def _widened(values: Array) -> Array:
    return values.astype(np.float64) if np.issubdtype(values.dtype, np.floating) else values
