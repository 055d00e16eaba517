"""Attention over the cache is the formula's, wherever tiles, stretches and splits end."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from kernel_graphs import AttentionShape, needs_kernels, session

pytestmark = needs_kernels
HEADS = [(9, 3, 64), (4, 4, 32), (28, 4, 128), (14, 2, 64), (2, 1, 16), (6, 2, 80)]
CALLS = [
    (0, 1, 1),
    (0, 5, 9),
    (127, 1, 128),
    (128, 1, 300),
    (255, 1, 256),
    (256, 1, 300),
    (1000, 1, 1024),
    (37, 3, 43),
    (250, 17, 300),
    (0, 140, 150),
]


@pytest.mark.parametrize(("query_heads", "kv_heads", "head_size"), HEADS)
@pytest.mark.parametrize(("past", "queries", "capacity"), CALLS)
@pytest.mark.parametrize("sink", [-6e4, 0.5])
def test_context_is_the_formulas(
    query_heads: int, kv_heads: int, head_size: int, past: int, queries: int, capacity: int, sink: float
) -> None:
    shape = AttentionShape(query_heads, kv_heads, head_size, past, queries, capacity, sink)
    feeds = shape.feeds()
    context, keys, values = session(shape.graph()).run(None, feeds)
    expected = shape.context(feeds)
    assert np.abs(context - expected).max() <= 3e-6 * np.abs(expected).max()
    for name, present in (("key", keys), ("value", values)):
        assert np.array_equal(present[0, :, : past + queries], shape._joined(feeds, name).astype(np.float32))


def test_past_and_present_may_be_one_buffer() -> None:
    shape = AttentionShape(9, 3, 64, 300, 1, 512)
    feeds, loaded = shape.feeds(), session(shape.graph())
    binding = loaded.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    for name in ("key", "value"):
        buffer = feeds[f"past_{name}"]
        binding.bind_output(
            f"present_{name}", "cpu", 0, np.float32, buffer.shape, buffer.__array_interface__["data"][0]
        )
    binding.bind_output("context", "cpu")
    expected, beyond = shape.context(feeds), feeds["past_key"][:, :, 301:].copy()
    loaded.run_with_iobinding(binding)
    assert np.abs(binding.copy_outputs_to_cpu()[-1] - expected).max() <= 3e-6 * np.abs(expected).max()
    assert np.array_equal(feeds["past_key"][0, :, 300], feeds["key"][0, 0].reshape(3, 64))
    assert np.array_equal(feeds["past_key"][:, :, 301:], beyond)


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    shape = AttentionShape(2, 1, 64, 600, 1, 640, scale=40.0)
    feeds = shape.feeds()
    context = session(shape.graph()).run(None, feeds)[0]
    assert np.abs(context - shape.context(feeds)).max() <= 3e-5  # e to the power of what 1,000 is rounded by


def test_what_lies_behind_the_filled_places_does_not_matter() -> None:
    shape = AttentionShape(9, 3, 64, 250, 2, 300)
    feeds, loaded = shape.feeds(), session(shape.graph())
    clean = loaded.run(None, feeds)[0]
    for name in ("past_key", "past_value"):
        feeds[name][:, :, 252:] = np.nan
    assert np.array_equal(loaded.run(None, feeds)[0], clean)


@pytest.mark.parametrize(("past", "queries", "capacity"), [(10, 3, 12), (-1, 3, 12)])
def test_positions_without_room_are_refused(past: int, queries: int, capacity: int) -> None:
    shape = AttentionShape(9, 3, 64, 0, queries, capacity)
    feeds = shape.feeds()
    feeds["filled"] = np.array(past + queries, np.int32)
    with pytest.raises(Exception, match="no room for these positions"):
        session(shape.graph()).run(None, feeds)


def test_other_sizes_are_refused() -> None:
    shape = AttentionShape(2, 1, 40, 4, 1, 8)
    with pytest.raises(Exception, match="heads of 16 to 128"):
        session(shape.graph()).run(None, shape.feeds())


@pytest.mark.parametrize("lie", [{"num_heads": 8}, {"kv_num_heads": 0}, {"kv_num_heads": 9}, {"num_heads": 12}])
def test_heads_that_the_tensors_belie_are_refused(lie: dict[str, int]) -> None:
    """A graph is not trusted: nothing is read behind a tensor's end."""
    shape = AttentionShape(9, 3, 64, 4, 1, 8)
    with pytest.raises(Exception, match=r"GroupQueryAttention: (its inputs do not fit|KV heads do not divide)"):
        session(shape.graph(**lie)).run(None, shape.feeds())


@pytest.mark.parametrize("name", ["value", "past_value"])
def test_values_of_another_size_than_keys_are_refused(name: str) -> None:
    shape = AttentionShape(9, 3, 64, 4, 1, 8)
    graph = onnx.load_from_string(shape.graph())
    for value in (*graph.graph.input, *graph.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            dimension.Clear()
    feeds = shape.feeds()
    feeds[name] = feeds[name][..., :32].copy()
    with pytest.raises(Exception, match="do not fit one another"):
        session(graph.SerializeToString()).run(None, feeds)
