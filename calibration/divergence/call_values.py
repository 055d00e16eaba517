"""The values that both graphs of a stage have at one call, fetched when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sottovoce.calibration.divergence.graph_pair import GraphPair, GraphSide
from sottovoce.calibration.divergence.stage_calls import StageCall
from sottovoce.calibration.divergence.stage_replay import replaying

Array = npt.NDArray[Any]

LEVELS = 8
"""With a value, all that it is made of is fetched, so many nodes back: loading a graph costs more than its values."""


class CallValues:
    """Values of the reference and of the smaller graph at the last of some calls.

    Args:
        pair: the two graphs.
        calls: all calls of the stage up to the one to look at.
    """

    def __init__(self, pair: GraphPair, calls: Sequence[StageCall]) -> None:
        self._pair = pair
        self._call = calls[-1]
        self._calls = [call for call in calls if call.sequence == self._call.sequence]
        self._fetched: tuple[dict[str, Array], dict[str, Array]] = ({}, {})

    def reference(self, name: str) -> Array:
        """A value of the reference: computed, given or constant."""
        return self._value(self._pair.reference, name, self._fetched[0])

    def found(self, name: str) -> Array:
        """A value of the smaller graph, as its engine computes it and in its own units."""
        return self._value(self._pair.found, name, self._fetched[1])

    def _value(self, side: GraphSide, name: str, fetched: dict[str, Array]) -> Array:
        if name in side.stored.names:
            return side.stored.read(name)
        if name in self._call.feeds:
            return np.asarray(self._call.feeds[name])
        if name not in fetched:
            fetched.update(self._fetch(side, name))
        return fetched[name]

    def _fetch(self, side: GraphSide, name: str) -> dict[str, Array]:
        wanted = sorted(_upstream(side, [name], LEVELS))
        with replaying(side.bundle, self._pair.stage, wanted) as replay:
            for call in self._calls[:-1]:
                replay.run(call)
            return replay.run(self._calls[-1], with_cache=True)


def _upstream(side: GraphSide, names: Iterable[str], levels: int) -> set[str]:
    """Computed values that `names` are made of, themselves included; integers made of constants are none."""
    found: set[str] = set()
    front = set(names)
    for _ in range(levels + 1):
        front = {name for name in front if name in side.producers and name not in found and not _is_stored(side, name)}
        found |= front
        front = {operand for name in front for operand in side.producers[name].input}
    return found


def _is_stored(side: GraphSide, name: str) -> bool:
    node = side.producers[name]
    return node.op_type == "DequantizeLinear" and node.input[0] in side.stored.names
