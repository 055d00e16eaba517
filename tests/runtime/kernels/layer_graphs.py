"""One decoder layer with integer weights, as the `cpu` dialect spells it, and what is fed to it."""

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
    """Sizes of a layer; `block` 0: a scale a column."""

    width: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 32
    inner: int = 160
    bits: int = 4
    block: int = 32
    bias: bool = True
    sinks: bool = True

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
        self.results = ["result", "present.key", "present.value"]
        self._attention()
        self._gated()

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
            "past.key": cache,
            "past.value": cache,
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

    def _product(self, rows: str, name: str, depth: int, columns: int) -> str:
        shape, highest = self.shape, 2 ** (self.shape.bits - 1) - 1
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

    def _norm(self, name: str, hidden: str) -> str:
        self.weight(f"{name}.weight", 1 + 0.1 * self._floats(self.shape.width))
        self.node("RMSNormalization", [hidden, f"{name}.weight"], [f"{name}.normed"], axis=-1, epsilon=EPSILON)
        return f"{name}.normed"

    def _attention(self) -> None:
        shape = self.shape
        joined = self._product(self._norm("first", "hidden"), "qkv", shape.width, shape.projected)
        if shape.bias:
            self.node("Add", [joined, self.weight("qkv.bias", self._floats(shape.projected))], ["qkv.biased"])
            joined = "qkv.biased"
        widths = [heads * shape.head_size for heads in (shape.heads, shape.kv_heads, shape.kv_heads)]
        self.node("Split", [joined, self.weight("widths", np.array(widths))], ["q", "k", "v"], axis=-1)
        self.node("RotaryEmbedding", ["q", "qcos", "qsin"], ["query"], num_heads=shape.heads, interleaved=0)
        self.node("RotaryEmbedding", ["k", "cos", "sin"], ["key"], num_heads=shape.kv_heads, interleaved=0)
        inputs = ["query", "key", "v", "past.key", "past.value", "last", "filled"]
        if shape.sinks:
            inputs += [""] * 4 + [self.weight("sinks", self._floats(shape.heads))]
        outputs = ["context", "present.key", "present.value"]
        attributes = {"num_heads": shape.heads, "kv_num_heads": shape.kv_heads, "scale": 1.0}
        self.node("GroupQueryAttention", inputs, outputs, domain="com.microsoft", **attributes)
        out = self._product("context", "out", shape.heads * shape.head_size, shape.width)
        self.node("Add", ["hidden", out], ["middle"])

    def _gated(self) -> None:
        shape, normed = self.shape, self._norm("second", "middle")
        gate = self._product(normed, "gate", shape.width, shape.inner)
        up = self._product(normed, "up", shape.width, shape.inner)
        self.node("Sigmoid", [gate], ["sigmoid"])
        self.node("Mul", [gate, "sigmoid"], ["swish"])
        self.node("Mul", ["swish", up], ["both"])
        self.node("Add", ["middle", self._product("both", "down", shape.inner, shape.width)], ["result"])


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
        "past.key": random.normal(size=cache),
        "past.value": random.normal(size=cache),
    }
    return {name: values.astype(np.float32) for name, values in floats.items()} | {
        "last": np.array([past + count - 1], np.int32),
        "filled": np.array(past + count, np.int32),
    }


def fused_bytes(path: Path, threads: int = 2) -> bytes:
    """The model in a file, fused."""
    model = fused_graph(path, threads)
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
