"""Joules of a piece of work, by source; a machine that reports nothing is said so, not taken for one that is free."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sottovoce.runtime.profiling.energy.sources import EnergySources

NOT_REPORTED = "not reported by this machine"


@dataclass(frozen=True)
class SourceEnergy:
    """One source over all measured turns: the whole machine's share, whoever used it."""

    source: str
    joules_per_turn: float
    watts: float


@dataclass(frozen=True)
class Energy:
    """What the turns took, or in `note` why that is not known."""

    sources: tuple[SourceEnergy, ...]
    note: str


class EnergyOfTurns:
    """Meters around a row of turns.

    Args:
        sources: what to read.
    """

    def __init__(self, sources: EnergySources) -> None:
        self._sources = sources
        self._joules: list[tuple[str, float]] = []
        self._seconds = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Everything inside counts."""
        started = time.perf_counter()
        for meter in self._sources.meters:
            meter.start()
        try:
            yield
        finally:
            found = [(meter.name, meter.stop()) for meter in self._sources.meters]
            self._seconds = time.perf_counter() - started
            self._joules = [(name, joules) for name, joules in found if joules is not None]

    def energy(self, turns: int) -> Energy:
        """Of `turns` turns."""
        sources = tuple(SourceEnergy(name, joules / turns, joules / self._seconds) for name, joules in self._joules)
        if sources:
            return Energy(sources, "; ".join(self._sources.refused))
        return Energy((), "; ".join((NOT_REPORTED, *self._sources.refused)))
