"""A small ONNX graph builder: nodes are added in order, weights go to the external file the moment they are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from sottovoce.calibration.bundles.external_data import ExternalDataWriter, WeightBlocks, Weights
from sottovoce.calibration.bundles.graph_contract import value_info
from sottovoce.runtime.manifest import TensorSpec

IR_VERSIONS = {20: 9, 21: 10, 22: 10, 23: 11, 24: 12}
"""The lowest file format that each opset may be stored in: the most engines read it."""


class GraphBuilder:
    """Collects one graph; values are referred to by name.

    Args:
        name: of the graph.
        opset: of the default operator set.
        data: where weights are written.
    """

    def __init__(self, name: str, opset: int, data: ExternalDataWriter) -> None:
        self._name = name
        self._opset = opset
        self._data = data
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._names: set[str] = set()
        self._domains: set[str] = set()

    def add_input(self, spec: TensorSpec) -> str:
        """Declare a graph input; returns its name."""
        self._inputs.append(value_info(spec))
        return self._claim(spec.name)

    def add_output(self, spec: TensorSpec) -> None:
        """Declare a graph output: a node's result must bear the same name."""
        self._outputs.append(value_info(spec))

    def op(self, op_type: str, *inputs: str, output: str, **attributes: Any) -> str:
        """Add a node with one result, named `output`; an empty input name leaves an optional input out."""
        self.node(op_type, inputs, (output,), **attributes)
        return output

    def import_domain(self, domain: str) -> None:
        """Name a domain of operators (version 1), whether or not a node is of it."""
        self._domains.add(domain)

    def node(
        self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "", **attributes: Any
    ) -> None:
        """Add a node with any number of results, of the standard's operators or of another domain's (version 1)."""
        names = [self._claim(output) for output in outputs]
        self.import_domain(domain)
        self._nodes.append(helper.make_node(op_type, inputs, names, name=names[0], domain=domain, **attributes))

    def weight(self, name: str, values: Weights | WeightBlocks) -> str:
        """Store a trained tensor in the external file."""
        self._initializers[self._claim(name)] = self._data.append(name, values)
        return name

    def constant(self, values: int | Sequence[Any]) -> str:
        """A small int64 constant inside the graph, of any shape; equal ones are stored once."""
        array = np.asarray(values, dtype=np.int64)
        shape = "x".join(str(size) for size in array.shape) or "scalar"
        name = f"constant.{shape}." + "_".join(str(value) for value in array.reshape(-1))
        if name not in self._initializers:
            self._initializers[self._claim(name)] = onnx.numpy_helper.from_array(array, name)
        return name

    def scalar(self, value: float, element_type: int) -> str:
        """A small float constant () inside the graph; equal ones are stored once."""
        name = f"constant.{onnx.TensorProto.DataType.Name(element_type).lower()}.{value:g}"
        if name not in self._initializers:
            array = np.asarray(value, dtype=helper.tensor_dtype_to_np_dtype(element_type))
            self._initializers[self._claim(name)] = onnx.numpy_helper.from_array(array, name)
        return name

    def input_type(self, name: str) -> int:
        """The element type of a declared graph input."""
        return next(value.type.tensor_type.elem_type for value in self._inputs if value.name == name)

    def save(self, path: Path) -> None:
        """Write the graph without its weights, which already are in the external file beside it."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, initializer=list(self._initializers.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid("", self._opset),
                *(helper.make_opsetid(domain, 1) for domain in sorted(self._domains - {""})),
            ],
            ir_version=IR_VERSIONS[self._opset],
            producer_name="sottovoce",
        )
        path.write_bytes(model.SerializeToString())

    def _claim(self, name: str) -> str:
        if name in self._names:
            raise ValueError(f"the value {name!r} is defined twice in graph {self._name!r}")
        self._names.add(name)
        return name
