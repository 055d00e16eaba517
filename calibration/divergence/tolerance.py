"""How far a value of a smaller stage may be from the reference's before something is wrong."""

from __future__ import annotations

from collections.abc import Mapping

from sottovoce.runtime.manifest import DataType, GraphSpec, StageName, StagePrecision

TOLERANCES: Mapping[StagePrecision, float] = {
    "fp32": 1e-3,
    "fp16": 0.01,
    "int8-weights": 0.1,
    "int8": 0.3,
    "int4-weights": 0.7,
}
"""Largest relative error (root mean square of the difference, as a share of the reference's) of any value of a stage.

Errors add up from layer to layer: the bars are one and a half to seven times what the worst value of the tiny
checkpoint comes to in sound graphs (fp16 0.0014, int8-weights 0.056, int8 0.17, int4-weights 0.48). Its weights are
random, which forgives nothing: trained ones come closer."""


CACHE_TOLERANCES: Mapping[DataType, float] = {"float16": TOLERANCES["fp16"], "int8": 0.1}
"""What a stage is allowed at least for the type of its KV cache (int8: the tiny checkpoint's worst value, 0.043)."""


def tolerance_of(spec: GraphSpec, stage: StageName, chosen: float | Mapping[StageName, float] | None) -> float:
    """What a stage is allowed: what was chosen for it, or the bar of its precision and of its cache's."""
    if isinstance(chosen, float):
        return chosen
    bar = TOLERANCES[spec.precision]
    if spec.cache is not None:
        bar = max(bar, CACHE_TOLERANCES.get(spec.cache.dtype, 0.0))
    return bar if chosen is None else chosen.get(stage, bar)
