"""The nodes and weights of an ONNX graph, as far as rewriting it asks."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from sottovoce.runtime.graph_files.messages import (
    Field,
    MessageError,
    float_field,
    message_field,
    number_field,
    read_fields,
    read_float,
    read_integers,
    text_field,
)

GRAPH, OPSET = 7, 8  # ModelProto
NODE, INITIALIZER, GRAPH_OUTPUT = 1, 5, 12  # GraphProto
INPUT, OUTPUT, OPERATOR, ATTRIBUTE, DOMAIN = 1, 2, 4, 5, 7  # NodeProto
ATTRIBUTE_NAME, FLOAT_VALUE, INT_VALUE, ATTRIBUTE_TYPE = 1, 2, 3, 20  # AttributeProto
DIMENSIONS, DATA_TYPE, NAME, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 9, 13, 14  # TensorProto
VALUE_NAME = 1  # ValueInfoProto
OPSET_DOMAIN, OPSET_VERSION = 1, 2  # OperatorSetIdProto
FLOAT_ATTRIBUTE, INT_ATTRIBUTE = 1, 2
FLOAT, UINT8, INT8, INT64, INT4 = 1, 2, 3, 7, 22


@dataclass(frozen=True)
class Node:
    """An operator in a graph; `place` is where it stands among the others."""

    place: int
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attribute_fields: tuple[bytes, ...] = field(repr=False)

    @cached_property
    def attributes(self) -> Mapping[str, int | float | None]:
        """Its attributes that are one number; None: any other."""
        return dict(_attribute(one) for one in self.attribute_fields)


@dataclass(frozen=True)
class Weight:
    """A constant of a graph; `known_fields`: nothing in it but what is read here."""

    raw: bytes
    sizes: tuple[int, ...]
    data_type: int
    data: bytes | None
    known_fields: bool

    def as_bytes(self) -> bytes:
        """The same, whole bytes or pairs of nibbles being numbers without a sign: for operators that know no others."""
        nibbles = self.data_type == INT4
        sizes = (*self.sizes[:-1], self.sizes[-1] // 2) if nibbles else self.sizes
        kept = [one.raw for one in read_fields(self.raw) if one.number not in (DIMENSIONS, DATA_TYPE)]
        return b"".join((*(number_field(DIMENSIONS, size) for size in sizes), number_field(DATA_TYPE, UINT8), *kept))

    def integers(self) -> tuple[int, ...] | None:
        """Its numbers, where they are few whole ones that stand in the graph."""
        if self.data_type != INT64 or self.data is None or len(self.data) % 8 != 0:
            return None
        return struct.unpack(f"<{len(self.data) // 8}q", self.data)


class GraphNodes:
    """A model that is looked through: who makes which value, and who reads it.

    Args:
        model: the file's bytes.

    Raises:
        MessageError: they are no model.
    """

    def __init__(self, model: bytes) -> None:
        self._model = list(read_fields(model))
        graphs = [one for one in self._model if one.number == GRAPH]
        if len(graphs) != 1:
            raise MessageError("no graph, or several")
        self._graph = list(read_fields(graphs[0].content))
        self.nodes = [_node(place, one) for place, one in enumerate(self._of(NODE))]
        weights = [_weight(one) for one in self._of(INITIALIZER)]
        self._weight_names = [name for name, _ in weights]
        self.weights = dict(weights)
        self.results = {_text(one.content, VALUE_NAME) for one in self._of(GRAPH_OUTPUT)}
        self._makers = {name: node for node in self.nodes for name in node.outputs if name}
        self._readers: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                self._readers[name].append(node)

    def maker(self, value: str) -> Node | None:
        """The node that makes a value."""
        return self._makers.get(value)

    def readers(self, value: str) -> list[Node]:
        """The nodes that read a value, each once."""
        return self._readers.get(value, [])

    def rewritten(self, nodes: Mapping[int, bytes | None], weights: Mapping[str, bytes], domain: str) -> bytes:
        """The model with other nodes at some places, or none, some other weights, and one more domain of operators."""
        places, names = iter(range(len(self.nodes))), iter(self._weight_names)
        content = []
        for one in self._graph:
            written: bytes | None = one.raw
            if one.number == NODE and (place := next(places)) in nodes:
                new = nodes[place]
                written = None if new is None else message_field(NODE, new)
            elif one.number == INITIALIZER and (name := next(names)) in weights:
                written = message_field(INITIALIZER, weights[name])
            content.append(written or b"")
        opset = message_field(OPSET, text_field(OPSET_DOMAIN, domain) + number_field(OPSET_VERSION, 1))
        graph = message_field(GRAPH, b"".join(content))
        return b"".join(graph if one.number == GRAPH else one.raw for one in self._model) + opset

    def _of(self, number: int) -> list[Field]:
        return [one for one in self._graph if one.number == number]


def write_node(
    operator: str,
    domain: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    attributes: Mapping[str, int | float],
) -> bytes:
    """A node's message; what is a whole number is an integer attribute."""
    fields = [text_field(INPUT, name) for name in inputs] + [text_field(OUTPUT, name) for name in outputs]
    fields += [text_field(OPERATOR, operator), text_field(DOMAIN, domain)]
    for name, value in attributes.items():
        kind, number = (
            (INT_ATTRIBUTE, number_field(INT_VALUE, value))
            if isinstance(value, int)
            else (FLOAT_ATTRIBUTE, float_field(FLOAT_VALUE, value))
        )
        content = text_field(ATTRIBUTE_NAME, name) + number + number_field(ATTRIBUTE_TYPE, kind)
        fields.append(message_field(ATTRIBUTE, content))
    return b"".join(fields)


def _node(place: int, found: Field) -> Node:
    inputs, outputs, attributes, operator, domain = [], [], [], "", ""
    for one in read_fields(found.content):
        if one.number == INPUT:
            inputs.append(one.text)
        elif one.number == OUTPUT:
            outputs.append(one.text)
        elif one.number == ATTRIBUTE:
            attributes.append(one.content)
        elif one.number == OPERATOR:
            operator = one.text
        elif one.number == DOMAIN:
            domain = one.text
    return Node(place, operator, domain, tuple(inputs), tuple(outputs), tuple(attributes))


def _attribute(message: bytes) -> tuple[str, int | float | None]:
    fields = {one.number: one for one in read_fields(message)}
    kind = fields[ATTRIBUTE_TYPE].value if ATTRIBUTE_TYPE in fields else None
    name = fields[ATTRIBUTE_NAME].text if ATTRIBUTE_NAME in fields else ""
    if kind == INT_ATTRIBUTE:
        return name, next(read_integers(fields[INT_VALUE]), None) if INT_VALUE in fields else 0
    if kind == FLOAT_ATTRIBUTE:
        return name, read_float(fields[FLOAT_VALUE]) if FLOAT_VALUE in fields else 0.0
    return name, None


def _weight(found: Field) -> tuple[str, Weight]:
    sizes: list[int] = []
    name, data_type, data, known = "", 0, None, True
    for one in read_fields(found.content):
        if one.number == DIMENSIONS:
            sizes += read_integers(one)
        elif one.number == DATA_TYPE and isinstance(one.value, int):
            data_type = one.value
        elif one.number == NAME:
            name = one.text
        elif one.number == RAW_DATA:
            data = one.content
        elif one.number not in (EXTERNAL_DATA, DATA_LOCATION):
            known = False
    return name, Weight(found.content, tuple(sizes), data_type, data, known)


def _text(message: bytes, number: int) -> str:
    return next((one.text for one in read_fields(message) if one.number == number), "")
