"""Decoders in the standard's own operators."""

from __future__ import annotations

from sottovoce.export.graphs.decoder_spelling import Heads, Positions, Projections
from sottovoce.export.graphs.graph_builder import GraphBuilder


class PortableSpelling:
    """`Attention`, `TensorScatter` (opset 24), `RotaryEmbedding`, `RMSNormalization`. See `DecoderSpelling`."""

    def __init__(self, graph: GraphBuilder, heads: Heads) -> None:
        self._graph = graph
        self._heads = heads
        self._mask: str | None = None

    def rms_norm(self, hidden: str, scale: str, epsilon: float, *, output: str) -> str:
        """See `DecoderSpelling`."""
        return self._graph.op("RMSNormalization", hidden, scale, axis=-1, epsilon=epsilon, stash_type=1, output=output)

    def attend(self, projected: Projections, positions: Positions) -> str:
        """See `DecoderSpelling`."""
        name, layer, heads, graph = projected.name, projected.layer, self._heads, self._graph
        if self._mask is None:
            self._mask = self._visible(positions)
        query = self._by_head(f"{name}.q_proj", projected.query, heads.query)
        key = self._by_head(f"{name}.k_proj", projected.key, heads.kv)
        value = self._by_head(f"{name}.v_proj", projected.value, heads.kv)
        query = self._rotary(query, positions, output=f"{name}.query")
        key = self._rotary(key, positions, output=f"{name}.key")
        past, present = f"past_key_values.{layer}", f"present.{layer}"
        keys = self._write_cache(f"{past}.key", key, positions, output=f"{present}.key")
        values = self._write_cache(f"{past}.value", value, positions, output=f"{present}.value")
        context = graph.op("Attention", query, keys, values, self._mask, output=f"{name}.context")
        context = graph.op("Transpose", context, perm=[0, 2, 1, 3], output=f"{name}.context_by_position")
        merged = graph.constant([1, -1, heads.query * heads.size])
        return graph.op("Reshape", context, merged, output=f"{name}.context_merged")

    def _visible(self, positions: Positions) -> str:
        """The mask (T, capacity): true where a position of this call sees a place of the cache."""
        graph = self._graph
        columns, last_seen = self._columns_and_last_seen(positions)
        if self._heads.sees_call:
            shape = graph.op("Concat", positions.count, graph.constant([1]), axis=0, output="mask.rows_by_one")
            last_seen = graph.op("Expand", last_seen, shape, output="mask.last_seen")
        return graph.op("LessOrEqual", columns, last_seen, output="mask")

    def _columns_and_last_seen(self, positions: Positions) -> tuple[str, str]:
        """Places of the cache (capacity,), and the last that a position sees: (T, 1), or (1, 1) if all see the same."""
        graph = self._graph
        capacity = graph.op("Shape", "past_key_values.0.key", start=2, end=3, output="cache.capacity_shape")
        capacity = graph.op("Squeeze", capacity, output="cache.capacity")
        columns = graph.op("Range", graph.constant(0), capacity, graph.constant(1), output="cache.columns")
        own = graph.op("Unsqueeze", positions.ids, graph.constant([1]), output="mask.own_position")
        if not self._heads.sees_call:
            return columns, own
        return columns, graph.op("ReduceMax", own, graph.constant([0]), keepdims=1, output="mask.last_position")

    def _by_head(self, name: str, projected: str, heads: int) -> str:
        """(1, T, heads·head) → (1, heads, T, head)."""
        split = self._graph.constant([1, -1, heads, self._heads.size])
        projected = self._graph.op("Reshape", projected, split, output=f"{name}.split")
        return self._graph.op("Transpose", projected, perm=[0, 2, 1, 3], output=f"{name}.heads")

    def _rotary(self, heads: str, positions: Positions, *, output: str) -> str:
        return self._graph.op(
            "RotaryEmbedding", heads, positions.cosines, positions.sines, interleaved=0, output=output
        )

    def _write_cache(self, past: str, update: str, positions: Positions, *, output: str) -> str:
        """`past` (1, heads, capacity, head) with `update` (1, heads, T, head) at the positions.

        Engines that are given one buffer as past and present write in place.
        """
        return self._graph.op("TensorScatter", past, update, positions.first, axis=-2, mode="linear", output=output)


class Opset23Spelling(PortableSpelling):
    """The same with `ScatterND` for the cache: ONNX Runtime 1.23, the last for Python 3.10, ends at opset 23.

    ONNX Runtime also writes it in place into a buffer that is bound as past and present.
    """

    def __init__(self, graph: GraphBuilder, heads: Heads) -> None:
        super().__init__(graph, heads)
        self._places: str | None = None

    def _write_cache(self, past: str, update: str, positions: Positions, *, output: str) -> str:
        if self._places is None:
            self._places = self._index_triples(positions)
        return self._graph.op("ScatterND", past, self._places, update, output=output)

    def _index_triples(self, positions: Positions) -> str:
        """(1, heads, T, 3): batch, head and position of every row that is written; the same for all layers."""
        graph, heads = self._graph, self._heads.kv
        batch_and_head = graph.constant([[[[0, head]] for head in range(heads)]])
        shape = graph.op(
            "Concat", graph.constant([1, heads]), positions.count, graph.constant([1]), axis=0, output="places.shape"
        )
        batch_and_head = graph.op("Expand", batch_and_head, shape, output="places.batch_and_head")
        column = graph.op("Unsqueeze", positions.ids, graph.constant([0, 1, 3]), output="places.column")
        column = graph.op("Expand", column, shape, output="places.positions")
        return graph.op("Concat", batch_and_head, column, axis=-1, output="places")
