"""Which parts of a graph become operators of their own, and which stay as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from layer_graphs import LayerGraph, LayerShape, fused_bytes
from onnx import TensorProto, helper, numpy_helper

from sottovoce.runtime.kernels.fused_graph import OWN_DOMAIN, fused_graph

Change = Callable[[LayerGraph], object]
BOTH = {"AttentionBlock": 1, "GatedBlock": 1}
WHOLE = {"DecoderLayers": 1}


def operators(model: bytes) -> dict[str, int]:
    return dict(Counter(node.op_type for node in onnx.load_from_string(model).graph.node))


def attribute(name: str, **values: object) -> Change:
    """A change of a node's attributes."""

    def change(graph: LayerGraph) -> None:
        node = graph.named(name)
        kept = [one for one in node.attribute if one.name not in values]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(key, value) for key, value in values.items())])

    return change


def read_elsewhere(value: str) -> Change:
    def change(graph: LayerGraph) -> None:
        graph.node("Abs", [value], ["elsewhere"])
        graph.results.append("elsewhere")

    return change


def zero_point(graph: LayerGraph) -> None:
    graph.weights.append(helper.make_tensor("zero", TensorProto.INT4, (3, 256), bytes(384), raw=True))
    graph.named("qkv.dequantized").input.append("zero")


def other_angles(graph: LayerGraph) -> None:
    graph.named("query").input.append("positions")
    graph.weight("positions", np.zeros((1, 1), np.int64))


def swapped_halves(graph: LayerGraph) -> None:
    graph.named("q").output[:] = ["k", "q", "v"]


def computed_bias(graph: LayerGraph) -> None:
    graph.nodes.insert(0, helper.make_node("Abs", ["qkv.bias"], ["computed"]))
    graph.named("qkv.biased").input[1] = "computed"


def another_residual(graph: LayerGraph) -> None:
    graph.named("middle").input[0] = "first.normed"


def float_weights(graph: LayerGraph) -> None:
    graph.weight("float", np.zeros((96, 256), np.float32))
    graph.named("qkv.projected").input[1] = "float"


def shared_weight(graph: LayerGraph) -> None:
    graph.named("up.dequantized").input[0] = "gate.weight"


def half_scales(graph: LayerGraph) -> None:
    [scale] = [one for one in graph.weights if one.name == "out.scale"]
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale).astype(np.float16), "out.scale"))


def test_layers_that_follow_one_another(tmp_path: Path) -> None:
    path = LayerGraph(LayerShape(layers=3)).write(tmp_path)
    model = onnx.load_from_string(fused_bytes(path, threads=3))
    assert {node.op_type: node.domain for node in model.graph.node} == {"DecoderLayers": OWN_DOMAIN}
    assert {one.domain for one in model.opset_import} == {"", "com.microsoft", OWN_DOMAIN}
    [layers] = model.graph.node
    found = {one.name: helper.get_attribute_value(one) for one in layers.attribute}
    sizes = {"num_heads": 4, "kv_num_heads": 2, "head_size": 32, "threads": 3, "scale": 1.0,
             "has_bias": 1, "has_sinks": 1}  # fmt: skip
    assert found == {**sizes, "epsilon": pytest.approx(1e-5)}
    caches = [f"{prefix}present.{what}" for prefix in ("", "1.", "2.") for what in ("key", "value")]
    assert list(layers.output) == ["result", *caches]
    assert list(layers.input[:6]) == ["hidden", "qcos", "qsin", "cos", "sin", "filled"]
    of_the_first = ["first.weight", "qkv.weight", "qkv.scale", "out.weight", "out.scale", "past.key", "past.value",
                    "qkv.bias", "sinks", "second.weight", "gate.weight", "gate.scale", "up.weight", "up.scale",
                    "down.weight", "down.scale"]  # fmt: skip
    of_each = [prefix + name for prefix in ("", "1.", "2.") for name in of_the_first]
    assert list(layers.input[6:]) == of_each
    types = {one.name: (one.data_type, list(one.dims)) for one in model.graph.initializer}
    assert types["qkv.weight"] == types["2.qkv.weight"] == (TensorProto.UINT8, [96, 128])


def test_halves_that_are_to_be_timed(tmp_path: Path) -> None:
    model = onnx.load_from_string(fused_bytes(LayerGraph(LayerShape(layers=2)).write(tmp_path), whole_layers=False))
    assert [node.op_type for node in model.graph.node] == ["AttentionBlock", "GatedBlock"] * 2
    attention, gated = model.graph.node[:2]
    assert list(attention.output) == ["middle", "present.key", "present.value"]
    assert list(gated.output) == ["1.hidden"]
    assert list(gated.input)[:2] == ["middle", "second.weight"]


@pytest.mark.parametrize(
    "shape", [LayerShape(bits=8), LayerShape(bits=8, block=0), LayerShape(bias=False, sinks=False)], ids=str
)
def test_other_weights_and_inputs(shape: LayerShape, tmp_path: Path) -> None:
    assert operators(fused_bytes(LayerGraph(shape).write(tmp_path))) == WHOLE


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (attribute("context", local_window_size=4), "GatedBlock"),
        (attribute("context", do_rotary=1), "GatedBlock"),
        (attribute("query", interleaved=1), "GatedBlock"),
        (attribute("query", rotary_embedding_dim=16), "GatedBlock"),
        (attribute("q", axis=1), "GatedBlock"),
        (attribute("first.normed", axis=1), "GatedBlock"),
        (attribute("qkv.dequantized", block_size=16), "GatedBlock"),
        (attribute("out.dequantized", axis=1), "GatedBlock"),
        (attribute("second.normed", stash_type=10), "AttentionBlock"),
        (read_elsewhere("first.normed"), "GatedBlock"),
        (read_elsewhere("query"), "GatedBlock"),
        (read_elsewhere("context"), "GatedBlock"),
        (read_elsewhere("swish"), "AttentionBlock"),
        (read_elsewhere("down.dequantized"), "AttentionBlock"),
        (lambda graph: graph.results.append("key"), "GatedBlock"),
        (lambda graph: graph.results.append("both"), "AttentionBlock"),
        (zero_point, "GatedBlock"),
        (other_angles, "GatedBlock"),
        (swapped_halves, "GatedBlock"),
        (computed_bias, "GatedBlock"),
        (another_residual, "GatedBlock"),
        (float_weights, "GatedBlock"),
        (half_scales, "GatedBlock"),
        (shared_weight, "AttentionBlock"),
    ],
)
def test_what_is_not_exactly_that_stays(change: Change, left: str, tmp_path: Path) -> None:
    graph = LayerGraph()
    change(graph)
    found = operators(fused_bytes(graph.write(tmp_path)))
    assert {name: count for name, count in found.items() if name in BOTH} == {left: 1}
    assert sum(found.values()) > 8


def test_nothing_to_fuse(tmp_path: Path) -> None:
    graph = LayerGraph()
    float_weights(graph)
    read_elsewhere("swish")(graph)
    assert fused_graph(graph.write(tmp_path), 2) is None
    (tmp_path / "plain.onnx").write_bytes(b"no DequantizeLin in it")
    assert fused_graph(tmp_path / "plain.onnx", 2) is None


def result(value: str) -> Change:
    return lambda graph: graph.results.append(value)


def other_cosines(graph: LayerGraph) -> None:
    graph.node("Neg", ["cos"], ["turned.back"])
    graph.named("1.key").input[1] = "turned.back"


def a_cache_that_is_computed(graph: LayerGraph) -> None:
    """From what a layer before it gives out, so that both in one operator would go round in a circle."""
    graph.node("Neg", ["present.key"], ["negated"])
    graph.named("1.context").input[3] = "negated"


def a_layer_beside(graph: LayerGraph) -> None:
    """Both layers read the same rows."""
    for name in ("1.first.normed", "1.middle"):
        graph.named(name).input[0] = "hidden"
    graph.results.append("1.hidden")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (read_elsewhere("middle"), BOTH | {"DecoderLayers": 1}),
        (result("middle"), BOTH | {"DecoderLayers": 1}),
        (read_elsewhere("1.hidden"), {"DecoderLayers": 2}),
        (result("1.hidden"), {"DecoderLayers": 2}),
        (read_elsewhere("1.middle"), {"DecoderLayers": 1} | BOTH),
        (attribute("1.first.normed", epsilon=1e-3), {"DecoderLayers": 1} | BOTH),
        (attribute("second.normed", epsilon=1e-3), BOTH | {"DecoderLayers": 1}),
        (attribute("1.context", num_heads=4, kv_num_heads=2, scale=0.5), {"DecoderLayers": 2}),
        (other_cosines, {"DecoderLayers": 2}),
        (a_cache_that_is_computed, {"DecoderLayers": 1} | BOTH),
        (a_layer_beside, {"DecoderLayers": 2}),
        (attribute("context", local_window_size=4), {"GatedBlock": 1, "DecoderLayers": 1}),
        (attribute("1.second.normed", stash_type=10), {"AttentionBlock": 1, "DecoderLayers": 1}),
    ],
)
def test_layers_of_which_others_know(change: Change, expected: dict[str, int], tmp_path: Path) -> None:
    graph = LayerGraph(LayerShape(layers=2))
    change(graph)
    found = operators(fused_bytes(graph.write(tmp_path)))
    assert {name: count for name, count in found.items() if name in BOTH | WHOLE} == expected


def test_a_circle_ends(tmp_path: Path) -> None:
    graph = LayerGraph(LayerShape(layers=2))
    for name in ("first.normed", "middle"):
        graph.named(name).input[0] = "result"
    graph.results.remove("result")
    assert fused_graph(graph.write(tmp_path), 2) is not None


def test_damaged_files_are_left_to_onnx_runtime(tmp_path: Path) -> None:
    whole = LayerGraph().write(tmp_path).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            damaged[place] = random.integers(256)
        cut = damaged[: random.integers(len(whole))] if random.random() < 0.5 else damaged
        (tmp_path / "damaged.onnx").write_bytes(cut + b"DequantizeLinear")
        fused_graph(tmp_path / "damaged.onnx", 2)  # whatever it finds, it does not fail
