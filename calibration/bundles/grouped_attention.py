"""ONNX Runtime's own attention operator, which writes the cache, too: where its tensors are, and what it stands for."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

DOMAIN = "com.microsoft"
GROUPED_ATTENTION = "GroupQueryAttention"
UPDATES, PASTS, PRESENTS = (1, 2), (3, 4), (1, 2)
"""Places of key and value among its inputs, of their buffers, and of the buffers among its outputs."""
LAST_PLACE = 5
"""Place among its inputs of the last place that is filled after the call, (1,)."""
SINK = 11
"""Place among its inputs of a score for each query head, (heads,), that takes part in the softmax and has no value."""
KEY_SCALE, VALUE_SCALE = 12, 13
"""Places among its inputs of the scales of a cache in integers."""


def is_grouped_attention(node: onnx.NodeProto) -> bool:
    """Whether a node is one."""
    return node.domain == DOMAIN and node.op_type == GROUPED_ATTENTION


def over_presents(node: onnx.NodeProto) -> onnx.NodeProto:
    """The same attention over buffers that hold the call's positions already: query, keys, values, last place."""
    other = onnx.NodeProto()
    other.CopyFrom(node)
    del other.input[:], other.output[:]
    other.input.extend([node.input[0], *(node.output[place] for place in PRESENTS), node.input[LAST_PLACE]])
    other.output.extend(node.output[:1])
    return other


def cache_scale(node: onnx.NodeProto, present: str) -> str | None:
    """The scale of a buffer in integers that a node gives as `present`; None: it gives no such."""
    if not is_grouped_attention(node) or len(node.input) <= VALUE_SCALE or present not in node.output[1:]:
        return None
    return str(node.input[KEY_SCALE if present == node.output[PRESENTS[0]] else VALUE_SCALE])


def stays_float32(node: onnx.NodeProto, place: int) -> bool:
    """Whether an input is float32 whatever the operator's floats are: scales of a cache are."""
    return is_grouped_attention(node) and place in (KEY_SCALE, VALUE_SCALE)


def with_shapes_known(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes with stand-ins of the standard's that have the same types and shapes of results, for inference.

    The result is of the query's shape, and each buffer goes out as it came in.
    """
    known = []
    for node in nodes:
        if not is_grouped_attention(node):
            known.append(node)
            continue
        sources = (node.input[0], *(node.input[place] for place in PASTS))
        known += [
            helper.make_node("Identity", [source], [result])
            for source, result in zip(sources, node.output, strict=True)
        ]
    return known
