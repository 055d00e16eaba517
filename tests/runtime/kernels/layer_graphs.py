"""Decoder layers with integer weights, as the `cpu` dialect spells them, and what is fed to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from sottovoce.runtime.backends.onnxruntime_options import INTEGER_WEIGHTS
from sottovoce.runtime.kernels.fused_graph import fused_graph
from sottovoce.runtime.kernels.library import usable_kernels

EPSILON = 1e-5


@dataclass(frozen=True)
class LayerShape:
    """Sizes of a layer, and how many there are; `block` 0: a scale a column."""

    width: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 32
    inner: int = 160
    bits: int = 4
    block: int = 32
    bias: bool = True
    sinks: bool = True
    layers: int = 1

    @property
    def prefixes(self) -> list[str]:
        """Of the layers' names; the first one has none."""
        return ["", *(f"{number}." for number in range(1, self.layers))]

    @property
    def caches(self) -> list[str]:
        """The layers' buffers as they come in."""
        return [f"{prefix}past.{what}" for prefix in self.prefixes for what in ("key", "value")]

    @property
    def projected(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_size


class LayerGraph:
    """The graph, to be changed before it is written.

    Args:
        shape: of the layer.
        seed: of its weights.
    """

    def __init__(self, shape: LayerShape = LayerShape(), seed: int = 0) -> None:
        self.shape = shape
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.results = ["result", *(name.replace("past", "present") for name in shape.caches)]
        widths = [heads * shape.head_size for heads in (shape.heads, shape.kv_heads, shape.kv_heads)]
        self.weight("widths", np.array(widths))
        hidden = "hidden"
        for number, self._prefix in enumerate(shape.prefixes):
            self._attention(hidden, f"{self._prefix}middle")
            result = "result" if number + 1 == shape.layers else f"{number + 1}.hidden"
            self._gated(f"{self._prefix}middle", result)
            hidden = result

    def node(self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))

    def named(self, output: str) -> onnx.NodeProto:
        """The node that makes a value."""
        return next(node for node in self.nodes if output in node.output)

    def weight(self, name: str, values: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def model(self) -> onnx.ModelProto:
        """The whole model."""
        shape = self.shape
        cache = [1, shape.kv_heads, "capacity", shape.head_size]
        given = {
            "hidden": [1, "count", shape.width],
            **{name: [1, "count", shape.head_size // 2] for name in ("qcos", "qsin", "cos", "sin")},
            **dict.fromkeys(shape.caches, cache),
        }
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in given.items()]
        inputs.append(helper.make_tensor_value_info("last", TensorProto.INT32, [1]))
        inputs.append(helper.make_tensor_value_info("filled", TensorProto.INT32, []))
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.results]
        graph = helper.make_graph(self.nodes, "layer", inputs, results, self.weights)
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=11)

    def write(self, folder: Path) -> Path:
        path = folder / "layer.onnx"
        onnx.save(self.model(), path)
        return path

    def _floats(self, *size: int) -> np.ndarray:
        return self.random.normal(size=size).astype(np.float32)

    def _product(self, rows: str, what: str, depth: int, columns: int) -> str:
        shape, highest, name = self.shape, 2 ** (self.shape.bits - 1) - 1, self._prefix + what
        integers = self.random.integers(-highest - 1, highest + 1, (depth, columns))
        blocks = depth // shape.block if shape.block else 1
        spread = self.random.uniform(0.5, 1.5, (blocks, columns) if shape.block else (columns,))
        scales = (spread / (highest * depth**0.5)).astype(np.float32)
        kind = TensorProto.INT4 if shape.bits == 4 else TensorProto.INT8
        tensor = helper.make_tensor(f"{name}.weight", kind, (depth, columns), _stored(integers, shape.bits), raw=True)
        self.weights.append(tensor)
        self.weight(f"{name}.scale", scales)
        attributes = {"axis": 0, "block_size": shape.block} if shape.block else {"axis": 1}
        inputs = [f"{name}.weight", f"{name}.scale"]
        self.node("DequantizeLinear", inputs, [f"{name}.dequantized"], **attributes)
        self.node("MatMul", [rows, f"{name}.dequantized"], [f"{name}.projected"])
        return f"{name}.projected"

    def _norm(self, what: str, hidden: str) -> str:
        name = self._prefix + what
        self.weight(f"{name}.weight", 1 + 0.1 * self._floats(self.shape.width))
        self.node("RMSNormalization", [hidden, f"{name}.weight"], [f"{name}.normed"], axis=-1, epsilon=EPSILON)
        return f"{name}.normed"

    def _attention(self, hidden: str, result: str) -> None:
        shape, of = self.shape, self._prefix
        joined = self._product(self._norm("first", hidden), "qkv", shape.width, shape.projected)
        if shape.bias:
            bias = self.weight(f"{of}qkv.bias", self._floats(shape.projected))
            self.node("Add", [joined, bias], [f"{of}qkv.biased"])
            joined = f"{of}qkv.biased"
        query, key, value = f"{of}q", f"{of}k", f"{of}v"
        self.node("Split", [joined, "widths"], [query, key, value], axis=-1)
        self.node("RotaryEmbedding", [query, "qcos", "qsin"], [f"{of}query"], num_heads=shape.heads, interleaved=0)
        self.node("RotaryEmbedding", [key, "cos", "sin"], [f"{of}key"], num_heads=shape.kv_heads, interleaved=0)
        inputs = [f"{of}query", f"{of}key", value, f"{of}past.key", f"{of}past.value", "last", "filled"]
        if shape.sinks:
            inputs += [""] * 4 + [self.weight(f"{of}sinks", self._floats(shape.heads))]
        outputs = [f"{of}context", f"{of}present.key", f"{of}present.value"]
        attributes = {"num_heads": shape.heads, "kv_num_heads": shape.kv_heads, "scale": 1.0}
        self.node("GroupQueryAttention", inputs, outputs, domain="com.microsoft", **attributes)
        out = self._product(f"{of}context", "out", shape.heads * shape.head_size, shape.width)
        self.node("Add", [hidden, out], [result])

    def _gated(self, hidden: str, result: str) -> None:
        shape, of, normed = self.shape, self._prefix, self._norm("second", hidden)
        gate = self._product(normed, "gate", shape.width, shape.inner)
        up = self._product(normed, "up", shape.width, shape.inner)
        self.node("Sigmoid", [gate], [f"{of}sigmoid"])
        self.node("Mul", [gate, f"{of}sigmoid"], [f"{of}swish"])
        self.node("Mul", [f"{of}swish", up], [f"{of}both"])
        self.node("Add", [hidden, self._product(f"{of}both", "down", shape.inner, shape.width)], [result])


def _stored(integers: np.ndarray, bits: int) -> bytes:
    if bits == 8:
        return integers.astype(np.int8).tobytes()
    nibbles = (integers & 15).astype(np.uint8).ravel()
    return (nibbles[0::2] | nibbles[1::2] << 4).tobytes()


def layer_feeds(shape: LayerShape, past: int, count: int, capacity: int, seed: int = 5) -> dict[str, np.ndarray]:
    """Rows, the angles of their positions, and a cache that holds `past` positions."""
    random = np.random.default_rng(seed)
    angles = (past + np.arange(count))[:, None] * 1e4 ** (-np.arange(shape.head_size // 2) / (shape.head_size // 2))
    scale = shape.head_size**-0.5
    cache = (1, shape.kv_heads, capacity, shape.head_size)
    floats = {
        "hidden": random.normal(size=(1, count, shape.width)) * random.uniform(0.1, 4, (1, count, 1)),
        "qcos": scale * np.cos(angles)[None],
        "qsin": scale * np.sin(angles)[None],
        "cos": np.cos(angles)[None],
        "sin": np.sin(angles)[None],
        **{name: random.normal(size=cache) for name in shape.caches},
    }
    return {name: values.astype(np.float32) for name, values in floats.items()} | {
        "last": np.array([past + count - 1], np.int32),
        "filled": np.array(past + count, np.int32),
    }


def fused_bytes(path: Path, threads: int = 2, *, whole_layers: bool = True) -> bytes:
    """The model in a file, fused."""
    model = fused_graph(path, threads, whole_layers=whole_layers)
    assert model is not None
    return model


def session_of(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """A model whose weights are in it, with our kernels."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(usable_kernels()))
    for name, value in INTEGER_WEIGHTS.items():
        options.add_session_config_entry(name, value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def layer_session(path: Path, *, fused: bool, threads: int) -> onnxruntime.InferenceSession:
    """The model in a file."""
    return session_of(fused_bytes(path, threads) if fused else path.read_bytes(), threads)
