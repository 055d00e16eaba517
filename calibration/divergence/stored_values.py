"""The constants of one graph as they lie on disk, and what their integers stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import external_data_helper, numpy_helper

from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.sites import attribute
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import BundleError

Array = npt.NDArray[Any]
Wide = npt.NDArray[np.float64]


class StoredValues:
    """Constants of a stage's graph by name.

    Args:
        bundle: a checked bundle.
        graph: one of its stages.
    """

    def __init__(self, bundle: Bundle, graph: StageGraph) -> None:
        self.names = frozenset(graph.weights)
        self._graph = graph
        self._path: Path = bundle.file(graph.spec.file)

    def read(self, name: str) -> Array:
        """Values as they are stored; 4-bit integers as int8.

        Raises:
            BundleError: the values cannot be read; names the tensor.
        """
        stored = self._graph.tensor(name)
        assert stored is not None  # noqa: S101  # callers ask for `names`
        tensor = onnx.TensorProto()
        tensor.CopyFrom(stored)
        try:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                external_data_helper.load_external_data_for_tensor(tensor, str(self._path.parent))
            values = numpy_helper.to_array(tensor)
        except (OSError, ValueError, onnx.checker.ValidationError) as problem:
            message = f"the weight {name!r} of stage {self._graph.stage!r} cannot be read: {problem}"
            raise BundleError(message, file=self._path, fix="make the bundle again") from problem
        return values.astype(np.int8) if tensor.data_type == onnx.TensorProto.INT4 else values

    def dequantized(self, node: onnx.NodeProto, axis: int | None = None) -> Wide:
        """What a DequantizeLinear makes of stored integers, in float64.

        Args:
            node: whose input and scale are constants.
            axis: the axis of its scales; None: the node's own.
        """
        integers = self.read(node.input[0])
        return integers.astype(np.float64) * self.steps(node, integers.shape, axis)

    def steps(self, node: onnx.NodeProto, shape: tuple[int, ...], axis: int | None = None) -> Wide:
        """The scales of a DequantizeLinear or QuantizeLinear, as large as they act on values of that shape."""
        scales = self.read(node.input[1]).astype(np.float64)
        if scales.ndim == 0 or scales.size == 1:
            return np.broadcast_to(scales.reshape(()), shape)
        along = int(attribute(node, "axis", 1)) if axis is None else axis
        if block := int(attribute(node, "block_size", 0)):
            scales = np.repeat(scales, block, axis=along)
            return np.take(scales, np.arange(shape[along]), axis=along)
        by_axis = [-1 if place == along % len(shape) else 1 for place in range(len(shape))]
        return np.broadcast_to(scales.reshape(by_axis), shape)


def other_axes(node: onnx.NodeProto, shape: tuple[int, ...], scales: int) -> list[int]:
    """Axes that a DequantizeLinear's scales would fit as well as the one it names."""
    if int(attribute(node, "block_size", 0)):
        return []
    own = int(attribute(node, "axis", 1)) % len(shape)
    return [axis for axis, size in enumerate(shape) if size == scales and axis != own]
