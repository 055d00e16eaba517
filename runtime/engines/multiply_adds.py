"""How much arithmetic a parsed network has, product by product, and which of it is to be done in INT8.

This is the parser's own view: a matrix product or convolution is INT8 where both of its factors come out of a
dequantization of INT8 values, with nothing but changes of shape between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from sottovoce.runtime.engines.network import ATTENTION, Network

PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION", "DECONVOLUTION")
RESHAPING = ("SHUFFLE", "SQUEEZE", "UNSQUEEZE", "IDENTITY")
"""Layers that pass values on as they are."""


@dataclass(frozen=True)
class Product:
    """One matrix product or convolution of the network.

    Args:
        name: of the graph's node.
        multiply_adds: of one call with the shapes that were set.
        int8: whether both factors are INT8.
    """

    name: str
    multiply_adds: int
    int8: bool


@dataclass(frozen=True)
class CountedNetwork:
    """All products, and the arithmetic of attention, which is one operator and not among them."""

    products: tuple[Product, ...]
    attention_multiply_adds: int


def count_multiply_adds(parsed: Network, shapes: Mapping[str, tuple[int, ...]]) -> CountedNetwork:
    """Count with inputs of these shapes; the network is left as it was.

    Args:
        parsed: the network.
        shapes: an input's name → its shape, for all inputs that have a symbol.
    """
    with parsed.fixed_shapes(shapes):
        layers = parsed.layers
        makers = {layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)}
        products = []
        attention = 0
        for layer in layers:
            kind = layer.type.name
            if kind == ATTENTION:
                attention += _attention(layer)
            elif kind in PRODUCTS:
                size = (
                    _matrix_product(parsed.library.module, layer)
                    if kind == PRODUCTS[0]
                    else _convolution(parsed, layer)
                )
                products.append(Product(layer.name, size, _is_int8(layer, makers)))
        return CountedNetwork(tuple(products), attention)


def _shape(tensor: Any) -> tuple[int, ...]:
    """Sizes that are not known even so (they depend on values) count as 1."""
    return tuple(max(size, 1) for size in tensor.shape)


def _matrix_product(module: Any, layer: Any) -> int:
    layer.__class__ = module.IMatrixMultiplyLayer
    left = _shape(layer.get_input(0))
    summed = left[-2] if layer.op0 == module.MatrixOperation.TRANSPOSE else left[-1]
    return int(prod(_shape(layer.get_output(0))) * summed)


def _convolution(parsed: Network, layer: Any) -> int:
    """A convolution makes each output of a window of inputs, a transposed one a window of outputs of each input."""
    transposed = layer.type.name == "DECONVOLUTION"
    layer.__class__ = getattr(parsed.library.module, "IDeconvolutionLayer" if transposed else "IConvolutionLayer")
    given, made = _shape(layer.get_input(0)), _shape(layer.get_output(0))
    window = prod(tuple(layer.kernel_size_nd))
    each, channels = (given, made[1]) if transposed else (made, given[1])
    return int(prod(each) * window * channels // max(layer.num_groups, 1))


def _attention(layer: Any) -> int:
    """Queries (1, heads, T, size) with keys (1, heads, S, size), and their scores with values."""
    query, key, value = (_shape(layer.get_input(index)) for index in range(3))
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _is_int8(layer: Any, makers: Mapping[str, Any]) -> bool:
    factors = [layer.get_input(index) for index in range(min(layer.num_inputs, 2))]
    return len(factors) == 2 and all(_comes_from_int8(factor, makers) for factor in factors)


def _comes_from_int8(tensor: Any, makers: Mapping[str, Any]) -> bool:
    while tensor is not None and tensor.name in makers:
        maker = makers[tensor.name]
        kind = maker.type.name
        if kind == "DEQUANTIZE":
            return bool(maker.get_input(0).dtype.name == "INT8")
        if kind not in RESHAPING:
            return False
        tensor = maker.get_input(0)
    return False
