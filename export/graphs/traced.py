"""PyTorch module → ONNX graph by tracing: the path of the encoders, the NAR part and the codec."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir
import torch
from torch import Tensor, nn

from sottovoce.calibration.bundles.external_data import ExternalDataWriter
from sottovoce.export.graphs.contract import Spelling, StageFiles
from sottovoce.runtime.manifest import GraphSpec, TensorSpec

TRACED = Spelling("portable", 20)
"""Opset 20 has everything that these stages need, and every engine since TensorRT 10.0 reads it."""
EXTERNAL_BYTES = 256
"""Smaller constants (shapes, axes, scalars) stay in the graph, where engines want them."""


@dataclass(frozen=True)
class TracedStage:
    """What to trace.

    Args:
        module: takes the example's tensors in order and returns one tensor, or a tuple of the output and
            `more_outputs`; in evaluation mode, of the final dtype.
        example: inputs of a typical size; no dynamic axis of them has size 1.
        inputs: their contract: a symbol marks an axis that may have any size.
        output: the result's contract.
    """

    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    smallest: dict[str, int] = field(default_factory=dict)
    """Least size of a symbol where that is not 1 (a convolution's kernel; a state that is empty at first)."""
    more_outputs: tuple[TensorSpec, ...] = ()
    """Contracts of further results, such as a state."""


def trace(stage: TracedStage, files: StageFiles) -> GraphSpec:
    """Trace the module and write its graph and weights; returns the contract.

    Raises:
        OSError: the disk is full or not writable.
    """
    spec = files.spec(TRACED, stage.inputs, (stage.output, *stage.more_outputs))
    symbols = {axis for tensor in stage.inputs for axis in tensor.shape if isinstance(axis, str)}
    dimensions = {name: torch.export.Dim(name, min=stage.smallest.get(name, 1)) for name in symbols}
    dynamic_shapes = tuple(
        {place: dimensions[axis] for place, axis in enumerate(tensor.shape) if isinstance(axis, str)}
        for tensor in stage.inputs
    )
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            stage.module.eval(),
            stage.example,
            dynamo=True,
            opset_version=TRACED.opset,
            input_names=[tensor.name for tensor in stage.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = program.model
    _declare_shapes(model, spec)
    model.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # the exporter's stack traces: half of the file, and paths of this machine
        node.doc_string = None
    _write_weights(model, files)
    onnx_ir.save(model, files.graph)
    return spec


def _declare_shapes(model: onnx_ir.Model, spec: GraphSpec) -> None:
    """The contract's symbols in place of the exporter's formulas."""
    for values, tensors in ((model.graph.inputs, spec.inputs), (model.graph.outputs, spec.outputs)):
        for value, tensor in zip(values, tensors, strict=True):
            value.shape = onnx_ir.Shape(tensor.shape)
            value.metadata_props.clear()


def _write_weights(model: onnx_ir.Model, files: StageFiles) -> None:
    with ExternalDataWriter(files.data) as data:
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor is None:
                raise RuntimeError(f"the traced graph has an initializer without a value: {name}")
            if tensor.nbytes < EXTERNAL_BYTES:
                continue
            stored = data.append(name, tensor.numpy())
            place = {entry.key: entry.value for entry in stored.external_data}
            value.const_value = onnx_ir.ExternalTensor(
                location=place["location"],
                offset=int(place["offset"]),
                length=int(place["length"]),
                dtype=tensor.dtype,
                shape=onnx_ir.Shape(stored.dims),
                name=name,
                base_dir=files.data.parent,
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's advice is for its developers; its errors still come through."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
