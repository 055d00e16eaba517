"""All turns as Chrome's trace events, which Perfetto and chrome://tracing open: turns, stages, graphs, operators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sottovoce.runtime.profiling.layers.turn_layers import ProfiledRun
from sottovoce.runtime.profiling.turn import Turn

TURNS, OPERATORS = 1, 2
"""Shown as two processes, since operators were profiled in a turn of its own, which is slower."""
TURN_ROW, STAGE_ROW, GRAPH_ROW = 1, 2, 3
ROWS_A_THREAD = 10
MAX_OPERATORS = 50_000
"""Perfetto takes more, but a file of this many has 10 MB already."""

Event = dict[str, Any]


def trace_events(turns: Sequence[Turn], runs: Sequence[ProfiledRun], title: str) -> dict[str, Any]:
    """The whole trace; times are microseconds since the first turn, or since the first run that was profiled.

    Args:
        turns: timed ones.
        runs: a turn's runs of graphs with their operators.
        title: of what, for the process's name.
    """
    began = turns[0].start if turns else 0.0
    events = [_named("process_name", TURNS, 0, f"turns of {title}")]
    threads = _thread_numbers(turns)
    for thread, number in threads.items():
        base = ROWS_A_THREAD * number
        said = "" if not number else f" (thread {number + 1} of {len(threads)}, {thread})"
        events.append(_named("thread_name", TURNS, base + STAGE_ROW, f"stages{said}"))
        events.append(_named("thread_name", TURNS, base + GRAPH_ROW, f"graphs{said}"))
    events.append(_named("thread_name", TURNS, TURN_ROW, "turns"))
    for turn in turns:
        events += _turn_events(turn, began, threads)
    if runs:
        events.append(_named("process_name", OPERATORS, 0, "inside the graphs (a turn that was profiled, and slower)"))
        events += _operator_events(runs)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _thread_numbers(turns: Iterable[Turn]) -> dict[int, int]:
    spans = dict.fromkeys(span.thread for turn in turns for span in turn.spans)
    calls = dict.fromkeys(call.thread for turn in turns for call in turn.calls)
    return {thread: number for number, thread in enumerate({**spans, **calls})}


def _turn_events(turn: Turn, began: float, threads: dict[int, int]) -> Iterator[Event]:
    details = {"tokens": len(turn.tokens), "reason": turn.reason, "text": turn.text}
    yield _event("turn", turn.start - began, turn.end - turn.start, TURN_ROW, details)
    for name in ("first_token", "first_audio"):
        if name in turn.timings:
            at = 1e6 * (turn.start - began) + 1000 * turn.timings[name]
            yield {"ph": "i", "s": "t", "name": name, "ts": round(at, 3), "pid": TURNS, "tid": TURN_ROW}
    for span in turn.spans:
        row = ROWS_A_THREAD * threads[span.thread] + STAGE_ROW
        yield _event(span.name, span.start - began, span.end - span.start, row, {})
    for call in turn.calls:
        row = ROWS_A_THREAD * threads[call.thread] + GRAPH_ROW
        yield _event(call.name, call.start - began, call.end - call.start, row,
                     {"size": call.size, "cached": call.cached})  # fmt: skip


def _operator_events(runs: Sequence[ProfiledRun]) -> Iterator[Event]:
    """A row a kind of call."""
    left = MAX_OPERATORS
    began = min(one.clock_us + one.run.start_us for one in runs)
    for row, name in enumerate(dict.fromkeys(one.call for one in runs), 1):
        yield _named("thread_name", OPERATORS, row, name)
        for one in (one for one in runs if one.call == name):
            run, clock = one.run, one.clock_us - began
            if left < len(run.operators):
                return
            left -= len(run.operators)
            yield _placed("run", round(clock + run.start_us, 3), run.duration_us, (OPERATORS, row), {})
            for operator in run.operators:
                details = {"node": operator.node, "inputs": str(list(operator.inputs))}
                start = round(clock + operator.start_us, 3)
                yield _placed(operator.operator, start, operator.duration_us, (OPERATORS, row), details)


def _event(name: str, start: float, seconds: float, row: int, details: Event) -> Event:
    return _placed(name, round(1e6 * start, 3), round(1e6 * seconds, 3), (TURNS, row), details)


def _placed(name: str, start_us: float, us: float, row: tuple[int, int], details: Event) -> Event:
    return {"ph": "X", "name": name, "ts": start_us, "dur": us, "pid": row[0], "tid": row[1], "args": details}


def _named(what: str, process: int, row: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": process, "tid": row, "args": {"name": name}}
