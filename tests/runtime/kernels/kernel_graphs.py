"""Graphs of one operator that the kernels compute, sessions with and without them, and the same in float64."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sottovoce.runtime.kernels.library import LEVELS, instructions, usable_kernels

BLOCK = 32


def _levels_here() -> list[str]:
    """Each kind of instructions that this processor has, in the library's order."""
    if instructions() is None:
        return []
    library, found = ctypes.CDLL(str(usable_kernels())), []
    for number, name in enumerate(LEVELS[1:], start=1):
        library.sottovoce_kernels_allow(number)
        if library.sottovoce_kernels_level() == number:
            found.append(name)
    library.sottovoce_kernels_allow(len(LEVELS) - 1)
    return found


HERE = _levels_here()
needs_kernels = pytest.mark.skipif(not HERE, reason="the kernels were not compiled, or this processor has no AVX2")


@contextmanager
def computing_with(name: str) -> Iterator[None]:
    """As a processor that has no more than these instructions."""
    library = ctypes.CDLL(str(usable_kernels()))
    library.sottovoce_kernels_allow(LEVELS.index(name))
    try:
        yield
    finally:
        library.sottovoce_kernels_allow(len(LEVELS) - 1)


def session(graph: bytes, *, ours: bool = True, threads: int = 2) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if ours:
        options.register_custom_ops_library(str(usable_kernels()))
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _float(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(graph: onnx.GraphProto) -> bytes:
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=11).SerializeToString()


@dataclass(frozen=True)
class BlockedWeights:
    """Random weights of 4 or 8 bits as a graph holds them."""

    bits: int
    depth: int
    columns: int
    block: int
    seed: int = 0

    @property
    def blocks(self) -> int:
        return -(-self.depth // self.block)

    @property
    def values(self) -> np.ndarray:
        """Unsigned, (columns, blocks, block)."""
        random = np.random.default_rng(self.seed)
        return random.integers(0, 2**self.bits, (self.columns, self.blocks, self.block), dtype=np.uint8)

    @property
    def scales(self) -> np.ndarray:
        return np.random.default_rng(self.seed + 1).uniform(1e-3, 1e-2, (self.columns, self.blocks)).astype(np.float32)

    @property
    def bias(self) -> np.ndarray:
        return np.random.default_rng(self.seed + 2).normal(size=self.columns).astype(np.float32)

    def graph(self, *, bias: bool = False, zero_point: int | None = None, **attributes: int) -> bytes:
        """One MatMulNBits; with `zero_point` in all places, if any, and other attributes than are true of it."""
        values = self.values
        packed = values[:, :, 0::2] | (values[:, :, 1::2] << 4) if self.bits == 4 else values
        constants = {"weights": packed, "scales": self.scales}
        inputs = ["rows", *constants]
        if zero_point is not None:
            per_byte = zero_point * 17 if self.bits == 4 else zero_point
            constants["zeros"] = np.full((self.columns, -(-self.blocks * self.bits // 8)), per_byte, np.uint8)
            inputs.append("zeros")
        if bias:
            constants["bias"] = self.bias
            inputs += [""] * (5 - len(inputs)) + ["bias"]
        node = helper.make_node(
            "MatMulNBits",
            inputs,
            ["result"],
            domain="com.microsoft",
            **{"K": self.depth, "N": self.columns, "bits": self.bits, "block_size": self.block, "accuracy_level": 4}
            | attributes,
        )
        initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        rows, result = _float("rows", 1, "count", self.depth), _float("result", 1, "count", self.columns)
        return _model(helper.make_graph([node], "product", [rows], [result], initializers))

    def product(self, rows: np.ndarray) -> np.ndarray:
        """What rows, rounded to 8 bits by blocks of 32, times the weights are, whose scales are rounded to 16 bits."""
        zero, largest_scale = 2 ** (self.bits - 1), np.abs(self.scales).max(axis=1, keepdims=True)
        scales = (self.scales / largest_scale).astype(np.float16) * largest_scale.astype(np.float64)
        weights = (self.values.astype(np.float64) - zero) * scales[:, :, None]
        padded = np.zeros((rows.shape[0], -(-self.depth // BLOCK) * BLOCK), np.float32)
        padded[:, : self.depth] = rows
        parts = padded.reshape(rows.shape[0], -1, BLOCK)
        largest = np.abs(parts).max(axis=2, keepdims=True)
        steps = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
        rounded = np.rint(parts * steps).astype(np.float64) * (largest / np.float32(127))
        flat = weights.reshape(self.columns, -1)[:, : self.depth]
        return rounded.reshape(rows.shape[0], -1)[:, : self.depth] @ flat.T


@dataclass(frozen=True)
class AttentionShape:
    """One GroupQueryAttention and a call of it."""

    query_heads: int
    kv_heads: int
    head_size: int
    past: int
    queries: int
    capacity: int
    sink: float = -6e4
    scale: float = 0.125

    def graph(self, **attributes: int) -> bytes:
        """One GroupQueryAttention, with other attributes than are true of it, if any."""
        cache = (1, self.kv_heads, "capacity", self.head_size)
        wide, narrow = self.query_heads * self.head_size, self.kv_heads * self.head_size
        inputs = ["query", "key", "value", "past_key", "past_value", "last", "filled", "", "", "", "", "sink"]
        node = helper.make_node(
            "GroupQueryAttention",
            inputs,
            ["context", "present_key", "present_value"],
            domain="com.microsoft",
            **{"num_heads": self.query_heads, "kv_num_heads": self.kv_heads, "scale": self.scale} | attributes,
        )
        given = [
            _float("query", 1, "queries", wide),
            *(_float(name, 1, "queries", narrow) for name in ("key", "value")),
            *(_float(name, *cache) for name in ("past_key", "past_value")),
            helper.make_tensor_value_info("last", TensorProto.INT32, (1,)),
            helper.make_tensor_value_info("filled", TensorProto.INT32, ()),
        ]
        made = [
            _float("context", 1, "queries", wide),
            *(_float(f"present_{name}", *cache) for name in ("key", "value")),
        ]
        sinks = numpy_helper.from_array(np.full(self.query_heads, self.sink, np.float32), "sink")
        return _model(helper.make_graph([node], "attention", given, made, [sinks]))

    def feeds(self, seed: int = 0) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)

        def normal(*shape: int) -> np.ndarray:
            return random.normal(size=shape).astype(np.float32)

        cache = (1, self.kv_heads, self.capacity, self.head_size)
        narrow = (1, self.queries, self.kv_heads * self.head_size)
        filled = self.past + self.queries
        return {
            "query": 3 * normal(1, self.queries, self.query_heads * self.head_size),
            "key": normal(*narrow),
            "value": normal(*narrow),
            "past_key": normal(*cache),
            "past_value": normal(*cache),
            "last": np.array([filled - 1], np.int32),
            "filled": np.array(filled, np.int32),
        }

    def context(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        """In float64: (1, queries, query_heads * head_size)."""
        group, result = self.query_heads // self.kv_heads, []
        for head in range(self.query_heads):
            keys, values = (self._joined(feeds, name)[head // group] for name in ("key", "value"))
            query = feeds["query"][0].reshape(self.queries, self.query_heads, -1)[:, head].astype(np.float64)
            scores = self.scale * query @ keys.T
            places = np.arange(keys.shape[0])
            scores[places[None, :] > self.past + np.arange(self.queries)[:, None]] = -np.inf
            largest = np.maximum(scores.max(axis=1, keepdims=True), self.sink)
            weights = np.exp(scores - largest)
            result.append(weights @ values / (weights.sum(axis=1, keepdims=True) + np.exp(self.sink - largest)))
        return np.stack(result, axis=1).reshape(1, self.queries, -1)

    def _joined(self, feeds: dict[str, np.ndarray], name: str) -> np.ndarray:
        """Past and this call's, (kv_heads, filled, head_size)."""
        added = feeds[name][0].reshape(self.queries, self.kv_heads, self.head_size).transpose(1, 0, 2)
        return np.concatenate([feeds[f"past_{name}"][0, :, : self.past], added], axis=1).astype(np.float64)
