"""Halves of decoder layers in a graph: the nodes that are one, and what goes into it and out of it.

The first half is norm, queries, keys and values, rotary positions, attention, product and sum, as the `cpu` dialect
spells them; the second norm, gate, up, SwiGLU, down and sum. All products have integer weights. What is not exactly
that is no half.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from sottovoce.runtime.graph_files.graph_nodes import FLOAT, INT4, INT8, GraphNodes, Node

ATTENTION, ATTENTION_DOMAIN = "GroupQueryAttention", "com.microsoft"
FILLED, FIRST_LEFT_OUT, SINKS = 6, 7, 11
"""Inputs of attention: the number of filled places, those that must not be there, and a score without a value."""
PAST = slice(5, 7)
"""Where among what is a half's own its cache buffers are."""
BLOCK = 32
"""Weights share a scale by multiples of it."""


class _OtherwiseError(Exception):
    """The nodes are not the half of a layer that is looked for."""


@dataclass(frozen=True)
class _Product:
    """A product with a constant weight: the value it reads, the weight and its scales, and the nodes it is made of."""

    rows: str
    weight: str
    scales: str
    columns: int
    data_type: int
    nodes: tuple[Node, Node]

    @property
    def inputs(self) -> tuple[str, str]:
        return self.weight, self.scales


@dataclass(frozen=True)
class Contract:
    """What goes into a half, and what comes out.

    Args:
        hidden: the rows.
        positions: angles of the rows (cosines and sines for queries, then for keys), and how many positions of the
            cache are filled; nothing where there is no attention.
        own: its weights in the order in which it computes with them; with attention its two cache buffers behind
            them, and then a bias and sinks, where it has any.
        outputs: the rows, with attention its cache buffers.
        attributes: numbers.
    """

    hidden: str
    positions: tuple[str, ...]
    own: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, int | float]


@dataclass(frozen=True)
class Half:
    """Some nodes, the integer weights of their products, and what they are together."""

    nodes: tuple[Node, ...]
    weights: tuple[str, ...]
    contract: Contract

    @property
    def attends(self) -> bool:
        """Whether it is the first half of a layer."""
        return bool(self.contract.positions)

    @property
    def result(self) -> str:
        """Its rows as they come out."""
        return self.contract.outputs[0]

    @property
    def epsilon(self) -> float:
        """Of its norm."""
        return self.contract.attributes["epsilon"]

    @property
    def past(self) -> tuple[str, ...]:
        """With attention, its cache buffers as they come in."""
        return self.contract.own[PAST] if self.attends else ()

    @cached_property
    def places(self) -> frozenset[int]:
        """Where its nodes stand in the graph."""
        return frozenset(node.place for node in self.nodes)


class LayerHalves:
    """Looks for halves of layers in a graph.

    Args:
        graph: the graph.
    """

    def __init__(self, graph: GraphNodes) -> None:
        self._graph = graph

    def found(self) -> Iterator[Half]:
        """Those that can be fused."""
        for node in self._graph.nodes:
            try:
                if node.operator == ATTENTION and node.domain == ATTENTION_DOMAIN:
                    yield self._attention(node)
                elif node.operator == "Sigmoid":
                    yield self._gated(node)
            except _OtherwiseError:
                continue

    def _attention(self, attention: Node) -> Half:
        """From the attention upwards to the norm, and down to the sum."""
        _require(len(attention.inputs) > FILLED and not any(attention.inputs[FIRST_LEFT_OUT:SINKS]))
        _require(set(attention.attributes) <= {"num_heads", "kv_num_heads", "scale"})
        heads, kv_heads = (_whole(attention, name) for name in ("num_heads", "kv_num_heads"))
        query, key = self._turned(attention.inputs[0], heads), self._turned(attention.inputs[1], kv_heads)
        split = self._made_by(query.inputs[0], "Split")
        _require(split.outputs == (query.inputs[0], key.inputs[0], attention.inputs[2]))
        head_size = self._head_size(split, heads, kv_heads)
        added, bias, projected = self._bias(split.inputs[0])
        projection, out = self._product(projected), self._product_of(attention.outputs[0])
        norm, total = self._norm(projection.rows), self._sum(out, projection.rows)
        sinks = attention.inputs[SINKS] if len(attention.inputs) > SINKS else ""
        _require(not sinks or sinks in self._graph.weights)
        scale = attention.attributes.get("scale") or head_size**-0.5
        positions = (*query.inputs[1:], *key.inputs[1:], attention.inputs[FILLED])
        past, present = attention.inputs[3:5], attention.outputs[1:]
        _require(len(past) == len(present) == 2 and all(past) and all(present) and all(positions))
        own = (*norm.inputs[1:], *projection.inputs, *out.inputs, *past, *filter(None, (bias, sinks)))
        attributes = {
            "num_heads": heads, "kv_num_heads": kv_heads, "head_size": head_size, "scale": float(scale),
            "epsilon": _epsilon(norm), "has_bias": int(bool(bias)), "has_sinks": int(bool(sinks)),
        }  # fmt: skip
        nodes = (norm, *projection.nodes, *added, split, query, key, attention, *out.nodes, total)
        contract = Contract(norm.inputs[0], positions, own, (*total.outputs, *present), attributes)
        return self._checked(Half(nodes, _weights(projection, out), contract))

    def _gated(self, sigmoid: Node) -> Half:
        """From the sigmoid, whose readers lead to the sum; its gate and the other factor lead to the norm."""
        gate = self._product(sigmoid.inputs[0])
        swish = self._reader(sigmoid.outputs[0], "Mul")
        _require(set(swish.inputs) == {sigmoid.inputs[0], sigmoid.outputs[0]})
        both = self._reader(swish.outputs[0], "Mul")
        up = self._product(_other(both.inputs, swish.outputs[0]))
        _require(up.rows == gate.rows and up.data_type == gate.data_type and up.columns == gate.columns)
        down = self._product_of(both.outputs[0])
        norm, total = self._norm(gate.rows), self._sum(down, gate.rows)
        own = (*norm.inputs[1:], *gate.inputs, *up.inputs, *down.inputs)
        nodes = (norm, *gate.nodes, *up.nodes, sigmoid, swish, both, *down.nodes, total)
        contract = Contract(norm.inputs[0], (), own, total.outputs, {"epsilon": _epsilon(norm)})
        return self._checked(Half(nodes, _weights(gate, up, down), contract))

    def _checked(self, half: Half) -> Half:
        """Nothing that is gone afterwards may be read by others, or be a result of the graph."""
        for node in half.nodes:
            for name in node.outputs:
                if name not in half.contract.outputs:
                    _require(name not in self._graph.results)
                    _require(all(reader.place in half.places for reader in self._graph.readers(name)))
        for name in half.weights:
            _require(len(self._graph.readers(name)) == 1 and name not in self._graph.results)
        return half

    def _turned(self, value: str, heads: int) -> Node:
        """Rotary positions that turn the halves of whole heads."""
        node = self._made_by(value, "RotaryEmbedding")
        _require(len(node.inputs) == 3 and node.attributes.get("num_heads") == heads)
        _require(not any(value for name, value in node.attributes.items() if name != "num_heads"))
        return node

    def _head_size(self, split: Node, heads: int, kv_heads: int) -> int:
        """Channels of a head, from the widths into which the projection is split; its axis is the last."""
        _require(len(split.inputs) == 2 and split.inputs[1] in self._graph.weights)
        widths = self._graph.weights[split.inputs[1]].integers()
        _require(widths is not None and len(widths) == 3 and split.attributes.get("axis") in (-1, 2))
        size = widths[0] // heads if widths else 0
        _require(widths == (heads * size, kv_heads * size, kv_heads * size))
        return size

    def _bias(self, value: str) -> tuple[tuple[Node, ...], str, str]:
        """The sum with a constant that makes a value, if one does; the constant; and what it is added to."""
        node = self._graph.maker(value)
        if node is None or node.operator != "Add":
            return (), "", value
        bias = next((name for name in node.inputs if name in self._graph.weights), "")
        _require(len(node.inputs) == 2 and bool(bias) and len(self._graph.weights[bias].sizes) == 1)
        return (node,), bias, _other(node.inputs, bias)

    def _product(self, value: str) -> _Product:
        """A product with integer weights, each column or each block of one with a scale of its own."""
        product = self._made_by(value, "MatMul")
        dequantized = self._made_by(product.inputs[1], "DequantizeLinear")
        _require(len(dequantized.inputs) == 2 and all(name in self._graph.weights for name in dequantized.inputs))
        name, scale_name = dequantized.inputs
        weight, scales = self._graph.weights[name], self._graph.weights[scale_name]
        _require(weight.data_type in (INT8, INT4) and scales.data_type == FLOAT and weight.known_fields)
        _require(len(weight.sizes) == 2 and min(weight.sizes) > 0)
        depth, columns = weight.sizes
        _require(columns % 2 == 0 and scales.sizes == self._scale_sizes(dequantized, depth, columns))
        return _Product(product.inputs[0], name, scale_name, columns, weight.data_type, (dequantized, product))

    def _scale_sizes(self, dequantized: Node, depth: int, columns: int) -> tuple[int, ...]:
        axis, block = dequantized.attributes.get("axis", 1), dequantized.attributes.get("block_size", 0)
        if not block:
            _require(axis in (1, -1))
            return (columns,)
        _require(axis in (0, -2) and isinstance(block, int) and block % BLOCK == 0 and depth % block == 0)
        return depth // int(block), columns

    def _product_of(self, value: str) -> _Product:
        """The one product that reads a value."""
        found = self._product(self._reader(value, "MatMul").outputs[0])
        _require(found.rows == value)
        return found

    def _norm(self, value: str) -> Node:
        """The norm over the last axis, in float32, that makes a value."""
        node = self._made_by(value, "RMSNormalization")
        _require(len(node.inputs) == 2 and node.inputs[1] in self._graph.weights)
        _require(node.attributes.get("axis", -1) == -1 and node.attributes.get("stash_type", 1) == 1)
        scale = self._graph.weights[node.inputs[1]]
        _require(scale.data_type == FLOAT and len(scale.sizes) == 1)
        return node

    def _sum(self, product: _Product, normed: str) -> Node:
        """The sum of a product and of what went into the norm."""
        node = self._reader(product.nodes[1].outputs[0], "Add")
        _require(_other(node.inputs, product.nodes[1].outputs[0]) == self._norm(normed).inputs[0])
        return node

    def _made_by(self, value: str, operator: str) -> Node:
        node = self._graph.maker(value)
        if node is None or node.operator != operator or node.domain:
            raise _OtherwiseError
        return node

    def _reader(self, value: str, operator: str) -> Node:
        """The only node that reads a value."""
        readers = self._graph.readers(value)
        _require(len(readers) == 1 and readers[0].operator == operator and not readers[0].domain)
        return readers[0]


def _weights(*products: _Product) -> tuple[str, ...]:
    return tuple(one.weight for one in products)


def _require(condition: bool) -> None:
    if not condition:
        raise _OtherwiseError


def _whole(node: Node, name: str) -> int:
    value = node.attributes.get(name)
    if not isinstance(value, int) or value < 1:
        raise _OtherwiseError
    return value


def _epsilon(norm: Node) -> float:
    return float(norm.attributes.get("epsilon") or 1e-5)


def _other(pair: tuple[str, ...], one: str) -> str:
    """Of two values the one that is not `one`."""
    _require(len(pair) == 2 and one in pair and pair[0] != pair[1])
    return pair[1] if pair[0] == one else pair[0]
