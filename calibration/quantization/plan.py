"""Which precision each stage is to have: `int8`, or `language_model=int4-weights:128,codec=fp16,kv_cache=int8`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import STAGES, StageName, StagePrecision

PRECISIONS: tuple[StagePrecision, ...] = get_args(StagePrecision)
CachePrecision = Literal["fp16", "int8"]
CACHE_PRECISIONS: tuple[CachePrecision, ...] = get_args(CachePrecision)
KV_CACHE = "kv_cache"
CACHED_STAGES: tuple[StageName, ...] = ("language_model", "speech_codes")
BLOCK_SIZES = (32, 128)
DEFAULT_BLOCK = 32
"""A scale for every 32 weights costs as much again as one bit a weight, and makes half the error of one for 128."""


@dataclass(frozen=True)
class StagePlan:
    """What one stage is to be.

    Args:
        precision: of its weights, and with `int8` of the activations that meet them; None: as it is.
        block_size: weights that share a scale (`int4-weights` only).
        cache: of its KV cache, where it has one; None: as its floats.
    """

    precision: StagePrecision | None = None
    block_size: int | None = None
    cache: CachePrecision | None = None

    def __str__(self) -> str:
        return str(self.precision) if self.block_size is None else f"{self.precision}:{self.block_size}"


@dataclass(frozen=True)
class PrecisionPlan:
    """The stages that change, and the KV cache of both decoders; what is not named stays as it is."""

    stages: Mapping[StageName, StagePlan] = field(default_factory=dict)
    kv_cache: CachePrecision | None = None

    def of(self, stage: StageName) -> StagePlan:
        """What `stage` is to be, its cache included."""
        plan = self.stages.get(stage, StagePlan())
        return replace(plan, cache=self.kv_cache) if stage in CACHED_STAGES else plan

    @property
    def changes_something(self) -> bool:
        """Whether any stage or cache is named."""
        return bool(self.stages) or self.kv_cache is not None

    @property
    def needs_ranges(self) -> bool:
        """Whether activations or caches are rounded, whose ranges must have been measured."""
        return bool(self.ranged_stages)

    @property
    def ranged_stages(self) -> tuple[StageName, ...]:
        """The stages whose ranges are needed."""
        caches = CACHED_STAGES if self.kv_cache == "int8" else ()
        return tuple(
            stage
            for stage in STAGES
            if stage in caches or (stage in self.stages and self.stages[stage].precision == "int8")
        )


def parse_plan(text: str) -> PrecisionPlan:
    """Read what `--precision` says: a precision for all stages, `stage=precision` for single ones, or both.

    Raises:
        SottovoceError: an unknown stage, precision or block size (the valid ones are listed), or one given twice.
    """
    common: StagePlan | None = None
    stages: dict[StageName, StagePlan] = {}
    kv_cache: CachePrecision | None = None
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            if common is not None:
                raise SottovoceError(f"--precision gives all stages two precisions: {common} and {name}", fix=_usage())
            common = _stage_plan(name)
        elif name == KV_CACHE:
            kv_cache = _cache_precision(value)
        else:
            stage = _stage(name)
            if stage in stages:
                raise SottovoceError(f"--precision names the stage {stage!r} twice", fix="name it once")
            stages[stage] = _stage_plan(value)
    if common is not None:
        stages = {stage: stages.get(stage, common) for stage in STAGES}
    return PrecisionPlan(stages, kv_cache)


def _usage() -> str:
    return f"write one of {', '.join(PRECISIONS)} for all stages, or STAGE=PRECISION,… with {', '.join(STAGES)}"


def _stage(name: str) -> StageName:
    for stage in STAGES:
        if name == stage:
            return stage
    raise SottovoceError(
        f"--precision names an unknown stage {name!r}", fix=f"use one of: {', '.join(STAGES)}, {KV_CACHE}"
    )


def _stage_plan(text: str) -> StagePlan:
    name, colon, block = text.partition(":")
    precision = next((known for known in PRECISIONS if known == name), None)
    if precision is None:
        raise SottovoceError(f"--precision is {name!r}", fix=f"use one of: {', '.join(PRECISIONS)}")
    if precision != "int4-weights":
        if colon:
            raise SottovoceError(f"--precision {text!r}: only int4-weights has blocks", fix=f"write {precision}")
        return StagePlan(precision)
    sizes = [size for size in BLOCK_SIZES if str(size) == block] if colon else [DEFAULT_BLOCK]
    if not sizes:
        known = " or ".join(f"int4-weights:{size}" for size in BLOCK_SIZES)
        raise SottovoceError(f"--precision {text!r}: no such block size", fix=f"write {known}")
    return StagePlan(precision, sizes[0])


def _cache_precision(text: str) -> CachePrecision:
    for known in CACHE_PRECISIONS:
        if text == known:
            return known
    raise SottovoceError(f"--precision {KV_CACHE}={text!r}", fix=f"use one of: {', '.join(CACHE_PRECISIONS)}")
