"""The published operator list of an engine's ONNX parser, read from the data beside this file."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sottovoce.runtime.records import read_record


@dataclass(frozen=True)
class OperatorLimits:
    """What a parser takes of one operator.

    Args:
        types: of its main operands, in the list's own words: FP32, INT64, …
        constant_inputs: places of inputs that must be constants of the graph.
        zero_inputs: places of inputs that must be constant zeros.
        outputs: how many results it may give.
        attributes: the values an attribute may have, where there are values it may not have.
        unchecked: a limit that is written down here and not checked.
    """

    types: tuple[str, ...]
    constant_inputs: tuple[int, ...] = ()
    zero_inputs: tuple[int, ...] = ()
    outputs: int | None = None
    attributes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    unchecked: str | None = None


@dataclass(frozen=True)
class OperatorList:
    """Everything a parser takes; an operator that is not here is not taken.

    Args:
        name: of this list.
        engine: whose parser, and its version.
        opsets: the lowest and the highest.
        opset_of_type: a listed type that the standard has only from a later opset on: graphs that use it have that one.
        source: where it was published.
        operators: by the standard's names.
    """

    name: str
    engine: str
    opsets: tuple[int, int]
    opset_of_type: Mapping[str, int]
    source: tuple[str, ...]
    operators: Mapping[str, OperatorLimits]


@functools.cache
def operator_list(name: str) -> OperatorList:
    """A list by its name, such as "tensorrt-10.3".

    Raises:
        OSError: there is none.
        RecordError: the file is damaged.
    """
    path = Path(__file__).with_name(f"{name}.json")
    return read_record(OperatorList, json.loads(path.read_text(encoding="utf-8")), source=path.name)
