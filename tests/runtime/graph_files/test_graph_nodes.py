"""ONNX files as bytes: what `onnx` writes is read, and what is written `onnx` reads."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as some
from onnx import TensorProto, helper, numpy_helper

from sottovoce.runtime.graph_files.graph_nodes import GraphNodes, write_node
from sottovoce.runtime.graph_files.messages import (
    MessageError,
    float_field,
    message_field,
    number_field,
    read_fields,
    read_integers,
    text_field,
)


def model() -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("a", "c")]
    nodes = [
        helper.make_node("Add", ["a", "one"], ["b"], name="sum"),
        helper.make_node("Mul", ["b", "b"], ["c"], alpha=0.5, count=-3, text="x"),
    ]
    weights = [numpy_helper.from_array(np.array([1, 2], np.float32), "one"), numpy_helper.from_array(np.arange(3), "n")]
    return helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], weights))


def test_nodes_and_weights_are_found() -> None:
    graph = GraphNodes(model().SerializeToString())
    add, mul = graph.nodes
    assert (add.operator, add.domain, add.inputs, add.outputs) == ("Add", "", ("a", "one"), ("b",))
    assert mul.attributes == {"alpha": 0.5, "count": -3, "text": None}
    assert graph.maker("b") is add
    assert graph.readers("b") == [mul]
    assert graph.readers("c") == []
    assert graph.results == {"c"}
    assert graph.weights["one"].sizes == (2,)
    assert graph.weights["one"].integers() is None
    assert graph.weights["n"].integers() == (0, 1, 2)


def test_what_is_written_is_read_by_onnx() -> None:
    written = write_node("Sub", "elsewhere", ("a", "", "one"), ("c",), {"k": -7, "big": 1 << 40, "x": 0.25})
    rewritten = GraphNodes(model().SerializeToString()).rewritten({0: None, 1: written}, {}, "elsewhere")
    found = onnx.load_from_string(rewritten)
    [node] = found.graph.node
    assert (node.op_type, node.domain, list(node.input), list(node.output)) == (
        "Sub",
        "elsewhere",
        ["a", "", "one"],
        ["c"],
    )
    assert {one.name: helper.get_attribute_value(one) for one in node.attribute} == {"k": -7, "big": 1 << 40, "x": 0.25}
    assert found.graph.input == model().graph.input
    assert found.graph.initializer == model().graph.initializer
    assert [(one.domain, one.version) for one in found.opset_import][-1] == ("elsewhere", 1)


def test_numbers_stand_alone_or_together() -> None:
    [packed] = read_fields(message_field(1, b"\x01\xac\x02" + b"\xff" * 9 + b"\x01"))
    assert list(read_integers(packed)) == [1, 300, -1]
    [alone] = read_fields(number_field(1, -5))
    assert list(read_integers(alone)) == [-5]


@given(some.lists(some.tuples(some.integers(1, 1 << 28), some.one_of(some.integers(0, (1 << 64) - 1), some.text()))))
def test_fields_come_back(fields: list[tuple[int, int | str]]) -> None:
    written = [number_field(n, v) if isinstance(v, int) else text_field(n, v) for n, v in fields]
    found = list(read_fields(b"".join(written)))
    assert [(one.number, one.value if isinstance(one.value, int) else one.text) for one in found] == fields
    assert [one.raw for one in found] == written


@given(some.binary(max_size=200))
def test_any_bytes_are_a_model_or_no_message(content: bytes) -> None:
    try:
        GraphNodes(content)
    except MessageError:
        return
    pytest.fail("a model of random bytes")


@pytest.mark.parametrize(
    "message",
    [b"\x0a\x05ab", b"\x0d\x00\x00", b"\x80", b"\x08" + b"\xff" * 10, b"\x0b", b"\x08", b"\xff" * 11 + b"\x01"],
)
def test_what_is_no_message_says_so(message: bytes) -> None:
    with pytest.raises(MessageError):
        list(read_fields(message))


def test_text_and_numbers_are_told_apart() -> None:
    [number], [text], [wide] = (
        list(read_fields(one)) for one in (number_field(3, 1), message_field(3, b"\xff"), float_field(1, 1))
    )
    assert wide.content == b"\x00\x00\x80\x3f"
    with pytest.raises(MessageError, match="is a number"):
        _ = number.text
    with pytest.raises(MessageError, match="no text"):
        _ = text.text
