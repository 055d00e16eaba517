"""A float32 graph in float16, with float32 where `export --precision fp16` keeps it.

Which nodes stay *wide* (compute in float32) follows from their operators and from what they read; Casts are put where
a value crosses from one type to the other. Four things stay wide:

- positions, until they meet activations: float16 has no odd numbers beyond 2048, and angles grow with the position;
- norms that are spelled out: squares leave float16's range, and an epsilon is too small for it;
- RMSNormalization, and the residual stream that it reads: trained decoders hold a few activations in the thousands
  there (Sun et al. 2024, "Massive Activations in Large Language Models"), where float16 has steps of several units;
- arithmetic that a graph's input goes through before its first product: raw filterbank energies are large and close.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from sottovoce.calibration.bundles.graph_contract import ELEMENT_TYPES
from sottovoce.calibration.bundles.grouped_attention import stays_float32
from sottovoce.calibration.quantization.cache_precision import CACHE_ROLES, FLOAT, FLOAT16, with_cache_type
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import GraphSpec

Array = npt.NDArray[Any]

NORM = "RMSNormalization"
STATISTICS = frozenset({"Pow", "ReduceMean", "Sqrt", "Reciprocal"})
"""What a norm that is spelled out is made of; arithmetic that reads their results belongs to it."""
POSITIONS = frozenset({"Cast", "Range", "Sin", "Cos"})
"""What makes floats of positions."""
ALWAYS_WIDE = STATISTICS | POSITIONS | {NORM}
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Neg"})
MOVES = frozenset({"Concat", "Expand", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})
TAKES_ANY_TYPE = frozenset({"Cast", "Shape", "Size"})
SUFFIXES = {FLOAT: "widened", FLOAT16: "narrowed"}

LARGEST = np.finfo(np.float16).max
MASK_FILL = np.finfo(np.float32).max
"""What masked scores are set to, with a minus: the end of float32's range becomes the end of float16's."""


def narrow_floats(graph: StageGraph) -> None:
    """Turn a float32 graph into a float16 one: weights, activations, and a cache that is float32.

    All other inputs and outputs stay float32. A value keeps its name; its copy in the other type is called
    `<name>.narrowed` or `<name>.widened`. A graph that is float16 already is left alone.

    Raises:
        SottovoceError: when a weight is read or saved that is beyond float16; names the tensor and the stage.
    """
    if graph.spec.floats == "fp16":
        return
    floats = {name for name, tensor in graph.value_types().items() if tensor.elem_type == FLOAT}
    inputs = {tensor.name for tensor in graph.spec.inputs}
    computed = floats & inputs.union(*(node.output for node in graph.nodes))
    wide = _wide_nodes(graph, computed)
    constants = _narrow_constants(graph, floats - computed, wide)
    graph.declare(half_contract(graph.spec))
    _insert_casts(graph, wide, computed, constants)


def half_contract(spec: GraphSpec) -> GraphSpec:
    """The contract of a float32 stage in float16: only a float32 cache changes its type."""
    if spec.cache is not None and spec.cache.dtype == "float32":
        spec = with_cache_type(spec, "float16")
    if spec.quantization is not None:
        spec = replace(spec, quantization=replace(spec.quantization, floats="fp16"))
    return replace(spec, precision="fp16" if spec.precision == "fp32" else spec.precision)


def _wide_nodes(graph: StageGraph, computed: set[str]) -> list[bool]:
    """For each node whether it computes in float32; `computed` are the float32 values that are no constants."""
    normed = {node.input[0] for node in graph.nodes if node.op_type == NORM}
    statistics = {name for node in graph.nodes if node.op_type in STATISTICS for name in node.output}
    staying = {tensor.name for tensor in graph.spec.inputs if not tensor.role.startswith(CACHE_ROLES)}
    wide = []
    for node in graph.nodes:
        operands = computed.intersection(node.input)
        in_norm = node.op_type in ARITHMETIC and not statistics.isdisjoint(operands)
        in_residual = node.op_type == "Add" and not normed.isdisjoint(operands)
        follows = node.op_type in ARITHMETIC | MOVES and bool(operands) and operands <= staying
        wide.append(node.op_type in ALWAYS_WIDE or in_norm or in_residual or follows)
        if wide[-1] and not in_norm and node.op_type != NORM:  # what a norm gives has float16's size, and goes on in it
            staying.update(node.output)
    return wide


def _narrow_constants(graph: StageGraph, constants: set[str], wide: Sequence[bool]) -> dict[str, int]:
    """Let weights that only narrow nodes read be float16; returns the types of all constants."""
    read_wide = {
        name
        for node, is_wide in zip(graph.nodes, wide, strict=True)
        for place, name in enumerate(node.input)
        if is_wide or stays_float32(node, place)
    }
    narrow = constants.intersection(graph.weights) - read_wide
    for name in narrow:
        graph.edit(name, partial(_narrowed, graph.stage, name), FLOAT16)
    return {name: FLOAT16 if name in narrow else FLOAT for name in constants}


def _narrowed(stage: str, name: str, values: Array) -> Array:
    with np.errstate(over="ignore"):
        narrow = np.asarray(values.astype(np.float16))
    if np.isfinite(narrow).all():
        return narrow
    fill = np.abs(values) == MASK_FILL
    if not np.isfinite(narrow[~fill]).all():
        raise SottovoceError(
            f"the tensor {name!r} of stage {stage!r} holds {np.abs(values).max():g}, and float16 ends at {LARGEST:g}",
            fix=f"keep that stage in float32: --precision {stage}=fp32",
        )
    return np.where(fill, np.copysign(LARGEST, values), narrow).astype(np.float16)


def _insert_casts(graph: StageGraph, wide: Sequence[bool], computed: set[str], constants: Mapping[str, int]) -> None:
    """Let every node read floats of its own type, and give those of the contract."""
    types = {**constants, **{tensor.name: ELEMENT_TYPES[tensor.dtype] for tensor in graph.spec.inputs}}
    promised = {tensor.name: ELEMENT_TYPES[tensor.dtype] for tensor in graph.spec.outputs}
    copies: dict[str, str] = {}
    """Of values in their other type."""
    nodes: list[onnx.NodeProto] = []
    for node, is_wide in zip(graph.nodes, wide, strict=True):
        own = FLOAT if is_wide else FLOAT16
        for place, name in enumerate(node.input):
            if types.get(name) not in (FLOAT, FLOAT16) or types[name] == own or node.op_type in TAKES_ANY_TYPE:
                continue
            if stays_float32(node, place):
                continue
            if name not in copies:
                copies[name] = f"{name}.{SUFFIXES[own]}"
                nodes.append(_cast(name, copies[name], own))
            node.input[place] = copies[name]
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name in computed:
                types[name] = promised.get(name, own)
                if types[name] != own:
                    node.name = node.output[place] = copies[name] = f"{name}.{SUFFIXES[own]}"
                    nodes.append(_cast(copies[name], name, types[name]))
    graph.nodes = nodes


def _cast(value: str, output: str, element_type: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [value], [output], name=output, to=element_type)
