"""How a decoder is spelled for a target: the same arithmetic in the operators that a family of engines has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from sottovoce.export.graphs.graph_builder import GraphBuilder
from sottovoce.runtime.errors import SottovoceError


class DecoderSpelling(Protocol):
    """The four operations of a decoder that engines disagree about. Values are names in the graph being built."""

    def rms_norm(self, hidden: str, scale: str, epsilon: float, *, output: str) -> str:
        """Root mean square normalization over the last axis (Zhang & Sennrich 2019), accumulated in float32."""
        ...

    def rotary(self, heads: str, cos: str, sin: str, position_ids: str, *, output: str) -> str:
        """Rotary positions (Su et al. 2021), half-split form, on (1, heads, T, head)."""
        ...

    def write_cache(self, past: str, update: str, cache_length: str, *, output: str) -> str:
        """`past` (1, heads, capacity, head) with `update` (1, heads, T, head) at positions from `cache_length` on."""
        ...

    def attention(self, query: str, keys: str, values: str, mask: str, *, output: str) -> str:
        """Grouped attention of (1, heads, T, head) over the whole cache where the boolean mask (T, capacity) is true."""
        ...


class PortableSpelling:
    """The standard's own operators: `Attention`, `TensorScatter` (opset 24), `RotaryEmbedding`, `RMSNormalization`."""

    def __init__(self, graph: GraphBuilder) -> None:
        self._graph = graph

    def rms_norm(self, hidden: str, scale: str, epsilon: float, *, output: str) -> str:
        """See `DecoderSpelling`."""
        return self._graph.op("RMSNormalization", hidden, scale, axis=-1, epsilon=epsilon, stash_type=1, output=output)

    def rotary(self, heads: str, cos: str, sin: str, position_ids: str, *, output: str) -> str:
        """See `DecoderSpelling`."""
        return self._graph.op("RotaryEmbedding", heads, cos, sin, position_ids, interleaved=0, output=output)

    def write_cache(self, past: str, update: str, cache_length: str, *, output: str) -> str:
        """See `DecoderSpelling`. Engines that are given one buffer as past and present write in place."""
        return self._graph.op("TensorScatter", past, update, cache_length, axis=-2, mode="linear", output=output)

    def attention(self, query: str, keys: str, values: str, mask: str, *, output: str) -> str:
        """See `DecoderSpelling`."""
        return self._graph.op("Attention", query, keys, values, mask, output=output)


@dataclass(frozen=True)
class Dialect:
    """A way to spell decoders, and for whom. `spelling` is None where the dialect has a place but is not built yet."""

    name: str
    opset: int
    audience: str
    make_spelling: Callable[[GraphBuilder], DecoderSpelling] | None

    def spelling(self, graph: GraphBuilder) -> DecoderSpelling:
        """The operators of this dialect, for one graph.

        Raises:
            SottovoceError: the dialect is not there yet.
        """
        if self.make_spelling is None:
            raise SottovoceError(
                f"the dialect {self.name!r} ({self.audience}) is not there yet",
                fix=f"choose another target: {', '.join(name for name in TARGETS if not target_is_missing(name))}",
            )
        return self.make_spelling(graph)


DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("portable", 24, "ONNX Runtime, TensorRT-RTX, TensorRT 10.13 and later", PortableSpelling),
        Dialect("cpu", 24, "ONNX Runtime's own operators on a CPU, for quantized decoders", None),
        Dialect("jetpack6", 20, "TensorRT 10.3 on JetPack 6", None),
    )
}

TARGETS: Mapping[str, str] = {"cpu": "portable", "tensorrt": "portable", "jetpack6": "jetpack6"}
"""Which dialect each `--target` is spelled in today."""


def target_is_missing(target: str) -> bool:
    """Whether a known target needs a dialect that is not built yet."""
    return DIALECTS[TARGETS[target]].make_spelling is None


def dialect_for(target: str) -> Dialect:
    """The dialect of a `--target`.

    Raises:
        SottovoceError: the target is unknown, or its dialect is not there yet.
    """
    if target not in TARGETS:
        raise SottovoceError(f"unknown target {target!r}", fix=f"choose one of: {', '.join(TARGETS)}")
    dialect = DIALECTS[TARGETS[target]]
    if dialect.make_spelling is None:
        available = ", ".join(name for name in TARGETS if not target_is_missing(name))
        raise SottovoceError(
            f"target {target!r} needs the dialect {dialect.name!r} ({dialect.audience}), which is not there yet",
            fix=f"choose one of: {available}",
        )
    return dialect
