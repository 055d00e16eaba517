"""A layer as two operators computes what it does as fifteen."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from kernel_graphs import needs_kernels
from layer_graphs import LayerGraph, LayerShape, fused_bytes, layer_feeds, layer_session, session_of

pytestmark = needs_kernels
SHAPES = [
    LayerShape(),
    LayerShape(bits=8),
    LayerShape(bits=8, block=0),
    LayerShape(block=0),
    LayerShape(width=64, inner=128, block=64, bias=False),
    LayerShape(width=576, heads=9, kv_heads=3, head_size=64, inner=1536, bias=False),
    LayerShape(width=112, heads=7, kv_heads=1, head_size=16, inner=176, block=0, sinks=False),
    LayerShape(width=100, heads=2, kv_heads=2, head_size=48, inner=36, bits=8, block=0),
]
CALLS = [(0, 1, 4), (0, 9, 9), (7, 1, 8), (255, 1, 300), (256, 3, 300), (700, 1, 1024), (31, 17, 64), (300, 40, 400)]
ROUNDED_APART = 4e-3
"""Sums in another order may round a value of a row to the next of its 255 steps, which a product then shows."""


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for one, other in zip(found, expected, strict=True):
        off, largest = np.abs(one - other), np.abs(other).max()
        assert off.max() <= ROUNDED_APART * largest
        assert np.median(off) <= 1e-6 * largest


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("past", "count", "capacity"), CALLS)
def test_a_layer_is_the_same(shape: LayerShape, past: int, count: int, capacity: int, tmp_path: Path) -> None:
    if (shape.bits == 8 or not shape.block) and tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 32):
        pytest.skip("this ONNX Runtime (before 1.32) has no kernel for such weights, and multiplies floats")
    path = LayerGraph(shape).write(tmp_path)
    feeds = layer_feeds(shape, past, count, capacity)
    plain, fused = (layer_session(path, fused=fused, threads=2).run(None, feeds) for fused in (False, True))
    filled = past + count
    seen = [[found[0], *(cache[:, :, :filled] for cache in found[1:])] for found in (fused, plain)]
    assert_same(*seen)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_any_number_of_threads_gives_the_same(threads: int, tmp_path: Path) -> None:
    shape = LayerShape(width=576, heads=9, kv_heads=3, head_size=64, inner=1536)
    path = LayerGraph(shape).write(tmp_path)
    feeds = layer_feeds(shape, 600, 2, 700)
    expected = layer_session(path, fused=True, threads=1).run(None, feeds)
    found = layer_session(path, fused=True, threads=threads)
    for _ in range(200):  # threads come in another order each time
        result, keys, values = found.run(None, feeds)
        assert np.array_equal(result, expected[0])
        assert np.array_equal(keys[:, :, :602], expected[1][:, :, :602])
        assert np.array_equal(values[:, :, :602], expected[2][:, :, :602])


def test_more_threads_than_there_are_or_fewer(tmp_path: Path) -> None:
    """The graph says for how many threads it was rewritten; a session may have others."""
    shape = LayerShape()
    path, feeds = LayerGraph(shape).write(tmp_path), layer_feeds(shape, 20, 5, 40)
    expected = layer_session(path, fused=True, threads=1).run(None, feeds)
    for written, threads in ((1, 4), (64, 2), (9999, 2), (0, 1), (-5, 3)):
        model = onnx.load_from_string(fused_bytes(path))
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "threads":
                    attribute.i = written
        found = session_of(model.SerializeToString(), threads).run(None, feeds)
        assert np.array_equal(found[0], expected[0])


def test_several_callers_at_once(tmp_path: Path) -> None:
    shape = LayerShape()
    path = LayerGraph(shape).write(tmp_path)
    loaded = layer_session(path, fused=True, threads=2)
    calls = [layer_feeds(shape, past, count, 64, seed) for seed, (past, count) in enumerate([(3, 1), (40, 9), (0, 17)])]
    expected = [loaded.run(["result"], feeds)[0] for feeds in calls]
    barrier = threading.Barrier(len(calls))

    def many(index: int) -> bool:
        barrier.wait()
        return all(np.array_equal(loaded.run(["result"], calls[index])[0], expected[index]) for _ in range(50))

    with ThreadPoolExecutor(len(calls)) as pool:
        assert all(pool.map(many, range(len(calls))))


def test_the_cache_is_written_in_place(tmp_path: Path) -> None:
    shape = LayerShape()
    loaded = layer_session(LayerGraph(shape).write(tmp_path), fused=True, threads=2)
    feeds = layer_feeds(shape, 300, 1, 512)
    expected = loaded.run(None, feeds)
    beyond = feeds["past.key"][:, :, 301:].copy()
    binding = loaded.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    for name in ("key", "value"):
        buffer = feeds[f"past.{name}"]
        place = buffer.__array_interface__["data"][0]
        binding.bind_output(f"present.{name}", "cpu", 0, np.float32, buffer.shape, place)
    binding.bind_output("result", "cpu")
    loaded.run_with_iobinding(binding)
    assert np.array_equal(binding.copy_outputs_to_cpu()[-1], expected[0])
    assert np.array_equal(feeds["past.key"][:, :, :301], expected[1][:, :, :301])
    assert np.array_equal(feeds["past.key"][:, :, 301:], beyond)


def test_no_rows(tmp_path: Path) -> None:
    shape = LayerShape()
    loaded = layer_session(LayerGraph(shape).write(tmp_path), fused=True, threads=2)
    assert loaded.run(None, layer_feeds(shape, 5, 0, 8))[0].shape == (1, 0, shape.width)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filled", np.array(9, np.int32)),
        ("filled", np.array(-1, np.int32)),
        ("filled", np.array([6, 6], np.int32)),
        ("cos", np.zeros((1, 1, 16), np.float32)),
        ("qsin", np.zeros((1, 2, 15), np.float32)),
        ("past.value", np.zeros((1, 2, 7, 32), np.float32)),
    ],
)
def test_inputs_that_do_not_fit_are_refused(name: str, value: np.ndarray, tmp_path: Path) -> None:
    shape = LayerShape()
    model = onnx.load_from_string(fused_bytes(LayerGraph(shape).write(tmp_path)))
    for given in model.graph.input:  # a graph from elsewhere may allow any
        given.type.tensor_type.ClearField("shape")
    feeds = layer_feeds(shape, 4, 2, 8) | {name: value}
    with pytest.raises(Exception, match="AttentionBlock"):
        session_of(model.SerializeToString(), 2).run(None, feeds)


@pytest.mark.parametrize("name", ["qkv", "out", "gate", "up", "down"])
@pytest.mark.parametrize("what", ["weight", "scale"])
def test_weights_that_do_not_fit_are_refused(name: str, what: str, tmp_path: Path) -> None:
    model = onnx.load_from_string(fused_bytes(LayerGraph().write(tmp_path)))
    [weight] = [one for one in model.graph.initializer if one.name == f"{name}.{what}"]
    rows, columns = weight.dims
    size = len(weight.raw_data) // (rows * columns)
    del weight.dims[:]
    weight.dims.extend([rows - 1, columns])
    weight.raw_data = weight.raw_data[: (rows - 1) * columns * size]
    with pytest.raises(Exception, match=r"here|fit"):
        session_of(model.SerializeToString(), 1)
