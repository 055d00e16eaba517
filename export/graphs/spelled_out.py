"""Decoders spelled out in operators of opset 20: for engines that know no attention operator, TensorRT 10.3 among them.

The queries of a KV head are rows of one product with its keys, and of one with its values: (positions · group) rows
of `head` channels each, position by position. So keys and values are read once for all query heads that share them,
and nothing of the cache is repeated (one token of a 7B model reads its cache in seven times fewer bytes than with
repeated heads).

`ScatterND` writes the cache: it is a layer of TensorRT's own and names just the rows that change, as `TensorScatter`
does in newer engines. `ScatterElements` is a plugin in 10.3 (its changelog), a concatenation gives buffers of another
size in every call, and a selection by mask has to read and write all of both. Whether 10.3 leaves the other rows alone
where one buffer is bound as past and present was not tried: no such device was at hand. If it copies them, a token of
a 7B model moves 0.9 GB more with 8,192 positions of room, which `--context-length` makes less.
"""

from __future__ import annotations

from sottovoce.calibration.bundles.graph_contract import ELEMENT_TYPES
from sottovoce.export.graphs.decoder_spelling import Heads, Positions, Projections
from sottovoce.export.graphs.graph_builder import GraphBuilder
from sottovoce.export.graphs.portable_spelling import Opset23Spelling

UNSEEN = -65504.0
"""What a masked attention score becomes: float16's lowest. Beside any real score a softmax makes nothing of it."""


class SpelledOutSpelling(Opset23Spelling):
    """Attention, rotary positions and RMS normalization in products, sums and a softmax. See `DecoderSpelling`."""

    def __init__(self, graph: GraphBuilder, heads: Heads) -> None:
        super().__init__(graph, heads)
        self._element_type = graph.input_type("past_key_values.0.key")
        self._angles: tuple[str, str] | None = None

    def rms_norm(self, hidden: str, scale: str, epsilon: float, *, output: str) -> str:
        """See `DecoderSpelling`. Both operands are float32, as decoders keep them in every precision."""
        graph = self._graph
        squares = graph.op("Mul", hidden, hidden, output=f"{output}.squares")
        mean = graph.op("ReduceMean", squares, graph.constant([-1]), keepdims=1, output=f"{output}.mean_square")
        shifted = graph.op("Add", mean, graph.scalar(epsilon, ELEMENT_TYPES["float32"]), output=f"{output}.shifted")
        root = graph.op("Sqrt", shifted, output=f"{output}.root")
        unit = graph.op("Div", hidden, root, output=f"{output}.unit")
        return graph.op("Mul", unit, scale, output=output)

    def attend(self, projected: Projections, positions: Positions) -> str:
        """See `DecoderSpelling`."""
        name, layer, heads, graph = projected.name, projected.layer, self._heads, self._graph
        if self._mask is None:
            self._mask = self._visible(positions)
        turned = self._turned(projected.query, heads.query, positions, output=f"{name}.query")
        scale = graph.scalar(heads.size**-0.5, self._element_type)
        query = self._query_rows(graph.op("Mul", turned, scale, output=f"{name}.query_scaled"), f"{name}.query_rows")
        turned = self._turned(projected.key, heads.kv, positions, output=f"{name}.key")
        key = graph.op("Transpose", turned, perm=[0, 2, 1, 3], output=f"{name}.key_by_head")
        value = self._by_head(f"{name}.v_proj", projected.value, heads.kv)
        past, present = f"past_key_values.{layer}", f"present.{layer}"
        keys = self._write_cache(f"{past}.key", key, positions, output=f"{present}.key")
        values = self._write_cache(f"{past}.value", value, positions, output=f"{present}.value")
        return self._weighted(name, query, keys, values)

    def _weighted(self, name: str, query: str, keys: str, values: str) -> str:
        """Softmax of what queries (1, kv, T·group, head) see of the keys, times the values: (1, T, heads · head)."""
        graph, heads = self._graph, self._heads
        columns = graph.op("Transpose", keys, perm=[0, 1, 3, 2], output=f"{name}.key_columns")
        scores = graph.op("MatMul", query, columns, output=f"{name}.scores")
        unseen = graph.scalar(UNSEEN, self._element_type)
        seen = graph.op("Where", self._mask or "", scores, unseen, output=f"{name}.scores_seen")
        weights = graph.op("Softmax", seen, axis=-1, output=f"{name}.weights")
        context = graph.op("MatMul", weights, values, output=f"{name}.context")
        group = graph.constant([1, heads.kv, -1, self._group * heads.size])
        context = graph.op("Reshape", context, group, output=f"{name}.context_by_group")
        context = graph.op("Transpose", context, perm=[0, 2, 1, 3], output=f"{name}.context_by_position")
        merged = graph.constant([1, -1, heads.query * heads.size])
        return graph.op("Reshape", context, merged, output=f"{name}.context_merged")

    def _turned(self, projected: str, heads: int, positions: Positions, *, output: str) -> str:
        """(1, T, heads · head) → (1, T, heads, head), turned by the positions' angles."""
        graph, half = self._graph, self._heads.size // 2
        cosines, sines = self._angles_by_head(positions)
        split = graph.constant([1, -1, heads, self._heads.size])
        vectors = graph.op("Reshape", projected, split, output=f"{output}.split")
        first, second = f"{output}.first_half", f"{output}.second_half"
        graph.node("Split", (vectors, graph.constant([half, half])), (first, second), axis=-1)

        def product(channels: str, angles: str, name: str) -> str:
            return graph.op("Mul", channels, angles, output=f"{output}.{name}")

        left = (product(first, cosines, "first_cos"), product(second, sines, "second_sin"))
        right = (product(second, cosines, "second_cos"), product(first, sines, "first_sin"))
        turned_first = graph.op("Sub", *left, output=f"{output}.first_turned")
        turned_second = graph.op("Add", *right, output=f"{output}.second_turned")
        return graph.op("Concat", turned_first, turned_second, axis=-1, output=output)

    def _angles_by_head(self, positions: Positions) -> tuple[str, str]:
        """Cosines and sines (1, T, 1, head/2): the same for all heads of all layers."""
        if self._angles is None:
            axis = self._graph.constant([2])
            cosines, sines = (
                self._graph.op("Unsqueeze", angles, axis, output=f"{angles}.by_head")
                for angles in (positions.cosines, positions.sines)
            )
            self._angles = cosines, sines
        return self._angles

    def _query_rows(self, turned: str, output: str) -> str:
        """(1, T, heads, head) → (1, kv, T · group, head)."""
        graph, heads = self._graph, self._heads
        group = graph.constant([1, -1, heads.kv, self._group * heads.size])
        grouped = graph.op("Reshape", turned, group, output=f"{output}.by_group")
        grouped = graph.op("Transpose", grouped, perm=[0, 2, 1, 3], output=f"{output}.by_kv_head")
        return graph.op("Reshape", grouped, graph.constant([1, heads.kv, -1, heads.size]), output=output)

    def _visible(self, positions: Positions) -> str:
        """The mask (rows, capacity): whether queries see a place of the cache; one row if all see the same."""
        graph = self._graph
        columns, last_seen = self._columns_and_last_seen(positions)
        if not self._heads.sees_call and self._group > 1:
            shape = graph.op(
                "Concat", positions.count, graph.constant([self._group]), axis=0, output="mask.group_shape"
            )
            last_seen = graph.op("Expand", last_seen, shape, output="mask.position_of_query")
            last_seen = graph.op("Reshape", last_seen, graph.constant([-1, 1]), output="mask.position_of_row")
        return graph.op("LessOrEqual", columns, last_seen, output="mask")

    @property
    def _group(self) -> int:
        """Query heads that share a KV head."""
        return self._heads.query // self._heads.kv
