"""Integers into the graph: a weight becomes INT8 or INT4 values, scales, and a DequantizeLinear before its readers.

This is the standard's own spelling (opset 19; with blocks, 21). TensorRT takes it as explicit quantization; ONNX
Runtime fuses it with the product that follows into one kernel, MatMulNBits, as fast as where that is written out
(1536 × 8960 weights, one core of an EPYC: 0.26 ms a row and 220 ms for 256 rows with 4 bits in blocks of 32, against
0.31 and 213 ms; in float32 2.2 and 298 ms). So one spelling serves both, and there is no dialect of its own for
quantized decoders.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sottovoce.calibration.bundles.external_data import PackedInt4
from sottovoce.calibration.quantization.graph import BLOCKS_OPSET, SCALED_OPSET, StageGraph
from sottovoce.calibration.quantization.rounding import INT4_HIGHEST, INT4_LOWEST, RoundedWeights
from sottovoce.calibration.quantization.sites import WeightSite


def store_integers(graph: StageGraph, site: WeightSite, rounded: RoundedWeights, bits: int) -> None:
    """Replace a weight by `rounded`, in `bits` (8 or 4) each; its readers get the dequantized values."""
    blocks = len(rounded.scales) > 1 or bits == 4
    graph.require_opset(BLOCKS_OPSET if blocks else SCALED_OPSET)
    integers = np.ascontiguousarray(site.from_matrix(rounded.integers))
    attributes: dict[str, Any] = {"axis": site.output_axis}
    scales = rounded.scales[0]
    if blocks:
        if site.input_axis is None:
            raise ValueError(f"{site.name}: a {site.op} has no blocks")
        attributes = {"axis": site.input_axis, "block_size": rounded.block_size}
        scales = rounded.scales if site.input_axis == 0 else rounded.scales.T
    if bits == 4 and not INT4_LOWEST <= integers.min(initial=0) <= integers.max(initial=0) <= INT4_HIGHEST:
        raise ValueError(f"{site.name}: integers beyond 4 bits")
    place = graph.first_reader(site.name)
    graph.redirect(site.name, f"{site.name}.dequantized")
    graph.replace(site.name, PackedInt4.pack(integers) if bits == 4 else integers)
    scale = graph.add(f"{site.name}.scale", np.ascontiguousarray(scales))
    graph.insert(place, "DequantizeLinear", [site.name, scale], f"{site.name}.dequantized", **attributes)
