"""A stage's files and contract, and the proof that a graph on disk is what its contract says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper

from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import DataType, GraphSpec, KVCacheSpec, Precision, StageName, TensorSpec

ELEMENT_TYPES: dict[DataType, int] = {
    "float32": onnx.TensorProto.FLOAT,
    "float16": onnx.TensorProto.FLOAT16,
    "int64": onnx.TensorProto.INT64,
    "int32": onnx.TensorProto.INT32,
    "bool": onnx.TensorProto.BOOL,
}
TORCH_TYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}
FLOAT_TYPES: dict[Precision, DataType] = {"fp32": "float32", "fp16": "float16"}


@dataclass(frozen=True)
class Spelling:
    """What a graph was written in: a dialect's name and its opset."""

    dialect: str
    opset: int
    fixed_capacity: bool = False


@dataclass(frozen=True)
class StageFiles:
    """Where one stage's graph goes, and in which precision it computes.

    Args:
        stage: the stage's name, which names its files.
        bundle: the bundle's folder (or the one it is being written in); graphs go to its `graphs/`.
        precision: type of weights and arithmetic. Inputs and outputs are float32 in any case, but for the KV cache.
    """

    stage: StageName
    bundle: Path
    precision: Precision

    @property
    def graph(self) -> Path:
        """The graph without its weights."""
        return self.bundle / "graphs" / f"{self.stage}.onnx"

    @property
    def data(self) -> Path:
        """Its weights, in the same folder."""
        return self.graph.with_name(f"{self.graph.name}.data")

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""
        return TORCH_TYPES[self.precision]

    def spec(
        self,
        spelling: Spelling,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        cache: KVCacheSpec | None = None,
    ) -> GraphSpec:
        """The stage's entry in the manifest."""
        return GraphSpec(
            file=f"graphs/{self.graph.name}",
            data=(f"graphs/{self.data.name}",),
            dialect=spelling.dialect,
            opset=spelling.opset,
            precision=self.precision,
            inputs=inputs,
            outputs=outputs,
            cache=cache,
        )


def value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    """The ONNX declaration of a contract's tensor."""
    return helper.make_tensor_value_info(spec.name, ELEMENT_TYPES[spec.dtype], list(spec.shape))


def narrowed(name: str, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`values` as `dtype`.

    Raises:
        SottovoceError: a value is beyond float16's range.
    """
    result = values.to(dtype)
    if dtype == torch.float16 and values.dtype != dtype and not torch.isfinite(result).all():
        largest = float(values.abs().max())
        raise SottovoceError(
            f"the tensor {name!r} holds {largest:g}, and float16 ends at {np.finfo(np.float16).max:g}",
            fix="export the stage that it belongs to as fp32: --precision STAGE=fp32",
        )
    return result


def check_graph(bundle: Path, spec: GraphSpec) -> None:
    """Read a written graph back and compare it with its contract; the weights themselves are not read.

    Raises:
        SottovoceError: the graph is not valid ONNX, or its inputs or outputs are not those of the contract.
    """
    path = bundle / spec.file
    fix = "this is a defect of the exporter: report it with the checkpoint's configuration"
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
