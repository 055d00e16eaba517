"""How a decoder is spelled for a target: the same arithmetic in the operators that a family of engines has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from sottovoce.export.graphs.graph_builder import GraphBuilder
from sottovoce.runtime.errors import SottovoceError


@dataclass(frozen=True)
class Positions:
    """Where a call's positions lie, as values of the graph: `first` (1,), `count` (1,), all of them `ids` (T,)."""

    first: str
    count: str
    ids: str


class DecoderSpelling(Protocol):
    """The four operations of a decoder that engines disagree about. Values are names in the graph being built."""

    def rms_norm(self, hidden: str, scale: str, epsilon: float, *, output: str) -> str:
        """Root mean square normalization over the last axis (Zhang & Sennrich 2019), accumulated in float32."""
        ...

    def rotary(self, heads: str, cos: str, sin: str, *, output: str) -> str:
        """Rotary positions (Su et al. 2021), half-split form, on (1, heads, T, head), by angles (1, T, head/2)."""
        ...

    def write_cache(self, past: str, update: str, positions: Positions, *, output: str) -> str:
        """`past` (1, heads, capacity, head) with `update` (1, heads, T, head) at the positions."""
        ...

    def attention(self, query: str, keys: str, values: str, mask: str, *, output: str) -> str:
        """Grouped attention of (1, heads, T, head) over the cache where the boolean mask (T, capacity) is true."""
        ...


class PortableSpelling:
    """The standard's own operators: `Attention`, `TensorScatter` (opset 24), `RotaryEmbedding`, `RMSNormalization`."""

    def __init__(self, graph: GraphBuilder, kv_heads: int) -> None:
        self._graph = graph
        self._kv_heads = kv_heads

    def rms_norm(self, hidden: str, scale: str, epsilon: float, *, output: str) -> str:
        """See `DecoderSpelling`."""
        return self._graph.op("RMSNormalization", hidden, scale, axis=-1, epsilon=epsilon, stash_type=1, output=output)

    def rotary(self, heads: str, cos: str, sin: str, *, output: str) -> str:
        """See `DecoderSpelling`."""
        return self._graph.op("RotaryEmbedding", heads, cos, sin, interleaved=0, output=output)

    def write_cache(self, past: str, update: str, positions: Positions, *, output: str) -> str:
        """See `DecoderSpelling`. Engines that are given one buffer as past and present write in place."""
        return self._graph.op("TensorScatter", past, update, positions.first, axis=-2, mode="linear", output=output)

    def attention(self, query: str, keys: str, values: str, mask: str, *, output: str) -> str:
        """See `DecoderSpelling`."""
        return self._graph.op("Attention", query, keys, values, mask, output=output)


class Opset23Spelling(PortableSpelling):
    """The same with `ScatterND` for the cache: ONNX Runtime 1.23, the last for Python 3.10, ends at opset 23.

    ONNX Runtime also writes it in place into a buffer that is bound as past and present.
    """

    def __init__(self, graph: GraphBuilder, kv_heads: int) -> None:
        super().__init__(graph, kv_heads)
        self._places: str | None = None

    def write_cache(self, past: str, update: str, positions: Positions, *, output: str) -> str:
        """See `DecoderSpelling`."""
        if self._places is None:
            self._places = self._index_triples(positions)
        return self._graph.op("ScatterND", past, self._places, update, output=output)

    def _index_triples(self, positions: Positions) -> str:
        """(1, heads, T, 3): batch, head and position of every row that is written; the same for all layers."""
        graph, heads = self._graph, self._kv_heads
        batch_and_head = graph.constant([[[[0, head]] for head in range(heads)]])
        shape = graph.op(
            "Concat", graph.constant([1, heads]), positions.count, graph.constant([1]), axis=0, output="places.shape"
        )
        batch_and_head = graph.op("Expand", batch_and_head, shape, output="places.batch_and_head")
        column = graph.op("Unsqueeze", positions.ids, graph.constant([0, 1, 3]), output="places.column")
        column = graph.op("Expand", column, shape, output="places.positions")
        return graph.op("Concat", batch_and_head, column, axis=-1, output="places")


SpellingFactory = Callable[[GraphBuilder, int], DecoderSpelling]
"""Takes the graph being built and the number of KV heads."""


@dataclass(frozen=True)
class Dialect:
    """A way to spell decoders, and for whom. A `factory` of None: the dialect has its place, but is not built yet."""

    name: str
    opset: int
    audience: str
    factory: SpellingFactory | None
    fixed_capacity: bool = False
    """Whether the size of the cache is a number in the graph: TensorRT's in-place cache update must know it."""

    def spelling(self, graph: GraphBuilder, kv_heads: int) -> DecoderSpelling:
        """The operators of this dialect, for one graph.

        Raises:
            SottovoceError: the dialect is not there yet.
        """
        if self.factory is None:
            raise SottovoceError(
                f"the dialect {self.name!r} ({self.audience}) is not there yet",
                fix=f"choose one of these targets: {', '.join(available_targets())}",
            )
        return self.factory(graph, kv_heads)


DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("portable", 24, "TensorRT-RTX, TensorRT 10.13, ONNX Runtime 1.24 and later", PortableSpelling, True),
        Dialect("portable-23", 23, "ONNX Runtime 1.23 and later", Opset23Spelling),
        Dialect("cpu", 24, "quantized decoders in ONNX Runtime's own operators", None),
        Dialect("jetpack6", 20, "TensorRT 10.3 on JetPack 6", None),
    )
}

TARGETS: Mapping[str, str] = {"cpu": "portable-23", "tensorrt": "portable", "jetpack6": "jetpack6"}
"""Which dialect each `--target` is spelled in today."""


def available_targets() -> list[str]:
    """The targets whose dialect is built."""
    return [target for target, name in TARGETS.items() if DIALECTS[name].factory is not None]


def dialect_for(target: str) -> Dialect:
    """The dialect of a `--target`.

    Raises:
        SottovoceError: the target is unknown, or its dialect is not there yet.
    """
    fix = f"choose one of: {', '.join(available_targets())}"
    if target not in TARGETS:
        raise SottovoceError(f"unknown target {target!r}", fix=fix)
    dialect = DIALECTS[TARGETS[target]]
    if dialect.factory is None:
        message = f"target {target!r} needs the dialect {dialect.name!r} ({dialect.audience}), which is not there yet"
        raise SottovoceError(message, fix=fix)
    return dialect
