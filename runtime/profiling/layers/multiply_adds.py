"""Multiply-adds of an operator, from the shapes that it really had: no graph is read for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from sottovoce.runtime.profiling.layers.events import Operator
from sottovoce.runtime.profiling.layers.kinds import kind_of

Shapes = tuple[tuple[int, ...], ...]
Rule = Callable[[Shapes, tuple[int, ...]], int | None]
"""Shapes of the inputs and of the first output → multiply-adds."""
COUNTED_KINDS = (
    "matrix product",
    "convolution",
    "attention",
    "attention half of a layer",
    "feed-forward half of a layer",
)
CachedRule = Callable[[Shapes, int], int | None]
"""The same where a cache is read: shapes of the inputs and filled positions → multiply-adds."""
BLOCK_SCALES, BLOCK_PAST = 8, 11
"""Where among an `AttentionBlock`'s shapes those of its projection's scales and of the cached keys are."""
NO_PRODUCTS = ("RotaryEmbedding", "Softmax", "RelativePositionBias")


def multiply_adds(operator: Operator, filled: int | None = None) -> int | None:
    """How many one execution makes; 0 for what multiplies no matrices, None where the shapes do not say.

    Args:
        operator: with the shapes that it had.
        filled: of a decoder, positions in the cache after the call: attention that writes the cache itself reads these
            alone, whatever shape the buffers have. None: it has no cache, or it is not known.

    Unknown are kernels whose weights are packed in a way that hides what they sum over.
    """
    name = operator.operator
    if kind_of(name) not in COUNTED_KINDS or name in NO_PRODUCTS:
        return 0
    rule, cached_rule = RULES.get(name), CACHED_RULES.get(name)
    try:
        if cached_rule is not None:
            return None if filled is None else cached_rule(operator.inputs, filled)
        if rule is None or not operator.outputs or not all(operator.inputs[:2]):
            return None
        return rule(operator.inputs, operator.outputs[0])
    except IndexError:  # an input that is left out has no shape
        return None


def _product(first: tuple[int, ...], second: tuple[int, ...], result: tuple[int, ...]) -> int | None:
    """Results × the axis that is summed: of both factors, one that they share (either may be transposed)."""
    shared = set(first[-2:]) & set(second[-2:])
    summed = next((size for size in reversed(first[-2:]) if size in shared), None)
    return None if summed is None else prod(result) * summed


def _plain_product(inputs: Shapes, result: tuple[int, ...]) -> int | None:
    return _product(inputs[0], inputs[1], result)


def _rounded_product(inputs: Shapes, result: tuple[int, ...]) -> int | None:
    return _product(inputs[0], inputs[3], result)


def _packed_product(inputs: Shapes, result: tuple[int, ...]) -> int:
    return prod(result) * inputs[0][-1]  # weights are packed, but the last axis of the other factor is what is summed


def _convolution(inputs: Shapes, result: tuple[int, ...]) -> int:
    return prod(result) * prod(inputs[1][1:])


def _rounded_convolution(inputs: Shapes, result: tuple[int, ...]) -> int:
    return prod(result) * prod(inputs[3][1:])


def _transposed_convolution(inputs: Shapes, _: tuple[int, ...]) -> int:
    return prod(inputs[0]) * prod(inputs[1][1:])


def _attention(inputs: Shapes, _: tuple[int, ...]) -> int | None:
    """Queries × keys, and weights × values as many: (batch, heads, length, size) each."""
    if len(inputs[0]) != 4 or len(inputs[1]) != 4:
        return None
    return 2 * prod(inputs[0]) * inputs[1][2]


def _attention_that_writes(inputs: Shapes, filled: int) -> int:
    """Queries (1, T, heads · head) over a cache: every query meets all filled positions, as key and as value."""
    return 2 * prod(inputs[0]) * filled


def _attention_block(inputs: Shapes, filled: int) -> int | None:
    """Rows (1, T, width) times as many columns as scales (queries, keys, values); attention; its result times width."""
    rows, columns, past = inputs[0], inputs[BLOCK_SCALES][-1], inputs[BLOCK_PAST]
    if len(past) != 4:
        return None
    query = columns - 2 * past[1] * past[3]
    return prod(rows) * columns + 2 * prod(rows[:-1]) * query * filled + prod(rows) * query


def _gated_block(inputs: Shapes, _: tuple[int, ...]) -> int:
    return 3 * prod(inputs[0]) * inputs[3][-1]  # gate, up and down; the gate's scales say how wide it is


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("MatMul", "FusedMatMul", "TransposeMatMul", "Gemm", "FusedGemm", "MatMulInteger", "MatMulIntegerToFloat",
         "DynamicQuantizeMatMul"), _plain_product,
    ),
    **dict.fromkeys(("Conv", "FusedConv", "NhwcFusedConv", "ConvInteger"), _convolution),
    "QLinearMatMul": _rounded_product,
    "QLinearConv": _rounded_convolution,
    "MatMulNBits": _packed_product,
    "ConvTranspose": _transposed_convolution,
    "Attention": _attention,
    "GatedBlock": _gated_block,
}  # fmt: skip
CACHED_RULES: Mapping[str, CachedRule] = {
    "GroupQueryAttention": _attention_that_writes,
    "AttentionBlock": _attention_block,
}
