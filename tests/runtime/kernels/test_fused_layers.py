"""Layers as one operator, or two each, compute what they do as fifteen each."""

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
from onnx import helper, numpy_helper

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


def seen(found: list[np.ndarray], filled: int) -> list[np.ndarray]:
    """The rows, and the caches as far as they are filled."""
    return [found[0], *(cache[:, :, :filled] for cache in found[1:])]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("past", "count", "capacity"), CALLS)
def test_a_layer_is_the_same(shape: LayerShape, past: int, count: int, capacity: int, tmp_path: Path) -> None:
    # Ours round the rows to 8 bits. An ONNX Runtime that multiplies floats does not, and is nothing to compare with.
    if (shape.bits == 8 or not shape.block) and tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 32):
        pytest.skip("this ONNX Runtime (before 1.32) has no kernel for such weights, and multiplies floats")
    path = LayerGraph(shape).write(tmp_path)
    feeds = layer_feeds(shape, past, count, capacity)
    plain, fused = (layer_session(path, fused=fused, threads=2).run(None, feeds) for fused in (False, True))
    assert_same(*(seen(found, past + count) for found in (fused, plain)))


@pytest.mark.parametrize("layers", [2, 5])
@pytest.mark.parametrize(("past", "count", "capacity"), CALLS)
def test_layers_are_what_their_halves_are(layers: int, past: int, count: int, capacity: int, tmp_path: Path) -> None:
    shape = LayerShape(layers=layers)
    path = LayerGraph(shape).write(tmp_path)
    feeds = layer_feeds(shape, past, count, capacity)
    whole, halves = (
        seen(session_of(fused_bytes(path, whole_layers=whole), 2).run(None, feeds), past + count)
        for whole in (True, False)
    )
    for one, other in zip(whole, halves, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_any_number_of_threads_gives_the_same(threads: int, tmp_path: Path) -> None:
    shape = LayerShape(width=576, heads=9, kv_heads=3, head_size=64, inner=1536, layers=2)
    path = LayerGraph(shape).write(tmp_path)
    feeds = layer_feeds(shape, 600, 2, 700)
    expected = layer_session(path, fused=True, threads=1).run(None, feeds)
    found = layer_session(path, fused=True, threads=threads)
    for _ in range(200):  # threads come in another order each time
        for one, other in zip(seen(found.run(None, feeds), 602), seen(expected, 602), strict=True):
            assert np.array_equal(one, other)


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
    shape = LayerShape(layers=3)
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
    shape = LayerShape(layers=2)
    loaded = layer_session(LayerGraph(shape).write(tmp_path), fused=True, threads=2)
    feeds = layer_feeds(shape, 300, 1, 512)
    expected = loaded.run(None, feeds)
    beyond = {name: feeds[name][:, :, 301:].copy() for name in shape.caches}
    binding = loaded.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    for name in shape.caches:
        place = feeds[name].__array_interface__["data"][0]
        binding.bind_output(name.replace("past", "present"), "cpu", 0, np.float32, feeds[name].shape, place)
    binding.bind_output("result", "cpu")
    loaded.run_with_iobinding(binding)
    assert np.array_equal(binding.copy_outputs_to_cpu()[-1], expected[0])
    for name, cache in zip(shape.caches, expected[1:], strict=True):
        assert np.array_equal(feeds[name][:, :, :301], cache[:, :, :301])
        assert np.array_equal(feeds[name][:, :, 301:], beyond[name])


@pytest.mark.parametrize("past", [0, 5])
def test_no_rows(past: int, tmp_path: Path) -> None:
    shape = LayerShape(layers=2)
    loaded = layer_session(LayerGraph(shape).write(tmp_path), fused=True, threads=2)
    feeds = layer_feeds(shape, past, 0, 8)
    result, *caches = loaded.run(None, feeds)
    assert result.shape == (1, 0, shape.width)
    for name, cache in zip(shape.caches, caches, strict=True):
        assert np.array_equal(cache[:, :, :past], feeds[name][:, :, :past])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filled", np.array(9, np.int32)),
        ("filled", np.array(-1, np.int32)),
        ("filled", np.array([6, 6], np.int32)),
        ("cos", np.zeros((1, 1, 16), np.float32)),
        ("qsin", np.zeros((1, 2, 15), np.float32)),
        ("past.value", np.zeros((1, 2, 7, 32), np.float32)),
        ("1.past.key", np.zeros((1, 2, 8, 16), np.float32)),
        ("1.past.value", np.zeros((1, 1, 8, 32), np.float32)),
        ("1.past.value", np.zeros((1, 2, 8, 32), np.int32)),
        ("hidden", np.zeros((2, 1, 96), np.float32)),
        ("hidden", np.zeros((2, 96), np.float32)),
        ("hidden", np.zeros((1, 2, 95), np.float32)),
    ],
)
@pytest.mark.parametrize("whole_layers", [True, False])
def test_inputs_that_do_not_fit_are_refused(name: str, value: np.ndarray, whole_layers: bool, tmp_path: Path) -> None:
    shape = LayerShape(layers=2)
    model = onnx.load_from_string(fused_bytes(LayerGraph(shape).write(tmp_path), whole_layers=whole_layers))
    for given in model.graph.input:  # a graph from elsewhere may allow any
        given.type.tensor_type.ClearField("shape")
        if given.name == name:
            given.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(value.dtype)
    feeds = layer_feeds(shape, 4, 2, 8) | {name: value}
    with pytest.raises(Exception, match="decoder layers"):
        session_of(model.SerializeToString(), 2).run(None, feeds)


@pytest.mark.parametrize("name", ["qkv", "out", "gate", "up", "down"])
@pytest.mark.parametrize("what", ["weight", "scale"])
def test_weights_that_do_not_fit_are_refused(name: str, what: str, tmp_path: Path) -> None:
    model = onnx.load_from_string(fused_bytes(LayerGraph(LayerShape(layers=2)).write(tmp_path)))
    [weight] = [one for one in model.graph.initializer if one.name == f"1.{name}.{what}"]
    rows, columns = weight.dims
    size = len(weight.raw_data) // (rows * columns)
    del weight.dims[:]
    weight.dims.extend([rows - 1, columns])
    weight.raw_data = weight.raw_data[: (rows - 1) * columns * size]
    with pytest.raises(Exception, match=r"here|fit"):
        session_of(model.SerializeToString(), 1)


@pytest.mark.parametrize("name", ["first.weight", "qkv.weight", "qkv.scale", "qkv.bias", "sinks", "down.scale"])
def test_weights_of_another_type_are_refused(name: str, tmp_path: Path) -> None:
    """ONNX Runtime itself allows any type for what is the layers' own."""
    model = onnx.load_from_string(fused_bytes(LayerGraph().write(tmp_path)))
    [weight] = [one for one in model.graph.initializer if one.name == name]
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(values.astype(np.float64), name))
    with pytest.raises(Exception, match=r"here|fit"):
        session_of(model.SerializeToString(), 1)


@pytest.mark.parametrize("count", [-1, 5])
def test_inputs_that_are_no_whole_layers_are_refused(count: int, tmp_path: Path) -> None:
    model = onnx.load_from_string(fused_bytes(LayerGraph().write(tmp_path)))
    inputs = model.graph.node[0].input
    kept = list(inputs[:count] if count < 0 else inputs) + ["qkv.bias"] * max(0, count)
    del inputs[:]
    inputs.extend(kept)
    with pytest.raises(Exception, match="decoder layers"):
        session_of(model.SerializeToString(), 1)
