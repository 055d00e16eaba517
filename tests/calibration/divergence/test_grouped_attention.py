"""ONNX Runtime's own attention again in numpy: what the engine gives, also where the cache is in integers."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from sottovoce.calibration.bundles.grouped_attention import cache_scale, over_presents, with_shapes_known
from sottovoce.calibration.divergence.recompute import recompute
from sottovoce.export.graphs.cpu_spelling import NO_SINK

KV_HEADS, GROUP, SIZE, CAPACITY = 2, 3, 16, 12
INPUTS = ("query", "key", "value", "past_key", "past_value", "last_place", "filled")
AS_EXPORTED = {"scale": 1.0}
"""With a sink that weighs nothing, this is how the `cpu` dialect writes it."""
OUTPUTS = ("context", "present_key", "present_value")


def attention(**attributes: float) -> onnx.NodeProto:
    sink = ("", "", "", "", "sink") if attributes else ()
    return helper.make_node(
        "GroupQueryAttention",
        (*INPUTS, *sink),
        OUTPUTS,
        domain="com.microsoft",
        num_heads=KV_HEADS * GROUP,
        kv_num_heads=KV_HEADS,
        **attributes,
    )


def engine(feeds: dict[str, np.ndarray], **attributes: float) -> dict[str, np.ndarray]:
    def value(name: str, shape: tuple[object, ...]) -> onnx.ValueInfoProto:
        kind = TensorProto.INT32 if name in INPUTS[5:] else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, shape)

    inputs = [value(name, values.shape) for name, values in feeds.items()]
    outputs = [value(name, (None,) * (3 if name == "context" else 4)) for name in OUTPUTS]
    sink = onnx.numpy_helper.from_array(np.full(KV_HEADS * GROUP, NO_SINK, np.float32), "sink")
    graph = helper.make_graph([attention(**attributes)], "one", inputs, outputs, initializer=[sink])
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=11)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUTS, session.run(None, feeds), strict=True))


@pytest.mark.parametrize("attributes", [{}, AS_EXPORTED])
@pytest.mark.parametrize(("cached", "positions"), [(0, 5), (6, 1), (4, 3)])
def test_numpy_gives_what_the_engine_gives(cached: int, positions: int, attributes: dict[str, float]) -> None:
    dice = np.random.default_rng(cached)
    feeds = {
        "query": dice.standard_normal((1, positions, KV_HEADS * GROUP * SIZE), np.float32),
        "key": dice.standard_normal((1, positions, KV_HEADS * SIZE), np.float32),
        "value": dice.standard_normal((1, positions, KV_HEADS * SIZE), np.float32),
        "past_key": dice.standard_normal((1, KV_HEADS, CAPACITY, SIZE), np.float32),
        "past_value": dice.standard_normal((1, KV_HEADS, CAPACITY, SIZE), np.float32),
        "last_place": np.array([cached + positions - 1], np.int32),
        "filled": np.array(cached + positions, np.int32),
    }
    found = engine(feeds, **attributes)
    operands = [feeds["query"], found["present_key"], found["present_value"], feeds["last_place"]]
    expected = recompute(over_presents(attention(**attributes)), "context", operands, 23)
    assert expected is not None
    np.testing.assert_allclose(found["context"], expected, atol=2e-6)
    assert np.abs(expected).max() > 0.1


def test_without_all_operands_nothing_is_computed() -> None:
    assert recompute(over_presents(attention()), "context", [None, None, None, None], 23) is None


def test_a_buffer_in_integers_has_its_scale() -> None:
    node = attention()
    assert cache_scale(node, "present_key") is None
    node.input.extend([""] * 5 + ["key_steps", "value_steps"])
    assert [cache_scale(node, name) for name in OUTPUTS] == [None, "key_steps", "value_steps"]


def test_stand_ins_have_the_shapes_of_the_results() -> None:
    copies = {node.output[0]: node.input[0] for node in with_shapes_known([attention()])}
    assert copies == {"context": "query", "present_key": "past_key", "present_value": "past_value"}
