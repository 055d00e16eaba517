"""A graph of one float32 MatMul, written out byte by byte: the runtime has no `onnx` to build it with."""

from __future__ import annotations

FLOAT = 1
IR_VERSION, OPSET = 8, 13


def matmul_graph() -> bytes:
    """An ONNX model: inputs `a` and `b`, two matrices of any size that fit; output `c`, their product."""
    node = _text(1, "a") + _text(1, "b") + _text(2, "c") + _text(4, "MatMul")
    inputs = _message(11, _matrix("a", "m", "k")) + _message(11, _matrix("b", "k", "n"))
    graph = _message(1, node) + _text(2, "product") + inputs + _message(12, _matrix("c", "m", "n"))
    return _number(1, IR_VERSION) + _message(7, graph) + _message(8, _text(1, "") + _number(2, OPSET))


def _matrix(name: str, rows: str, columns: str) -> bytes:
    """A ValueInfoProto: its name and a float tensor type with two named dimensions."""
    shape = b"".join(_message(1, _text(2, symbol)) for symbol in (rows, columns))
    return _text(1, name) + _message(2, _message(1, _number(1, FLOAT) + _message(2, shape)))


def _number(field: int, value: int) -> bytes:
    """A field of a small number (below 128: one byte)."""
    return bytes([field << 3, value])


def _message(field: int, content: bytes) -> bytes:
    """A field with a length before its content."""
    length, size = len(content), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([field << 3 | 2]) + size + bytes([length]) + content


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())
