"""The first seconds of a turn through profiled graphs: what each graph spends on which kind of layer."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.manifest import STAGES, StageName
from sottovoce.runtime.model import Model
from sottovoce.runtime.profiling.layers.events import Run
from sottovoce.runtime.profiling.layers.kinds import AROUND, kind_of
from sottovoce.runtime.profiling.layers.multiply_adds import multiply_adds
from sottovoce.runtime.profiling.layers.profiled_session import ProfiledSession
from sottovoce.runtime.profiling.recording import call_name
from sottovoce.runtime.profiling.turn import Asked, take_turn

TURNS = 3
"""Of which the least disturbed is looked at."""


@dataclass(frozen=True)
class LayerTime:
    """One kind of layer in one kind of call; `milliseconds` and `count` are of all calls."""

    kind: str
    milliseconds: float
    count: int


@dataclass(frozen=True)
class GraphLayers:
    """The calls of one kind in a turn that was cut short.

    Args:
        call: `codec.call`, `language_model.step`, …
        calls: how many.
        milliseconds: of all of them, while they were profiled: longer than otherwise.
        layers: the largest first; they add up to `milliseconds`.
        multiply_adds: of all of them; None where an operator's shapes do not say.
        uncounted: those operators.
    """

    call: str
    calls: int
    milliseconds: float
    layers: tuple[LayerTime, ...]
    multiply_adds: int | None
    uncounted: tuple[str, ...]


@dataclass(frozen=True)
class ProfiledRun:
    """A run of a graph: what kind of call it was, of what size, when the clock of its profile began, and how many
    positions were in the cache after it, if it has one."""

    call: str
    size: int
    run: Run
    clock_us: float
    filled: int | None = None

    @property
    def multiply_adds(self) -> int | None:
        """Of all its operators; None where one does not say."""
        counted = [multiply_adds(operator, self.filled) for operator in self.run.operators]
        return None if None in counted else sum(one or 0 for one in counted)


def turn_layers(bundle: Bundle, threads: int | None, asked: Asked) -> tuple[list[GraphLayers], list[ProfiledRun]]:
    """Load the graphs with ONNX Runtime's profiler on, and take turns, cut short; the fastest one counts.

    The first one, which warms the graphs up, never does.

    The profiles lie in a private folder, which is gone when this returns.

    Raises:
        BackendError: a graph cannot be loaded, or its profile cannot be read.
        InputError: as for a turn.
    """
    sessions: dict[StageName, ProfiledSession] = {}
    asked = replace(asked, cut_short=True)
    with tempfile.TemporaryDirectory(prefix="sottovoce-profile-") as folder:

        def open_stage(stage: StageName) -> ProfiledSession:
            spec = bundle.graph(stage)
            sessions[stage] = ProfiledSession(stage, spec, bundle.file(spec.file), threads, Path(folder))
            return sessions[stage]

        with Assistant(Model(bundle, threads=threads, open_stage=open_stage)) as assistant:
            ends = [_calls_after_turn(assistant, asked, sessions) for _ in range(1 + TURNS)]
            runs = {stage: _runs(stage, sessions[stage]) for stage in STAGES if stage in sessions}
    turns = [
        [one for stage, of_stage in runs.items() for one in of_stage[before.get(stage, 0) : after.get(stage, 0)]]
        for before, after in pairwise(ends)
    ]
    found = min(turns, key=lambda turn: sum(one.run.duration_us for one in turn))
    names = dict.fromkeys(one.call for one in found)
    return [graph_layers(name, [one for one in found if one.call == name]) for name in names], found


def _calls_after_turn(
    assistant: Assistant, asked: Asked, sessions: Mapping[StageName, ProfiledSession]
) -> dict[StageName, int]:
    """Take a turn; how many calls each graph has seen since it was loaded."""
    take_turn(assistant, asked)
    return {stage: len(session.calls) for stage, session in sessions.items()}


def _runs(stage: StageName, session: ProfiledSession) -> list[ProfiledRun]:
    """All runs of one graph."""
    runs = session.runs()
    if len(runs) != len(session.calls):
        message = f"stage {stage!r}: ONNX Runtime's profile holds {len(runs)} runs, {len(session.calls)} were made"
        raise BackendError(message, fix="profile with --no-layers, or ask for a shorter reply (--max-new-tokens)")
    calls = zip(session.calls, runs, strict=True)
    has_cache = session.spec.cache is not None
    return [
        ProfiledRun(call_name(stage, phase), size, run, session.began_us, cached + size if has_cache else None)
        for (phase, size, cached), run in calls
    ]


def graph_layers(name: str, runs: Sequence[ProfiledRun]) -> GraphLayers:
    """Add up the runs of one kind of call."""
    spent: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    total, uncounted = 0, set()
    for one in runs:
        for operator in one.run.operators:
            kind = kind_of(operator.operator)
            spent[kind] += operator.duration_us
            counted[kind] += 1
            made = multiply_adds(operator, one.filled)
            total += made or 0
            if made is None:
                uncounted.add(operator.operator)
    whole = sum(one.run.duration_us for one in runs)
    spent[AROUND] = max(whole - sum(spent.values()), 0)
    counted[AROUND] = len(runs)
    layers = [LayerTime(kind, spent[kind] / 1000, counted[kind]) for kind, _ in spent.most_common()]
    known = None if uncounted else total
    return GraphLayers(name, len(runs), whole / 1000, tuple(layers), known, tuple(sorted(uncounted)))
