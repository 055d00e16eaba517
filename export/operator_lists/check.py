"""Whether a graph keeps to an operator list: operators, types, and the limits that the list has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from sottovoce.export.operator_lists.operator_list import OperatorLimits, OperatorList
from sottovoce.runtime.errors import SottovoceError

LISTED_TYPES: Mapping[int, str] = {
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.DOUBLE: "DOUBLE",
    onnx.TensorProto.FLOAT8E4M3FN: "FP8",
    onnx.TensorProto.INT4: "INT4",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.BOOL: "BOOL",
}
"""What lists call the standard's types."""
MAIN_PARAMETERS: Mapping[str, tuple[str, ...]] = {"Cast": ("T1", "T2"), "ConstantOfShape": ("T2",)}
"""Whose types a list means, where that is not the operator's `T` (or, without one, its `T1`)."""
FINDINGS_SHOWN = 4


@dataclass(frozen=True)
class OperatorFinding:
    """One thing in a graph that an engine's parser does not take."""

    node: str
    operator: str
    problem: str

    def __str__(self) -> str:
        return f"{self.operator} {self.node!r} {self.problem}"


def require_operators(path: Path, listed: OperatorList) -> None:
    """Refuse a graph that an engine's parser would not take.

    Raises:
        SottovoceError: what is in it and not in the list.
    """
    findings = operator_findings(onnx.load(str(path), load_external_data=False), listed)
    if not findings:
        return
    shown = "; ".join(map(str, findings[:FINDINGS_SHOWN]))
    more = f"; and {len(findings) - FINDINGS_SHOWN} more" if len(findings) > FINDINGS_SHOWN else ""
    raise SottovoceError(
        f"{listed.engine} does not take this graph: {shown}{more}",
        file=path,
        fix="export for a newer TensorRT: --target tensorrt; and report this, the target should not have spelled it so",
    )


def operator_findings(model: onnx.ModelProto, listed: OperatorList) -> list[OperatorFinding]:
    """Everything in a graph (read without its weights) that is not in the list, in the order of the nodes."""
    return list(_GraphCheck(model, listed).findings())


class _GraphCheck:
    """One graph against one list."""

    def __init__(self, model: onnx.ModelProto, listed: OperatorList) -> None:
        self._listed = listed
        self._opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
        self._nodes = list(_nodes(model.graph))
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._constants = {node.output[0] for node in self._nodes if node.op_type == "Constant"}
        self._types = _value_types(model)

    def findings(self) -> Iterator[OperatorFinding]:
        used = {LISTED_TYPES.get(kind, "") for kind in self._types.values()}
        lowest, highest = self._listed.opsets
        highest = max([highest, *(opset for kind, opset in self._listed.opset_of_type.items() if kind in used)])
        if not lowest <= self._opset <= highest:
            yield OperatorFinding("graph", "opset", f"is {self._opset}, and {lowest} to {highest} are taken")
        for node in self._nodes:
            for problem in self._problems(node):
                yield OperatorFinding(node.name or ", ".join(node.output), node.op_type, problem)

    def _problems(self, node: onnx.NodeProto) -> Iterator[str]:
        if node.domain not in ("", "ai.onnx"):
            yield f"is of the domain {node.domain!r}"
            return
        limits = self._listed.operators.get(node.op_type)
        if limits is None:
            yield "is not in its operator list"
            return
        yield from self._type_problems(node, limits)
        yield from self._input_problems(node, limits)
        if limits.outputs is not None and len([name for name in node.output if name]) > limits.outputs:
            yield f"gives {len(node.output)} results, and only the first {limits.outputs} may be used"
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            value = value.decode() if isinstance(value, bytes) else value
            allowed = limits.attributes.get(attribute.name)
            if allowed is not None and value not in allowed:
                yield f"has {attribute.name} = {value!r}, and {', '.join(map(repr, allowed))} is taken"

    def _type_problems(self, node: onnx.NodeProto, limits: OperatorLimits) -> Iterator[str]:
        for name in _main_operands(node, self._opset):
            kind = self._types.get(name)
            found = "unknown" if kind is None else LISTED_TYPES.get(kind) or onnx.TensorProto.DataType.Name(kind)
            if found not in limits.types:
                yield f"has {name!r} of type {found}, and {', '.join(limits.types)} are taken"

    def _input_problems(self, node: onnx.NodeProto, limits: OperatorLimits) -> Iterator[str]:
        for place in limits.constant_inputs:
            name = node.input[place] if place < len(node.input) else ""
            if name and name not in self._initializers and name not in self._constants:
                yield f"has an input {name!r} that must be a constant"
        for place in limits.zero_inputs:
            name = node.input[place] if place < len(node.input) else ""
            if name and not self._is_zero(name):
                yield f"has an input {name!r} that must be zeros stored in the graph"

    def _is_zero(self, name: str) -> bool:
        tensor = self._initializers.get(name)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return False
        return not numpy_helper.to_array(tensor).any()


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Of a graph and of the graphs inside its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _value_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value that the standard's inference finds."""
    graph = shape_inference.infer_shapes(model).graph
    values = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)
    }
    return {**values, **{tensor.name: tensor.data_type for tensor in graph.initializer}}


def _main_operands(node: onnx.NodeProto, opset: int) -> list[str]:
    """The inputs and outputs whose type a list speaks of, but for those that are left out."""
    if not defs.has(node.op_type, opset):  # taken by the parser, but not of this opset: the opset is what is wrong
        return []
    schema = defs.get_schema(node.op_type, opset)
    parameters = {constraint.type_param_str for constraint in schema.type_constraints}
    main = MAIN_PARAMETERS.get(node.op_type) or (("T",) if "T" in parameters else ("T1",))
    found = []
    for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for place, name in enumerate(names):
            formal = formals[min(place, len(formals) - 1)]  # the last one may stand for any number
            if name and formal.type_str in main:
                found.append(name)
    return found
