"""How near each graph comes to what the machine can do: bytes against memory, multiply-adds against products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.contracts import ITEM_BYTES
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.profiling.ceilings import Ceilings
from sottovoce.runtime.profiling.context_speed import ContextSpeed
from sottovoce.runtime.profiling.layers.turn_layers import ProfiledRun
from sottovoce.runtime.profiling.recording import Call
from sottovoce.runtime.profiling.turn import Turn

Ceiling = Literal["memory", "matrix product"]
STEP = "step"


@dataclass(frozen=True)
class Share:
    """One kind of call against its ceiling.

    Args:
        call: `language_model.step`, `codec.call`, …
        ceiling: what limits it: a step reads all weights for one row; other calls multiply.
        reached: 10⁹ bytes, or 10⁹ operations, a second, by the median turn.
        share: of the ceiling; above 1 where weights come from the processor's cache, or integers are multiplied.
        note: how to read it.
    """

    call: str
    ceiling: Ceiling
    reached: float
    share: float
    note: str = ""


def shares(
    bundle: Bundle, turns: Sequence[Turn], profiled: Sequence[ProfiledRun], ceilings: Ceilings, widened: frozenset[str]
) -> list[Share]:
    """Of every kind of call of which bytes or multiply-adds are known.

    Args:
        bundle: whose graphs.
        turns: timed ones, at least one.
        profiled: the same turn's first calls, with their multiply-adds.
        ceilings: of the machine.
        widened: stages whose float16 weights are float32 in memory.
    """
    found = []
    for name in dict.fromkeys(call.name for turn in turns for call in turn.calls):
        of_turns = [[call for call in turn.calls if call.name == name] for turn in turns]
        used = [calls for calls in of_turns if calls]
        stage = used[0][0].stage
        counted = [one for one in profiled if one.call == name]
        if name.endswith(STEP):
            reached = _bytes_per_second(bundle, used, stage in widened) / 1e9
            found.append(_of_memory(name, reached, weight_bytes(bundle, stage, stage in widened), ceilings))
        elif (operations := _operations_per_second(used, counted)) is not None:
            note = "weights in integers" if bundle.graph(stage).has_integer_weights else ""
            giga = operations / 1e9
            found.append(Share(name, "matrix product", giga, giga / ceilings.matmul_gflop_s, note))
    return found


def context_shares(bundle: Bundle, speeds: Sequence[ContextSpeed], ceilings: Ceilings, widened: bool) -> list[Share]:
    """Of decoding at each length of context, cache and weights together."""
    weights = weight_bytes(bundle, "language_model", widened)
    found = []
    for speed in speeds:
        position = cache_bytes_per_position(bundle, "language_model")
        read = weights + position * (speed.context - len(speed.decode_ms[0]) / 2)
        reached = read * speed.decode_tokens_per_second / 1e9
        found.append(_of_memory(f"decode at {speed.context}", reached, weights, ceilings))
    return found


def weight_bytes(bundle: Bundle, stage: StageName, widened: bool) -> int:
    """Of a graph's weights as they are in memory; a step reads them all."""
    stored = sum(bundle.manifest.files[name].bytes for name in bundle.graph(stage).data)
    return 2 * stored if widened else stored


def cache_bytes_per_position(bundle: Bundle, stage: StageName) -> int:
    """Of a decoder's keys and values; 0 for other stages."""
    cache = bundle.graph(stage).cache
    if cache is None:
        return 0
    return 2 * cache.layers * cache.kv_heads * cache.head_size * ITEM_BYTES[cache.dtype]


def _operations_per_second(turns: Sequence[Sequence[Call]], counted: Sequence[ProfiledRun]) -> float | None:
    """By the median turn, over its calls that were counted: the first ones, two operations a multiply-add."""
    reached = []
    for calls in turns:
        pairs = [(call, one.multiply_adds) for call, one in zip(calls, counted, strict=False) if call.size == one.size]
        known = [(call, made) for call, made in pairs if made]
        if known:
            spent = sum(call.end - call.start for call, _ in known)
            reached.append(2 * sum(made for _, made in known) / spent)
    return float(np.median(reached)) if reached else None


def _bytes_per_second(bundle: Bundle, turns: Sequence[Sequence[Call]], widened: bool) -> float:
    """By the median turn: each step reads all weights, and the cache as far as it is filled."""
    stage = turns[0][0].stage
    weights, position = weight_bytes(bundle, stage, widened), cache_bytes_per_position(bundle, stage)
    reached = []
    for calls in turns:
        read = sum(weights + position * (call.cached + call.size) for call in calls)
        reached.append(read / sum(call.end - call.start for call in calls))
    return float(np.median(reached))


def _of_memory(name: str, reached: float, weights: int, ceilings: Ceilings) -> Share:
    """A processor's cache that holds the weights is faster than memory: the share then says little."""
    in_cache = ceilings.last_cache_mb is not None and weights / 1e6 < ceilings.last_cache_mb
    note = f"{weights / 1e6:.0f} MB of weights fit in the processor's cache" if in_cache else ""
    return Share(name, "memory", reached, reached / ceilings.read_gb_s, note)
