"""Decoders for ONNX Runtime's CPU: attention and the writing of the cache are one operator of its own.

`com.microsoft.GroupQueryAttention` reads what is filled of the buffers, whatever their capacity, and writes in place
what is bound as past and present. It has two ways to attend for one token, and two small things choose the faster one:
a sink (a place that takes part in the softmax and has no value) which no score comes near keeps it away from the loops
that ONNX Runtime 1.32 has for this case, compiled without AVX; and where the scale is 1, which is why queries are
divided beforehand, products of one row go to vectorized routines that read the buffers where they lie. Milliseconds of
one layer for one token (9 query heads over 3 KV heads of 64 channels, ONNX Runtime 1.32, one core of a Xeon with
AVX-512, busy otherwise; buffers of 30 layers in turns):

| positions | as it comes | scale 1 | a sink | both |
| --- | --- | --- | --- | --- |
| 256 | 0.105 | 0.093 | 0.085 | 0.045 |
| 1,024 | 0.52 | 0.53 | 0.31 | 0.22 |
| 4,096 | 1.48 | 1.51 | 1.26 | 0.98 |

On an older EPYC the operator as it comes took 0.143 ms at 1,024 and 0.567 at 4,096, the standard's Attention 0.162 and
0.685, and that with a KV head's queries as rows of one head 0.156 and 0.656.

What else a token of SmolLM2-135M with int4 weights gains at 256 of context, one thread, medians of 40 rounds on the
same Xeon, where three quarters of the time are products: query, key and value as one 5 % (`Dialect.joins_products`),
gate and up as one 5 %, SkipSimplifiedLayerNormalization for the sum and the norm 3 %, all of these 7 %, and rotary
positions inside the operator, too, 9 %. The last would hide keys from whoever measures their range for a cache in
integers, the second the factor that takes a divisor of gated products; so the first is done, and quantization meets the
graph that it knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import helper

from sottovoce.calibration.bundles.graph_contract import ELEMENT_TYPES
from sottovoce.calibration.bundles.grouped_attention import DOMAIN, GROUPED_ATTENTION, SINK
from sottovoce.export.graphs.decoder_spelling import Heads, Positions, Projections
from sottovoce.export.graphs.graph_builder import GraphBuilder
from sottovoce.export.graphs.portable_spelling import Opset23Spelling

NO_SINK = -6e4
"""A score that weighs nothing beside any other, and that half precision has."""


@dataclass(frozen=True)
class _OfAllLayers:
    """Values of the graph that every layer's attention reads.

    Args:
        lengths: places that are filled after the call, see `_filled`.
        query_angles: cosines and sines (1, T, head/2) of the call's positions, times the scale of the scores.
        sink: a score (heads,) that takes part in the softmax.
    """

    lengths: tuple[str, str]
    query_angles: tuple[str, str]
    sink: str


class CpuSpelling(Opset23Spelling):
    """As `portable-23`, but for causal attention. (ONNX Runtime 1.23 knows no other by this operator.)"""

    def __init__(self, graph: GraphBuilder, heads: Heads) -> None:
        super().__init__(graph, heads)
        graph.import_domain(DOMAIN)  # also for products that ONNX Runtime makes of integer weights: see runtime/kernels
        self._shared: _OfAllLayers | None = None

    def attend(self, projected: Projections, positions: Positions) -> str:
        """See `DecoderSpelling`."""
        if self._heads.sees_call:
            return super().attend(projected, positions)
        if self._shared is None:
            self._shared = self._of_all_layers(positions)
        name, heads, shared = projected.name, self._heads, self._shared
        query = self._turned(projected.query, heads.query, shared.query_angles, output=f"{name}.query")
        angles = (positions.cosines, positions.sines)
        key = self._turned(projected.key, heads.kv, angles, output=f"{name}.key")
        past, present = f"past_key_values.{projected.layer}", f"present.{projected.layer}"
        inputs = [query, key, projected.value, f"{past}.key", f"{past}.value", *shared.lengths]
        self._graph.node(
            GROUPED_ATTENTION,
            [*inputs, *[""] * (SINK - len(inputs)), shared.sink],
            (f"{name}.context", f"{present}.key", f"{present}.value"),
            domain=DOMAIN,
            num_heads=heads.query,
            kv_num_heads=heads.kv,
            scale=1.0,
        )
        return f"{name}.context"

    def _turned(self, projected: str, heads: int, angles: tuple[str, str], *, output: str) -> str:
        """Rotary positions on (1, T, heads · head): there is nothing to transpose."""
        return self._graph.op("RotaryEmbedding", projected, *angles, interleaved=0, num_heads=heads, output=output)

    def _of_all_layers(self, positions: Positions) -> _OfAllLayers:
        graph, heads = self._graph, self._heads
        floats = graph.input_type("past_key_values.0.key")
        scale = graph.scalar(heads.size**-0.5, ELEMENT_TYPES["float32"])
        angles = []
        for name, wide in (("rotary.query_cos", positions.wide_cosines), ("rotary.query_sin", positions.wide_sines)):
            scaled = graph.op("Mul", wide, scale, output=f"{name}.wide")
            angles.append(
                scaled if floats == ELEMENT_TYPES["float32"] else graph.op("Cast", scaled, to=floats, output=name)
            )
        sink = np.full(heads.query, NO_SINK, helper.tensor_dtype_to_np_dtype(floats))
        no_sink = graph.weight("attention.no_sink", sink)
        return _OfAllLayers(self._filled(positions), (angles[0], angles[1]), no_sink)

    def _filled(self, positions: Positions) -> tuple[str, str]:
        """Places that are filled after this call, as the operator wants them: less one (1,), and all of them ()."""
        graph = self._graph
        total = graph.op("Add", positions.first, positions.count, output="cache.filled")
        last = graph.op("Sub", total, graph.constant([1]), output="cache.last_place")
        last = graph.op("Cast", last, to=ELEMENT_TYPES["int32"], output="cache.last_place_int32")
        total = graph.op("Squeeze", total, output="cache.filled_scalar")
        return last, graph.op("Cast", total, to=ELEMENT_TYPES["int32"], output="cache.filled_int32")
