"""ONNX files as their bytes are: fields of nested messages, read and written without the `onnx` package.

A file is Protocol Buffers' wire format (https://protobuf.dev/programming-guides/encoding) of the messages in ONNX's
`onnx.proto`; the numbers of the fields that are used here stand beside their names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
MOST_VARINT_BYTES = 10


class MessageError(ValueError):
    """The bytes are no message."""


class Field(NamedTuple):
    """One field of a message.

    Args:
        number: which one, by its message's definition.
        value: of a number, itself; of text, bytes or a message, its bytes; of a float, its four bytes.
        raw: the whole field as it stands in the message.
    """

    number: int
    value: int | bytes
    raw: bytes

    @property
    def content(self) -> bytes:
        """Its bytes.

        Raises:
            MessageError: it is a number.
        """
        if isinstance(self.value, int):
            raise MessageError(f"field {self.number} is a number")
        return self.value

    @property
    def text(self) -> str:
        """Its bytes as text.

        Raises:
            MessageError: it is a number, or no text.
        """
        try:
            return self.content.decode()
        except UnicodeDecodeError as problem:
            raise MessageError(f"field {self.number} is no text") from problem


def read_fields(message: bytes) -> Iterator[Field]:
    """The fields of a message, as they follow one another.

    Raises:
        MessageError: the bytes are no message.
    """
    at, end = 0, len(message)
    while at < end:
        start = at
        key, at = _read_varint(message, at)
        kind = key & 7
        value: int | bytes
        if kind == VARINT:
            value, at = _read_varint(message, at)
        else:
            if kind == LENGTH:
                size, at = _read_varint(message, at)
            elif kind in FIXED_SIZES:
                size = FIXED_SIZES[kind]
            else:
                raise MessageError(f"a field of kind {kind}")
            value, at = message[at : at + size], at + size
        if at > end:
            raise MessageError("a field goes on behind its message's end")
        yield Field(key >> 3, value, message[start:at])


def read_integers(field: Field) -> Iterator[int]:
    """The numbers of a repeated field, whether they stand alone or together; as they are signed in 64 bits.

    Raises:
        MessageError: the bytes are no numbers.
    """
    if isinstance(field.value, int):
        yield _signed(field.value)
        return
    at = 0
    while at < len(field.value):
        number, at = _read_varint(field.value, at)
        yield _signed(number)


def read_float(field: Field) -> float:
    """A float in 32 bits.

    Raises:
        MessageError: the field is another.
    """
    if len(field.content) != FIXED_SIZES[FIXED32]:
        raise MessageError(f"field {field.number} is no float")
    value: float = struct.unpack("<f", field.content)[0]
    return value


def number_field(number: int, value: int) -> bytes:
    """A field of a whole number."""
    return _varint(number << 3 | VARINT) + _varint(value)


def float_field(number: int, value: float) -> bytes:
    """A field of a float in 32 bits."""
    return _varint(number << 3 | FIXED32) + struct.pack("<f", value)


def message_field(number: int, content: bytes) -> bytes:
    """A field with a length before its content."""
    return _varint(number << 3 | LENGTH) + _varint(len(content)) + content


def text_field(number: int, value: str) -> bytes:
    """A field of text."""
    return message_field(number, value.encode())


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the low ones first; and where the next field is."""
    value = shift = 0
    for byte in message[at : at + MOST_VARINT_BYTES]:
        at += 1
        if byte < 128:
            return (value | byte << shift) & (1 << 64) - 1, at
        value |= (byte & 127) << shift
        shift += 7
    raise MessageError("a number without an end")


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
