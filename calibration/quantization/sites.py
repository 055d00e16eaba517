"""Where a graph's weights are used: which can be integers, and along which axes their scales run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from sottovoce.calibration.quantization.graph import StageGraph

Array = npt.NDArray[Any]
PRODUCTS = ("MatMul", "Gemm")
CONVOLUTIONS = ("Conv", "ConvTranspose")
TABLE = "Gather"
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


@dataclass(frozen=True)
class WeightSite:
    """One weight, and the nodes of one kind that read it.

    Args:
        name: of the initializer.
        op: the nodes' operator.
        activations: the nodes' other factor, a value each (for a table: the ids).
        shape: of the initializer.
        input_axis: the one axis that is summed over; None where there are several (convolutions) or none (tables).
        output_axis: the axis that has a scale for each index.
    """

    name: str
    op: str
    activations: tuple[str, ...]
    shape: tuple[int, ...]
    input_axis: int | None
    output_axis: int

    @property
    def size(self) -> int:
        """How many weights."""
        return prod(self.shape)

    @property
    def is_product(self) -> bool:
        """Whether it is a matrix that 4 bits can hold."""
        return self.input_axis is not None

    def matrix(self, values: Array) -> npt.NDArray[np.float32]:
        """The weight as (inputs, outputs) float32."""
        moved = np.moveaxis(np.asarray(values), self.output_axis, -1)
        return moved.reshape(-1, self.shape[self.output_axis]).astype(np.float32, copy=False)

    def from_matrix(self, values: Array) -> Array:
        """(inputs, outputs) back to the weight's own layout."""
        others = [size for axis, size in enumerate(self.shape) if axis != self.output_axis]
        return np.moveaxis(values.reshape(*others, self.shape[self.output_axis]), -1, self.output_axis)


def weight_sites(graph: StageGraph) -> list[WeightSite]:
    """The float weights of matrix products, convolutions and tables, in the order in which they are computed.

    A weight that two kinds of nodes read is not among them: no one axis would serve both.
    """
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in graph.nodes:
        for place, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, place))
    sites = []
    for name, uses in readers.items():
        tensor = graph.tensor(name)
        if tensor is None or tensor.data_type not in FLOATS or len(tensor.dims) < 2:
            continue
        found = {_axes(node, place, len(tensor.dims)) for node, place in uses}
        axes = found.pop()
        if found or axes is None:
            continue
        op, input_axis, output_axis = axes
        activations = tuple(dict.fromkeys(node.input[1 if op == TABLE else 0] for node, _ in uses))
        sites.append(WeightSite(name, op, activations, tuple(tensor.dims), input_axis, output_axis))
    return sites


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or what the standard gives it."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def _axes(node: onnx.NodeProto, place: int, rank: int) -> tuple[str, int | None, int] | None:
    """Operator, input axis, output axis; None where this weight cannot be an integer."""
    weight_place: Mapping[str, int] = {"MatMul": 1, "Gemm": 1, "Conv": 1, "ConvTranspose": 1, TABLE: 0}
    if node.domain or weight_place.get(node.op_type) != place:
        return None
    if node.op_type in PRODUCTS:
        if rank != 2 or attribute(node, "transA", 0):
            return None
        return (node.op_type, 1, 0) if attribute(node, "transB", 0) else (node.op_type, 0, 1)
    if node.op_type == TABLE:
        return (TABLE, None, 0) if attribute(node, "axis", 0) == 0 else None
    return node.op_type, None, 0 if node.op_type == "Conv" else 1
