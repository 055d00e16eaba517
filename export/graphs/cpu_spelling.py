"""Decoders for ONNX Runtime's CPU: attention and the writing of the cache are one operator of its own.

`com.microsoft.GroupQueryAttention` reads what is filled of the buffers, whatever their capacity, and writes in place
what is bound as past and present. Milliseconds of one layer's attention for one token with the cache in memory, not in
the processor's caches (9 query heads over 3 KV heads of 64 channels, ONNX Runtime 1.32, one core of an EPYC):

| positions | GroupQueryAttention | Attention, capacity filled | Attention, a KV head's queries as rows of one head |
| --- | --- | --- | --- |
| 1,024 | 0.143 | 0.162 | 0.156 |
| 4,096 | 0.567 | 0.685 | 0.656 |

What else was tried on SmolLM2-135M with int4 weights made at most 4 % of difference, either way (tokens a second at
256 of context, one thread): one product for query, key and value (138 against 135), one for gate and up (187 against
195), rotary positions inside the operator (187 against 182; they want tables as long as the context), the norms'
SkipSimplifiedLayerNormalization (187 against 187), MatMulNBits written out where DequantizeLinear is fused into it (187
against 187). So all of that stays the standard's, and quantization meets the graph it knows.
"""

from __future__ import annotations

from sottovoce.calibration.bundles.graph_contract import ELEMENT_TYPES
from sottovoce.calibration.bundles.grouped_attention import DOMAIN, GROUPED_ATTENTION
from sottovoce.export.graphs.decoder_spelling import Heads, Positions, Projections
from sottovoce.export.graphs.graph_builder import GraphBuilder
from sottovoce.export.graphs.portable_spelling import Opset23Spelling


class CpuSpelling(Opset23Spelling):
    """As `portable-23`, but for causal attention. (ONNX Runtime 1.23 knows no other by this operator.)"""

    def __init__(self, graph: GraphBuilder, heads: Heads) -> None:
        super().__init__(graph, heads)
        self._lengths: tuple[str, str] | None = None

    def attend(self, projected: Projections, positions: Positions) -> str:
        """See `DecoderSpelling`."""
        if self._heads.sees_call:
            return super().attend(projected, positions)
        if self._lengths is None:
            self._lengths = self._filled(positions)
        name, heads = projected.name, self._heads
        query = self._turned(projected.query, heads.query, positions, output=f"{name}.query")
        key = self._turned(projected.key, heads.kv, positions, output=f"{name}.key")
        past, present = f"past_key_values.{projected.layer}", f"present.{projected.layer}"
        context = f"{name}.context"
        self._graph.node(
            GROUPED_ATTENTION,
            (query, key, projected.value, f"{past}.key", f"{past}.value", *self._lengths),
            (context, f"{present}.key", f"{present}.value"),
            domain=DOMAIN,
            num_heads=heads.query,
            kv_num_heads=heads.kv,
        )
        return context

    def _turned(self, projected: str, heads: int, positions: Positions, *, output: str) -> str:
        """Rotary positions on (1, T, heads · head): there is nothing to transpose."""
        angles = (positions.cosines, positions.sines)
        return self._graph.op("RotaryEmbedding", projected, *angles, interleaved=0, num_heads=heads, output=output)

    def _filled(self, positions: Positions) -> tuple[str, str]:
        """Places that are filled after this call, as the operator wants them: less one (1,), and all of them ()."""
        graph = self._graph
        total = graph.op("Add", positions.first, positions.count, output="cache.filled")
        last = graph.op("Sub", total, graph.constant([1]), output="cache.last_place")
        last = graph.op("Cast", last, to=ELEMENT_TYPES["int32"], output="cache.last_place_int32")
        total = graph.op("Squeeze", total, output="cache.filled_scalar")
        return last, graph.op("Cast", total, to=ELEMENT_TYPES["int32"], output="cache.filled_int32")
