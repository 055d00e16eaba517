"""The KV cache of a decoder in fewer bits: float16, or int8 with a static scale for each channel of each KV head.

Buffers are written by the operator that wrote them before, and take a half or a quarter of float32's memory.

For int8, `key ≈ scale × integer`, so `query · key = (query × scale) · integer`, and attention over the integers of the
values gives its result but for their scale. So the channels' scales multiply the query and the result, which are small,
and the cache itself is only converted: one pass over it, where multiplying it would be a second. It is written as
QuantizeLinear and DequantizeLinear with a scale of 1: engines take integers from these alone. DequantizeLinear gives
float32 in a float16 graph, too, with a Cast behind it: ONNX Runtime's float16 kernel goes element by element.

Milliseconds of one layer's step (28 heads over 4 of 128 channels, ONNX Runtime 1.32, one core of an EPYC):

| positions and floats | not int8 | this | scales in the cache's product | one axis of 512 | float16 kernel |
| --- | --- | --- | --- | --- | --- |
| 1,024 float32 | 0.45 | 0.56 | 0.68 | 0.70 | |
| 4,096 float32 | 2.3 | 2.5 | 3.6 | 4.0 | |
| 1,024 float16 | 0.89 | 1.0 | 1.2 | 1.2 | 2.2 |
| 4,096 float16 | 4.7 to 8.3 | 6.4 | 6.4 to 9.6 | 10 | 14 to 18 |

In the dialect `cpu` ONNX Runtime's own attention takes both types: int8 with these scales (0.32 ms of one layer's step
at 4,096 positions, where float32 takes 0.61; 9 heads over 3 of 64 channels, the cache in memory), float16 (0.91).

TensorRT-RTX 1.7 builds an int8 cache that ScatterND writes (`portable-23`); its TensorScatter takes floats only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from sottovoce.calibration.bundles.grouped_attention import (
    KEY_SCALE,
    PRESENTS,
    UPDATES,
    VALUE_SCALE,
    is_grouped_attention,
)
from sottovoce.calibration.quantization.graph import SCALED_OPSET, StageGraph
from sottovoce.calibration.quantization.rounding import INT8_LIMIT
from sottovoce.runtime.contracts import cache_roles, tensor_by_role
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import DataType, GraphSpec, KVCacheSpec, TensorSpec

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
UPDATE_PLACES = {"TensorScatter": 1, "ScatterND": 2}
"""Operators that write a cache, and which of their inputs is written."""
FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
CACHE_ROLES = ("past_", "present_")
UNIT, WIDE_UNIT, ZERO = "cache.unit_scale", "cache.unit_scale.float32", "cache.zero_point"
HEADROOM = 1.2
"""Values that were not seen may be larger than those that were: a fifth more room costs a quarter of a bit, clipping
costs more (the tiny checkpoint, scales of 496 positions on 81 others: least cosine of logits 0.9995, without 0.998)."""
MEASURE_AGAIN = "measure the ranges again, on this bundle"


@dataclass(frozen=True)
class CacheScales:
    """The steps of an int8 cache: a (kv_heads, head_size) float32 array for each layer's keys, and for its values.

    A channel whose scale is 0 is dead: it was always zero when the scales were measured.
    """

    keys: tuple[Floats, ...]
    values: tuple[Floats, ...]

    @classmethod
    def covering(cls, keys: Sequence[Floats], values: Sequence[Floats]) -> CacheScales:
        """Scales for the largest magnitudes (kv_heads, head_size) that were seen in the cache of each layer.

        Keys are turned with their position, in pairs of a channel of the first half and its like in the second: far
        into a context that nobody measured, each may become as large as both together.
        """
        turned = (np.tile(np.hypot(*np.split(largest, 2, axis=-1)), 2) for largest in keys)
        step = np.float32(HEADROOM / INT8_LIMIT)
        return cls(tuple(step * largest for largest in turned), tuple(step * largest for largest in values))


@dataclass(frozen=True)
class CacheTensor:
    """One of a decoder's buffers, by the names of values: what it was, what is written to it, what it then is.

    `role` is `key.N` or `value.N`; `update` (1, kv_heads, positions, head_size) is what scales are measured on.
    """

    role: str
    past: str
    update: str
    present: str


def cache_tensors(graph: StageGraph) -> list[CacheTensor]:
    """A decoder's buffers: key and value of the first layer, of the second…

    Raises:
        SottovoceError: the stage has no cache, or a dialect whose cache is written in another way.
    """
    cache = _layout(graph)
    tensors = []
    for past_role, present_role in zip(
        cache_roles(cache.layers, "past"), cache_roles(cache.layers, "present"), strict=True
    ):
        past = tensor_by_role(graph.spec.inputs, past_role).name
        present = tensor_by_role(graph.spec.outputs, present_role).name
        writer = graph.producer(present)
        place = None if writer is None else update_place(writer, present)
        if writer is None or place is None or past not in writer.input:
            raise _other_dialect(graph, f"{present!r} is not written over {past!r}")
        tensors.append(CacheTensor(past_role.removeprefix("past_"), past, writer.input[place], present))
    return tensors


def update_place(node: onnx.NodeProto, present: str) -> int | None:
    """Which input of a node is written into the buffer that it gives as `present`; None: it writes no buffer."""
    if not is_grouped_attention(node):
        return UPDATE_PLACES.get(node.op_type)
    return dict(zip(node.output[PRESENTS[0] :], UPDATES, strict=False)).get(present)


def narrow_cache(graph: StageGraph) -> None:
    """Make a float32 cache float16; one that is float16 already is left alone.

    Raises:
        SottovoceError: the stage has no cache, or one in int8.
    """
    if _float_layout(graph).dtype == "float16":
        return
    for tensor in cache_tensors(graph):
        if _grouped_attention(graph, tensor) is None:  # that operator takes a cache of another type than its floats'
            _put_behind(graph, tensor.update, "narrowed", "Cast", to=FLOAT16)
            _put_behind(graph, tensor.present, "widened", "Cast", to=FLOAT)
    graph.declare(with_cache_type(graph.spec, "float16"))


def shrink_cache(graph: StageGraph, scales: CacheScales) -> None:
    """Make a float cache int8. A graph that is to be float16 as well is made so before.

    Args:
        graph: a decoder's.
        scales: of every layer; a 0 becomes 1.

    Raises:
        SottovoceError: the stage has no cache, or one in int8 already; a scale is negative, infinite or no number, or
            there is not one for each channel: the tensor is named.
    """
    _float_layout(graph)
    tensors = cache_tensors(graph)
    in_operator = _grouped_attention(graph, tensors[0]) is not None
    steps = _steps_by_role(graph, scales, np.dtype(np.float32) if in_operator else graph.float_type)
    if in_operator:
        for tensor in tensors:
            _shrink_in_operator(graph, tensor, steps[tensor.role])
        graph.declare(with_cache_type(graph.spec, "int8"))
        return
    heads = graph.value_types()[_attention(graph, tensors[0]).output[0]].shape.dim[1].dim_value
    graph.require_opset(SCALED_OPSET)
    graph.add(UNIT, np.ones((), graph.float_type))
    graph.add(WIDE_UNIT, np.ones((), np.float32))
    graph.add(ZERO, np.zeros((), np.int8))
    for tensor in tensors:
        _shrink(graph, tensor, steps[tensor.role], heads)
    graph.declare(with_cache_type(graph.spec, "int8"))


def _shrink_in_operator(graph: StageGraph, tensor: CacheTensor, steps: Array) -> None:
    """Let ONNX Runtime's attention round and scale by itself, as it does."""
    node = _grouped_attention(graph, tensor)
    if node is None:
        raise _other_dialect(graph, f"{tensor.present!r} is written in another way than the first buffer")
    is_key = tensor.role.startswith("key")
    node.input.extend([""] * (VALUE_SCALE + 1 - len(node.input)))
    scale = graph.add(f"{tensor.present}.scale", steps[None, :, None])
    node.input[KEY_SCALE if is_key else VALUE_SCALE] = scale
    kind = onnx.helper.make_attribute("k_quant_type" if is_key else "v_quant_type", "PER_CHANNEL")
    node.attribute.append(kind)
    if is_key:
        node.attribute.append(onnx.helper.make_attribute("kv_cache_bit_width", 8))


def _grouped_attention(graph: StageGraph, tensor: CacheTensor) -> onnx.NodeProto | None:
    """The node that writes this buffer and attends over it, where one does both."""
    writer = graph.producer(tensor.present)
    return writer if writer is not None and is_grouped_attention(writer) else None


def _shrink(graph: StageGraph, tensor: CacheTensor, steps: Array, heads: int) -> None:
    """Integers of `steps` (kv_heads, head_size) into one buffer, and floats out of it for so many query heads."""
    attention = _attention(graph, tensor)
    rescaled = attention.input[0] if tensor.role.startswith("key") else attention.output[0]
    by_head = np.repeat(steps, heads // len(steps), axis=0)
    scale = graph.add(f"{tensor.present}.scale", steps[None, :, None])
    scale_by_head = graph.add(f"{tensor.present}.scale_by_head", by_head[None, :, None])
    in_steps = _put_behind(graph, tensor.update, "in_steps", "Div", scale)
    _put_behind(graph, in_steps, "quantized", "QuantizeLinear", UNIT, ZERO)
    integers = _put_behind(graph, tensor.present, "dequantized", "DequantizeLinear", WIDE_UNIT, ZERO)
    if graph.float_type == np.float16:
        _put_behind(graph, integers, "narrowed", "Cast", to=FLOAT16)
    _put_behind(graph, rescaled, "rescaled", "Mul", scale_by_head)


def with_cache_type(spec: GraphSpec, dtype: DataType) -> GraphSpec:
    """A decoder's contract with buffers of another type."""

    def changed(tensors: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(
            replace(tensor, dtype=dtype) if tensor.role.startswith(CACHE_ROLES) else tensor for tensor in tensors
        )

    cache = None if spec.cache is None else replace(spec.cache, dtype=dtype)
    return replace(spec, inputs=changed(spec.inputs), outputs=changed(spec.outputs), cache=cache)


def _layout(graph: StageGraph) -> KVCacheSpec:
    if graph.spec.cache is None:
        raise SottovoceError(f"the stage {graph.stage!r} has no KV cache", fix="name a decoder: it has one")
    return graph.spec.cache


def _float_layout(graph: StageGraph) -> KVCacheSpec:
    layout = _layout(graph)
    if layout.dtype == "int8":
        message = f"the KV cache of stage {graph.stage!r} is int8 already"
        raise SottovoceError(message, fix="start from the bundle that this one was quantized from")
    return layout


def _attention(graph: StageGraph, tensor: CacheTensor) -> onnx.NodeProto:
    readers = [node for node, _ in graph.consumers(tensor.present)]
    if [node.op_type for node in readers] != ["Attention"]:
        raise _other_dialect(graph, f"{tensor.present!r} is read by {[node.op_type for node in readers]}")
    return readers[0]


def _other_dialect(graph: StageGraph, found: str) -> SottovoceError:
    return SottovoceError(
        f"stage {graph.stage!r}, dialect {graph.spec.dialect!r}: {found}",
        fix="export with a target whose decoders are portable: cpu or tensorrt",
    )


def _steps_by_role(graph: StageGraph, scales: CacheScales, dtype: np.dtype[Any]) -> dict[str, Array]:
    """Checked scales (kv_heads, head_size) by role, in a float type."""
    layout = _layout(graph)
    if not len(scales.keys) == len(scales.values) == layout.layers:
        counts = f"{len(scales.keys)} keys and {len(scales.values)} values"
        message = f"there are scales for {counts}, and stage {graph.stage!r} has {layout.layers} layers"
        raise SottovoceError(message, fix=MEASURE_AGAIN)
    steps = {}
    for kind, of_layers in (("key", scales.keys), ("value", scales.values)):
        for layer, scale in enumerate(of_layers):
            role = f"{kind}.{layer}"
            _check_scale(graph, role, scale)
            smallest = np.finfo(dtype).tiny  # a channel of float16's least values is rounded coarsely
            steps[role] = np.where(scale == 0, 1, np.maximum(scale, smallest)).astype(dtype)
    return steps


def _check_scale(graph: StageGraph, role: str, scale: Floats) -> None:
    layout, name = _layout(graph), f"{role!r} of stage {graph.stage!r}"
    if scale.shape != (layout.kv_heads, layout.head_size):
        message = f"the cache scales of {name} are {scale.shape}, expected {(layout.kv_heads, layout.head_size)}"
        raise SottovoceError(message, fix=MEASURE_AGAIN)
    bad = int(np.count_nonzero(~((scale >= 0) & (scale <= np.finfo(graph.float_type).max))))
    if bad:
        message = f"of the cache scales of {name}, {bad} are negative, no numbers, or beyond {graph.float_type}"
        raise SottovoceError(message, fix=MEASURE_AGAIN)


def _put_behind(graph: StageGraph, value: str, suffix: str, op: str, *constants: str, **attributes: Any) -> str:
    """Let all who read `value` read what `op` makes of it; returns that."""
    place, output = graph.first_reader(value), f"{value}.{suffix}"
    graph.redirect(value, output)
    return graph.insert(place, op, [value, *constants], output, **attributes)
