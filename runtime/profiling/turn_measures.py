"""What a row of turns says: moments, stages and calls, each with its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from sottovoce.runtime.profiling.measure import Measure, MeasureKind, measure
from sottovoce.runtime.profiling.turn import Turn

MOMENTS = ("first_token", "first_audio", "total")
"""Names in a reply's timings that count from the question; all others are sums of spans."""
STAGE_SPANS = (
    "audio_features", "image_features", "audio_encoder", "vision_encoder", "prefill", "decode", "speech_text",
    "speech_codes", "codec",
)  # fmt: skip
"""In the order of a turn. `load` is not among them: profiled turns find everything loaded."""
BETWEEN_TOKENS = "between_tokens"


def turn_measures(turns: Sequence[Turn]) -> tuple[Measure, ...]:
    """Moments first, then stages as sums over a turn, then calls of graphs one by one."""
    found = [_moment(turns, name) for name in MOMENTS]
    found.append(measure(BETWEEN_TOKENS, "turn", [_between_tokens(turn) for turn in turns]))
    found += [_stage(turns, name) for name in STAGE_SPANS]
    names = dict.fromkeys(call.name for turn in turns for call in sorted(turn.calls, key=lambda call: call.start))
    found += [
        measure(name, "call", [[call.milliseconds for call in turn.calls if call.name == name] for turn in turns])
        for name in names
    ]
    return tuple(one for one in found if one is not None)


def _moment(turns: Sequence[Turn], name: str) -> Measure | None:
    return _once_a_turn(name, turns, lambda turn: [turn.timings[name]] if name in turn.timings else [])


def _stage(turns: Sequence[Turn], name: str) -> Measure | None:
    def spent(turn: Turn) -> list[float]:
        spans = [span.milliseconds for span in turn.spans if span.name == name]
        return [sum(spans)] if spans else []

    return _once_a_turn(name, turns, spent)


def _once_a_turn(name: str, turns: Iterable[Turn], values: Callable[[Turn], list[float]]) -> Measure | None:
    kind: MeasureKind = "turn"
    return measure(name, kind, [values(turn) for turn in turns])


def _between_tokens(turn: Turn) -> list[float]:
    """From one token to the next, speech that is made in between included."""
    starts = [span.start for span in turn.spans if span.name == "decode"]
    return [1000 * (later - sooner) for sooner, later in pairwise(starts)]
