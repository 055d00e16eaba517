"""Every span and every call of a graph, each by itself, with the thread that it was in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.profile import spans_told_to

Phase = Literal["call", "prefill", "step"]
"""What a call is: of a decoder several positions at once or one, of the others just a call."""


@dataclass(frozen=True)
class Span:
    """A stage at work, its Python included; seconds of `time.perf_counter`."""

    name: str
    start: float
    end: float
    thread: int

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return 1000 * (self.end - self.start)


@dataclass(frozen=True)
class Call:
    """One run of a graph; seconds of `time.perf_counter`.

    Args:
        stage: whose graph.
        phase: what kind of call.
        start: when it began.
        end: when its results were there.
        thread: where it ran.
        size: of the input's dimension that varies: frames, positions, codes or tiles.
        cached: positions in the cache before it; 0 without a cache.
    """

    stage: StageName
    phase: Phase
    start: float
    end: float
    thread: int
    size: int
    cached: int

    @property
    def name(self) -> str:
        """`codec.call`, `language_model.step`, …"""
        return call_name(self.stage, self.phase)

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return 1000 * (self.end - self.start)


def call_name(stage: StageName, phase: Phase) -> str:
    """What a kind of call is named: never as a stage's span, which has other things in it, too."""
    return f"{stage}.{phase}"


SpanValues = tuple[str, float, float, int]
CallValues = tuple[StageName, Phase, float, float, int, int, int]
"""The fields of a `Span` and of a `Call`: a busy turn can afford a tuple in a list, and what they are is said later."""


class Recording:
    """Spans and calls in the order of their ends."""

    def __init__(self) -> None:
        self._spans: list[SpanValues] = []
        self._calls: list[CallValues] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Spans of all stopwatches that are made inside are recorded."""
        with spans_told_to(self._add_span):
            yield

    def take(self) -> tuple[tuple[Span, ...], tuple[Call, ...]]:
        """What was recorded since the last time."""
        spans, self._spans = self._spans, []
        calls, self._calls = self._calls, []
        return tuple(Span(*values) for values in spans), tuple(Call(*values) for values in calls)

    def add_call(self, values: CallValues) -> None:
        """Note a call that is over."""
        self._calls.append(values)

    def _add_span(self, name: str, start: float, end: float) -> None:
        self._spans.append((name, start, end, threading.get_ident()))
