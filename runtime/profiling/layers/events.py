"""ONNX Runtime's profile: a list of runs, each with the operators that it executed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sottovoce.runtime.errors import BackendError

KERNEL = "_kernel_time"
RUN = "model_run"
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """One operator at work.

    Args:
        node: its name in the graph as it runs.
        operator: what it is, as `MatMul`.
        start_us: since the profile's start.
        duration_us: how long it took.
        inputs: the shapes of its inputs.
        outputs: the shapes of its outputs.
    """

    node: str
    operator: str
    start_us: int
    duration_us: int
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


@dataclass(frozen=True)
class Run:
    """One call of the graph, in microseconds, and its operators."""

    start_us: int
    duration_us: int
    operators: tuple[Operator, ...]


def read_runs(path: Path) -> list[Run]:
    """All runs of a profile, in order.

    Raises:
        BackendError: the file is not what ONNX Runtime writes.
    """
    try:
        events = json.loads(path.read_text(encoding="utf-8"))
        runs = sorted((event for event in events if event.get("name") == RUN), key=lambda event: int(event["ts"]))
        operators = sorted((_operator(event) for event in events if _is_operator(event)), key=lambda one: one.start_us)
        return _grouped(runs, operators)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        message = f"the profile of ONNX Runtime cannot be read ({type(problem).__name__}: {problem})"
        raise BackendError(message, file=path, fix="profile with --no-layers, and report it") from problem


def _is_operator(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Node" and str(event["name"]).endswith(KERNEL)


def _operator(event: Mapping[str, Any]) -> Operator:
    details = event["args"]
    return Operator(
        str(event["name"]).removesuffix(KERNEL), str(details["op_name"]), int(event["ts"]), int(event["dur"]),
        _shapes(details.get("input_type_shape", ())), _shapes(details.get("output_type_shape", ())),
    )  # fmt: skip


def _shapes(found: Sequence[Mapping[str, Sequence[int]]]) -> tuple[Shape, ...]:
    """`[{"float": [1, 20]}, {"int64": []}]` → `((1, 20), ())`."""
    return tuple(tuple(int(size) for size in shape) for tensor in found for shape in tensor.values())


def _grouped(runs: Sequence[Mapping[str, Any]], operators: Sequence[Operator]) -> list[Run]:
    """Each operator belongs to the run that was going on when it began."""
    grouped, at = [], 0
    for run in runs:
        start, duration = int(run["ts"]), int(run["dur"])
        while at < len(operators) and operators[at].start_us < start:
            at += 1
        first = at
        while at < len(operators) and operators[at].start_us <= start + duration:
            at += 1
        grouped.append(Run(start, duration, tuple(operators[first:at])))
    return grouped
