"""Runs exported graphs in ONNX Runtime by their contracts, for tests of the exporter alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from sottovoce.runtime.manifest import GraphSpec

STALE = 50.0
"""What cache buffers hold before they are written: the size of a large key: attending to it cannot go unseen."""
HAS_OPSET_24 = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 24)


def open_session(bundle: Path, spec: GraphSpec) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(bundle / spec.file), options, providers=["CPUExecutionProvider"])


def run_graph(bundle: Path, spec: GraphSpec, values: np.ndarray) -> np.ndarray:
    """A graph of one input and one output, beside a stream's state: it is fed as for a whole utterance."""
    source, *state = spec.inputs
    result, *_ = spec.outputs
    sizes = {} if spec.stream is None else {"past": 0, "tail": 0, "padding": spec.stream.padding_frames}
    feeds = {
        tensor.name: np.zeros([size if isinstance(size, int) else sizes[size] for size in tensor.shape], tensor.dtype)
        for tensor in state
    }
    return open_session(bundle, spec).run([result.name], {source.name: values, **feeds})[0]


class DecoderRunner:
    """A decoder graph and its cache of so many positions, if the graph takes any number."""

    def __init__(self, bundle: Path, spec: GraphSpec, capacity: int) -> None:
        self.session = open_session(bundle, spec)
        self.length = 0
        if spec.cache.fixed_capacity:
            capacity = spec.cache.max_length
        shape = (1, spec.cache.kv_heads, capacity, spec.cache.head_size)
        past = [tensor for tensor in spec.inputs if tensor.role.startswith("past_")]
        self.cache = {tensor.name: np.full(shape, STALE, spec.cache.dtype) for tensor in past}
        self._present = {tensor.name: tensor.role.replace("present_", "past_") for tensor in spec.outputs[1:]}
        self._past = {tensor.role: tensor.name for tensor in past}

    def append(self, embeddings: np.ndarray) -> np.ndarray:
        """(T, D) → logits (V,) after the last."""
        feeds = {"embeddings": embeddings[None].astype(np.float32), "cache_length": np.array([self.length])}
        logits, *present = self.session.run(["logits", *self._present], feeds | self.cache)
        for role, buffer in zip(self._present.values(), present, strict=True):
            self.cache[self._past[role]] = buffer
        self.length += len(embeddings)
        return logits[0]


def teacher_forced(
    decoder: DecoderRunner, prompt: np.ndarray, table: np.ndarray, reference_logits: np.ndarray
) -> np.ndarray:
    """Logits of each step when every step is fed the reference's greedy id."""
    logits = [decoder.append(prompt)]
    for step in reference_logits[:-1]:
        logits.append(decoder.append(table[step.argmax()][None]))
    return np.stack(logits)


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def check_greedy(found: np.ndarray, reference: np.ndarray, margin: float) -> None:
    """The same ids wherever the reference's best two logits are further apart than `margin`."""
    best_two = np.sort(reference, axis=-1)[:, -2:]
    sure = best_two[:, 1] - best_two[:, 0] > margin
    assert sure.any()
    np.testing.assert_array_equal(found.argmax(-1)[sure], reference.argmax(-1)[sure])
