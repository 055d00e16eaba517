"""The ONNX side of a contract, and the proof that a graph on disk is what its contract says."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import DataType, GraphSpec, TensorSpec

ELEMENT_TYPES: dict[DataType, int] = {
    "float32": onnx.TensorProto.FLOAT,
    "float16": onnx.TensorProto.FLOAT16,
    "int64": onnx.TensorProto.INT64,
    "int32": onnx.TensorProto.INT32,
    "int8": onnx.TensorProto.INT8,
    "bool": onnx.TensorProto.BOOL,
}


def value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    """The ONNX declaration of a contract's tensor."""
    return helper.make_tensor_value_info(spec.name, ELEMENT_TYPES[spec.dtype], list(spec.shape))


def check_graph(bundle: Path, spec: GraphSpec) -> None:
    """Read a written graph back and compare it with its contract; the weights themselves are not read.

    Raises:
        SottovoceError: the graph is not valid ONNX, or its inputs or outputs are not those of the contract.
    """
    path = bundle / spec.file
    fix = "this is a defect of sottovoce: report it with the checkpoint's configuration"
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as problem:
        raise SottovoceError(f"not a valid graph: {problem}", file=path, fix=fix) from problem
    model = onnx.load(str(path), load_external_data=False)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("") != spec.opset:
        raise SottovoceError(f"opset {opsets}, expected {spec.opset}", file=path, fix=fix)
    for what, found, expected in (
        ("inputs", model.graph.input, spec.inputs),
        ("outputs", model.graph.output, spec.outputs),
    ):
        declared = [_declaration(value) for value in found]
        wanted = [_declaration(value_info(tensor)) for tensor in expected]
        if declared != wanted:
            raise SottovoceError(f"{what} are {declared}, the contract says {wanted}", file=path, fix=fix)


def _declaration(value: onnx.ValueInfoProto) -> tuple[str, int, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    shape = tuple(axis.dim_param if axis.HasField("dim_param") else axis.dim_value for axis in tensor.shape.dim)
    return value.name, tensor.elem_type, shape
