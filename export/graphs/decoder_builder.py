"""A llama-like decoder as an ONNX graph, straight from weights: they stream from the checkpoint to the graph's data.

The residual stream and the norms are float32 in every precision; projections, attention and the cache have the graph's
own float type. (Residual streams of trained decoders hold a few activations in the thousands, Sun et al. 2024,
"Massive Activations in Large Language Models": half precision has steps of several units there.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sottovoce.calibration.bundles.external_data import ExternalDataWriter, WeightBlocks, Weights
from sottovoce.calibration.bundles.graph_contract import ELEMENT_TYPES
from sottovoce.export.dialects import Dialect
from sottovoce.export.graphs.contract import FLOAT_TYPES, Spelling, StageFiles, narrowed
from sottovoce.export.graphs.decoder_spelling import Heads, Positions, Projections
from sottovoce.export.graphs.graph_builder import GraphBuilder
from sottovoce.export.modules.llama_layer import Rotary
from sottovoce.runtime.manifest import GraphSpec, KVCacheSpec, TensorSpec

TensorReader = Callable[[str], torch.Tensor]
"""Reads one tensor of a checkpoint by its name."""
NUMPY_TYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
}
COSINES, SINES = "rotary.cos", "rotary.sin"
BLOCK_BYTES = 64 << 20
"""Matrices are transposed and converted in pieces of this size."""


@dataclass(frozen=True)
class DecoderShape:
    """Sizes and switches of one decoder. `vocab_size` is the width of its logits."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    vocab_size: int
    context_length: int
    rms_norm_eps: float
    rope_theta: float
    query_key_value_bias: bool
    head_bias: bool
    prefix_attention: bool
    """True: every position of one call sees all positions up to the end of the call. False: causal."""

    @property
    def heads(self) -> Heads:
        """The attention's."""
        return Heads(self.num_heads, self.num_kv_heads, self.head_size, self.prefix_attention)


@dataclass(frozen=True)
class DecoderWeightNames:
    """Where a checkpoint keeps the decoder: layers are `{layers}.{index}.self_attn.q_proj.weight` and so on."""

    layers: str
    norm: str
    head: str


@dataclass(frozen=True)
class DecoderPlan:
    """Everything about a decoder but its weights."""

    shape: DecoderShape
    names: DecoderWeightNames
    dialect: Dialect


def decoder_contract(shape: DecoderShape, spelling: Spelling, files: StageFiles) -> GraphSpec:
    """Inputs and outputs of a decoder graph.

    | name | type | shape | meaning |
    | --- | --- | --- | --- |
    | embeddings | float32 | (1, positions, hidden) | what to append |
    | cache_length | int64 | (1,) | positions in the cache before this call |
    | past_key_values.N.key, .value | graph's | (1, kv_heads, capacity, head) | cache of layer N |
    | logits | float32 | (1, vocabulary) | after the last of the positions |
    | present.N.key, .value | graph's | (1, kv_heads, capacity, head) | the cache with the positions appended |

    Capacity is a number where the dialect has fixed buffers. What the buffers hold behind the appended positions is not
    seen, as long as it is finite and of a key's size.
    """
    dtype = FLOAT_TYPES[files.precision]
    capacity = shape.context_length if spelling.fixed_capacity else "capacity"
    buffer = (1, shape.num_kv_heads, capacity, shape.head_size)
    kinds = [(layer, kind) for layer in range(shape.num_layers) for kind in ("key", "value")]
    past = [TensorSpec(f"past_{kind}.{n}", f"past_key_values.{n}.{kind}", dtype, buffer) for n, kind in kinds]
    present = [TensorSpec(f"present_{kind}.{n}", f"present.{n}.{kind}", dtype, buffer) for n, kind in kinds]
    embeddings = TensorSpec("embeddings", "embeddings", "float32", (1, "positions", shape.hidden_size))
    cache_length = TensorSpec("cache_length", "cache_length", "int64", (1,))
    logits = TensorSpec("logits", "logits", "float32", (1, shape.vocab_size))
    cache = KVCacheSpec(
        layers=shape.num_layers,
        kv_heads=shape.num_kv_heads,
        head_size=shape.head_size,
        dtype=dtype,
        max_length=shape.context_length,
        fixed_capacity=spelling.fixed_capacity,
    )
    return files.spec(spelling, (embeddings, cache_length, *past), (logits, *present), cache)


def build_decoder(plan: DecoderPlan, read: TensorReader, files: StageFiles) -> GraphSpec:
    """Write the graph and its weights, and return the contract.

    Raises:
        SottovoceError: `read` refused a tensor, or a weight is beyond float16.
        OSError: the disk is full or not writable.
    """
    spelling = Spelling(plan.dialect.name, plan.dialect.opset, plan.dialect.fixed_capacity)
    contract = decoder_contract(plan.shape, spelling, files)
    with ExternalDataWriter(files.data) as data:
        graph = GraphBuilder(files.stage, spelling.opset, data)
        for spec in contract.inputs:
            graph.add_input(spec)
        for spec in contract.outputs:
            graph.add_output(spec)
        _DecoderGraph(graph, plan, read, files).build()
        graph.save(files.graph)
    return contract


class _DecoderGraph:
    """Adds the nodes, layer by layer."""

    def __init__(self, graph: GraphBuilder, plan: DecoderPlan, read: TensorReader, files: StageFiles) -> None:
        self._graph = graph
        self._shape = plan.shape
        self._names = plan.names
        self._read = read
        self._spelling = plan.dialect.spelling(graph, plan.shape.heads)
        self._joins_products = plan.dialect.joins_products
        self._dtype = files.dtype

    def build(self) -> None:
        positions = self._position_values()
        hidden = "embeddings"
        for layer in range(self._shape.num_layers):
            hidden = self._residual(f"layers.{layer}.attention", hidden, self._attention(layer, hidden, positions))
            hidden = self._residual(f"layers.{layer}.mlp", hidden, self._mlp(layer, hidden))
        self._head(hidden)

    def _position_values(self) -> Positions:
        """The positions of this call and their angles, from the number of cached positions."""
        graph = self._graph
        count = graph.op("Shape", "embeddings", start=1, end=2, output="positions.count")
        length = graph.op("Squeeze", count, output="positions.length")
        rows = graph.op("Range", graph.constant(0), length, graph.constant(1), output="positions.rows")
        ids = graph.op("Add", rows, "cache_length", output="positions.ids")
        wide = self._rotary_angles(ids)
        return Positions("cache_length", count, ids, COSINES, SINES, *wide)

    def _rotary_angles(self, ids: str) -> tuple[str, str]:
        """Cosines and sines (1, T, head/2) of this call's positions: tables of a long context are megabytes.

        In float32 until they meet activations; the frequencies are computed by the PyTorch stage's arithmetic.
        """
        graph = self._graph
        frequencies = Rotary.frequencies(self._shape.head_size, self._shape.rope_theta)
        graph.weight("rotary.frequencies", frequencies.numpy())
        column = graph.op("Unsqueeze", ids, graph.constant([0, 2]), output="rotary.positions")
        column = graph.op("Cast", column, to=ELEMENT_TYPES["float32"], output="rotary.float_positions")
        angles = graph.op("Mul", column, "rotary.frequencies", output="rotary.angles")
        if self._dtype == torch.float32:
            return graph.op("Cos", angles, output=COSINES), graph.op("Sin", angles, output=SINES)
        wide = graph.op("Cos", angles, output=f"{COSINES}.wide"), graph.op("Sin", angles, output=f"{SINES}.wide")
        for name, values in zip((COSINES, SINES), wide, strict=True):
            graph.op("Cast", values, to=ELEMENT_TYPES["float16"], output=name)
        return wide

    def _attention(self, layer: int, hidden: str, positions: Positions) -> str:
        normed = self._norm(f"layers.{layer}.input_layernorm", f"{self._layer(layer)}.input_layernorm", hidden)
        query, key, value = self._query_key_value(layer, normed)
        projected = Projections(layer, f"layers.{layer}.self_attn", query, key, value)
        context = self._spelling.attend(projected, positions)
        return self._linear(layer, "self_attn.o_proj", context, bias=False)

    def _query_key_value(self, layer: int, normed: str) -> tuple[str, ...]:
        """Projections of one layer, (1, T, its heads · head) each."""
        kinds, bias = [f"self_attn.{kind}_proj" for kind in "qkv"], self._shape.query_key_value_bias
        if not self._joins_products:
            return tuple(self._linear(layer, kind, normed, bias) for kind in kinds)
        joined = self._linear(layer, "self_attn.qkv_proj", normed, bias, parts=kinds)
        shape = self._shape
        widths = [heads * shape.head_size for heads in (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads)]
        outputs = tuple(f"layers.{layer}.{kind}.projected" for kind in kinds)
        self._graph.node("Split", (joined, self._graph.constant(widths)), outputs, axis=-1)
        return outputs

    def _mlp(self, layer: int, hidden: str) -> str:
        """SwiGLU (Shazeer 2020)."""
        name = f"layers.{layer}.mlp"
        norm = "post_attention_layernorm"
        normed = self._norm(f"layers.{layer}.{norm}", f"{self._layer(layer)}.{norm}", hidden)
        gate = self._linear(layer, "mlp.gate_proj", normed, bias=False)
        up = self._linear(layer, "mlp.up_proj", normed, bias=False)
        sigmoid = self._graph.op("Sigmoid", gate, output=f"{name}.sigmoid")
        swish = self._graph.op("Mul", gate, sigmoid, output=f"{name}.swish")
        product = self._graph.op("Mul", swish, up, output=f"{name}.product")
        return self._linear(layer, "mlp.down_proj", product, bias=False)

    def _head(self, hidden: str) -> None:
        """Logits of the last position only: the head is the largest matrix of all."""
        last = self._graph.op("Gather", hidden, self._graph.constant(-1), axis=1, output="last_position")
        normed = self._norm("norm", self._names.norm, last)
        self._graph.weight("head.weight", self._matrix(f"{self._names.head}.weight"))
        logits = "head.logits" if self._dtype == torch.float16 or self._shape.head_bias else "logits"
        logits = self._graph.op("MatMul", normed, "head.weight", output=logits)
        if self._shape.head_bias:
            self._graph.weight("head.bias", self._vector(f"{self._names.head}.bias"))
            biased = "head.biased" if self._dtype == torch.float16 else "logits"
            logits = self._graph.op("Add", logits, "head.bias", output=biased)
        if self._dtype == torch.float16:
            self._graph.op("Cast", logits, to=ELEMENT_TYPES["float32"], output="logits")

    def _norm(self, name: str, checkpoint_name: str, hidden: str) -> str:
        """RMSNorm in float32; its result in the graph's float type."""
        values = self._read(f"{checkpoint_name}.weight").to(torch.float32).numpy()
        scale = self._graph.weight(f"{name}.weight", values)
        normed = self._spelling.rms_norm(hidden, scale, self._shape.rms_norm_eps, output=f"{name}.normed")
        return self._narrow(name, normed)

    def _linear(self, layer: int, kind: str, hidden: str, bias: bool, parts: Sequence[str] = ()) -> str:
        """A product with a weight; with `parts`, those weights of the checkpoint side by side."""
        name = f"layers.{layer}.{kind}"
        stored = [f"{self._layer(layer)}.{part}" for part in parts or (kind,)]
        weight = self._graph.weight(f"{name}.weight", self._matrix(*(f"{part}.weight" for part in stored)))
        projected = self._graph.op("MatMul", hidden, weight, output=f"{name}.projected")
        if not bias:
            return projected
        self._graph.weight(f"{name}.bias", np.concatenate([self._vector(f"{part}.bias") for part in stored]))
        return self._graph.op("Add", projected, f"{name}.bias", output=f"{name}.biased")

    def _residual(self, name: str, hidden: str, update: str) -> str:
        if self._dtype == torch.float16:
            update = self._graph.op("Cast", update, to=ELEMENT_TYPES["float32"], output=f"{name}.update")
        return self._graph.op("Add", hidden, update, output=f"{name}.residual")

    def _narrow(self, name: str, values: str) -> str:
        if self._dtype == torch.float32:
            return values
        return self._graph.op("Cast", values, to=ELEMENT_TYPES["float16"], output=f"{name}.narrowed")

    def _layer(self, layer: int) -> str:
        return f"{self._names.layers}.{layer}"

    def _vector(self, name: str) -> Weights:
        return self._float(name, self._read(name))

    def _matrix(self, *names: str) -> WeightBlocks:
        """Linear layers' matrices, side by side, as MatMul takes them, (in, out): no engine has to transpose them."""
        matrices = {name: self._read(name).T for name in names}
        inputs, width = len(matrices[names[0]]), sum(matrix.shape[1] for matrix in matrices.values())
        rows = max(1, BLOCK_BYTES // (width * self._dtype.itemsize))

        def block(start: int) -> Weights:
            parts = [self._float(name, matrix[start : start + rows]) for name, matrix in matrices.items()]
            return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

        return WeightBlocks(NUMPY_TYPES[self._dtype], (inputs, width), map(block, range(0, inputs, rows)))

    def _float(self, name: str, values: torch.Tensor) -> Weights:
        return np.asarray(narrowed(name, values, self._dtype).contiguous().numpy())
