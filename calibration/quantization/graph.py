"""One stage's graph taken apart, changed, and written again: weights are read when asked for and written at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, shape_inference

from sottovoce.calibration.bundles.external_data import ExternalDataWriter, PackedInt4
from sottovoce.calibration.bundles.graph_contract import value_info
from sottovoce.calibration.bundles.grouped_attention import with_shapes_known
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import BundleError, SottovoceError
from sottovoce.runtime.manifest import GraphSpec, StageName

Array = npt.NDArray[Any]
INLINE_BYTES = 256
"""Smaller tensors stay in the graph, where engines want shapes and scalars."""
IR_VERSIONS = {21: 10, 22: 10, 23: 11, 24: 12}
SCALED_OPSET = 19
"""The first whose QuantizeLinear and DequantizeLinear have float16 scales. (TensorRT 10.3 ends at opset 20.)"""
BLOCKS_OPSET = 21
"""The first whose DequantizeLinear has blocks and 4-bit integers."""


class StageGraph:
    """A graph that is being changed. Values are referred to by name.

    Args:
        bundle: a checked bundle.
        stage: which graph of it.
        data: where the weights of the changed graph go; None for one that is only read.

    Raises:
        BundleError: the graph cannot be read, or its weights lie elsewhere than the manifest says.
    """

    def __init__(self, bundle: Bundle, stage: StageName, data: ExternalDataWriter | None = None) -> None:
        self.stage = stage
        self.spec: GraphSpec = bundle.graph(stage)
        self._bundle = bundle
        self._path = bundle.file(self.spec.file)
        try:
            self.model = onnx.load(str(self._path), load_external_data=False)
        except Exception as problem:  # protobuf's own error has no public name
            raise BundleError(f"not an ONNX graph: {problem}", file=self._path, fix="export it again") from problem
        self._data = data
        self._stored = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._edits: dict[str, Callable[[Array], Array]] = {}
        self._edited_types: dict[str, int] = {}
        self._written: dict[str, onnx.TensorProto] = {}
        self.nodes: list[onnx.NodeProto] = list(self.model.graph.node)
        self.opset = self.spec.opset

    @property
    def float_type(self) -> np.dtype[Any]:
        """The type of the graph's floats."""
        return np.dtype(np.float16 if self.spec.floats == "fp16" else np.float32)

    @property
    def weights(self) -> Iterator[str]:
        """Names of the source's initializers that are not replaced yet."""
        return (name for name in list(self._stored) if name not in self._written)

    def tensor(self, name: str) -> onnx.TensorProto | None:
        """The source's initializer of that name, without its values."""
        return self._stored.get(name)

    def consumers(self, value: str) -> list[tuple[onnx.NodeProto, int]]:
        """Nodes that read `value`, with the place among their inputs."""
        return [(node, place) for node in self.nodes for place, name in enumerate(node.input) if name == value]

    def first_reader(self, value: str) -> int:
        """The place of the first node that reads `value`; the number of nodes if none does."""
        return next((place for place, node in enumerate(self.nodes) if value in node.input), len(self.nodes))

    def producer(self, value: str) -> onnx.NodeProto | None:
        """The node that computes `value`; None for inputs and weights."""
        return next((node for node in self.nodes if value in node.output), None)

    def read(self, name: str) -> Array:
        """The values of a weight, as edited; floats are checked.

        Raises:
            SottovoceError: there are NaNs or infinities; names the tensor.
        """
        values = self._values(self._stored[name])
        if name in self._edits:
            values = self._edits[name](values)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            bad = int(np.count_nonzero(~np.isfinite(values)))
            raise SottovoceError(
                f"the weight {name!r} of stage {self.stage!r} holds {bad} values that are no numbers",
                file=self._path,
                fix="the bundle is damaged, or was exported from a damaged checkpoint: export it again",
            )
        return values

    def edit(self, name: str, change: Callable[[Array], Array], element_type: int | None = None) -> None:
        """Let `change` be applied whenever this weight is read, after what was asked for before.

        A change that gives another type says so by `element_type`, of `onnx.TensorProto`.
        """
        before = self._edits.get(name)
        self._edits[name] = change if before is None else lambda values: change(before(values))
        if element_type is not None:
            self._edited_types[name] = element_type

    def replace(self, name: str, values: Array | PackedInt4) -> None:
        """Store other values (and another type or shape) under the name of a weight."""
        self._written[name] = self._store(name, values)

    def add(self, name: str, values: Array) -> str:
        """Store a new constant; returns its name."""
        if name in self._stored or name in self._written:
            raise ValueError(f"the graph {self.stage!r} has {name!r} already")
        self._written[name] = self._store(name, values)
        return name

    def drop(self, name: str) -> None:
        """Forget a weight that nothing reads any more."""
        self._stored.pop(name)

    def insert(self, place: int, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Put a node with one result before the node at `place`; returns the result's name."""
        self.nodes.insert(place, helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def redirect(self, value: str, replacement: str) -> None:
        """Let every node that reads `value` read `replacement`, but for the one that computes it."""
        for node, place in self.consumers(value):
            if replacement not in node.output:
                node.input[place] = replacement

    def require_opset(self, opset: int) -> None:
        """Raise the graph's opset, if it is lower."""
        self.opset = max(self.opset, opset)

    def declare(self, spec: GraphSpec) -> None:
        """Give the graph another contract: its inputs and outputs become the graph's."""
        self.spec = spec
        graph = self.model.graph
        del graph.input[:], graph.output[:]
        graph.input.extend(value_info(tensor) for tensor in spec.inputs)
        graph.output.extend(value_info(tensor) for tensor in spec.outputs)

    def value_types(self) -> dict[str, onnx.TypeProto.Tensor]:
        """Element type and shape of every value, as ONNX infers them from the graph as it is now; reads no weights."""
        model = onnx.ModelProto(ir_version=self.model.ir_version)
        model.opset_import.extend(self.model.opset_import)
        self._set_opset(model)
        graph = model.graph
        graph.name = self.model.graph.name
        graph.input.extend(self.model.graph.input)
        graph.output.extend(self.model.graph.output)
        graph.node.extend(with_shapes_known(self.nodes))
        for name, tensor in {**self._stored, **self._written}.items():
            graph.initializer.append(tensor)
            if name in self._edited_types and name not in self._written:
                graph.initializer[-1].data_type = self._edited_types[name]
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        found = {value.name: value.type.tensor_type for value in values}
        for tensor in inferred.initializer:
            found[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type
        return found

    def save(self, path: Path) -> None:
        """Copy what was not replaced to the data file, and write the graph beside it."""
        graph = self.model.graph
        used = {name for node in self.nodes for name in node.input} | {value.name for value in graph.output}
        for name in self.weights:
            if name in used:
                self._written[name] = self._store(name, self.read(name))
        for name in [name for name in self._written if name not in used]:
            del self._written[name]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self._written.values())
        self._set_opset(self.model)
        path.write_bytes(self.model.SerializeToString())

    def _set_opset(self, model: onnx.ModelProto) -> None:
        for entry in model.opset_import:
            if entry.domain == "":
                entry.version = self.opset
        model.ir_version = max(model.ir_version, IR_VERSIONS.get(self.opset, 0))

    def _store(self, name: str, values: Array | PackedInt4) -> onnx.TensorProto:
        if not isinstance(values, PackedInt4) and values.nbytes < INLINE_BYTES:
            return numpy_helper.from_array(np.asarray(values, order="C"), name)  # a scalar stays one
        if self._data is None:
            raise ValueError(f"the graph {self.stage!r} was opened for reading")
        return self._data.append(name, values)

    def _values(self, tensor: onnx.TensorProto) -> Array:
        """Mapped from the data file, if that is where they are."""
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return numpy_helper.to_array(tensor)
        place = {entry.key: entry.value for entry in tensor.external_data}
        name = f"{Path(self.spec.file).parent.as_posix()}/{place.get('location')}"
        if name not in self.spec.data:
            message = f"the weight {tensor.name!r} lies in {place.get('location')!r}, which the manifest does not list"
            raise BundleError(message, file=self._path, fix="do not use this bundle: it was tampered with")
        path = self._bundle.file(name)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type).newbyteorder("<")
        try:
            offset, shape = int(place.get("offset", 0)), tuple(tensor.dims)
            if not shape:
                return np.asarray(np.fromfile(path, dtype, 1, offset=offset)[0])
            return np.memmap(path, dtype, "r", offset, shape)
        except (OSError, ValueError) as problem:
            message = f"the weight {tensor.name!r} cannot be mapped: {problem}"
            raise BundleError(message, file=path, fix="export it again") from problem
