"""A graph of one float32 MatMul, written out byte by byte: the runtime has no `onnx` to build it with."""

from __future__ import annotations

from sottovoce.runtime.graph_files.messages import message_field, number_field, text_field

FLOAT = 1
IR_VERSION, OPSET = 8, 13


def matmul_graph() -> bytes:
    """An ONNX model: inputs `a` and `b`, two matrices of any size that fit; output `c`, their product."""
    node = text_field(1, "a") + text_field(1, "b") + text_field(2, "c") + text_field(4, "MatMul")
    inputs = message_field(11, _matrix("a", "m", "k")) + message_field(11, _matrix("b", "k", "n"))
    graph = message_field(1, node) + text_field(2, "product") + inputs + message_field(12, _matrix("c", "m", "n"))
    return (
        number_field(1, IR_VERSION)
        + message_field(7, graph)
        + message_field(8, text_field(1, "") + number_field(2, OPSET))
    )


def _matrix(name: str, rows: str, columns: str) -> bytes:
    """A ValueInfoProto: its name and a float tensor type with two named dimensions."""
    shape = b"".join(message_field(1, text_field(2, symbol)) for symbol in (rows, columns))
    return text_field(1, name) + message_field(2, message_field(1, number_field(1, FLOAT) + message_field(2, shape)))
