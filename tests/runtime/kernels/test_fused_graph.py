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


def test_both_halves_of_a_layer(tmp_path: Path) -> None:
    model = onnx.load_from_string(fused_bytes(LayerGraph().write(tmp_path), threads=3))
    assert {node.op_type: node.domain for node in model.graph.node} == dict.fromkeys(BOTH, OWN_DOMAIN)
    assert {one.domain for one in model.opset_import} == {"", "com.microsoft", OWN_DOMAIN}
    attention, gated = model.graph.node
    found = {one.name: helper.get_attribute_value(one) for one in attention.attribute}
    sizes = {"num_heads": 4, "kv_num_heads": 2, "head_size": 32, "threads": 3, "scale": 1.0}
    assert found == {**sizes, "epsilon": pytest.approx(1e-5)}
    assert list(attention.output) == ["middle", "present.key", "present.value"]
    assert list(gated.output) == ["result"]
    types = {one.name: (one.data_type, list(one.dims)) for one in model.graph.initializer}
    assert types["qkv.weight"] == (TensorProto.UINT8, [96, 128])


@pytest.mark.parametrize(
    "shape", [LayerShape(bits=8), LayerShape(bits=8, block=0), LayerShape(bias=False, sinks=False)], ids=str
)
def test_other_weights_and_inputs(shape: LayerShape, tmp_path: Path) -> None:
    assert operators(fused_bytes(LayerGraph(shape).write(tmp_path))) == BOTH


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


def test_values_between_the_halves_may_be_read(tmp_path: Path) -> None:
    graph = LayerGraph()
    read_elsewhere("middle")(graph)
    assert operators(fused_bytes(graph.write(tmp_path))) == BOTH | {"Abs": 1}


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
