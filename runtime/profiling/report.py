"""A profile as data: what is written as JSON, shown as a table and a page, and compared with another."""

from __future__ import annotations

from dataclasses import dataclass

from sottovoce.runtime.profiling.ceilings import Ceilings
from sottovoce.runtime.profiling.context_speed import ContextSpeed
from sottovoce.runtime.profiling.energy.spent import Energy
from sottovoce.runtime.profiling.layers.turn_layers import GraphLayers
from sottovoce.runtime.profiling.machine import Machine
from sottovoce.runtime.profiling.measure import Measure
from sottovoce.runtime.profiling.shares import Share
from sottovoce.runtime.profiling.speech_speed import RealTimeFactor
from sottovoce.runtime.profiling.stage_memory import StageMemory
from sottovoce.runtime.profiling.waterfall import Waterfall

REPORT_KIND = "sottovoce profile"
REPORT_VERSION = 1


@dataclass(frozen=True)
class ProfiledBundle:
    """Which bundle: its folder's name, what tells it from every other, and how its stages are stored."""

    name: str
    sha256: str
    bytes: int
    precisions: dict[str, str]


@dataclass(frozen=True)
class ProfiledQuestion:
    """What was asked in every turn; of files the name and a hash of what was heard, not where they are."""

    text: str | None
    audio: str | None
    audio_sha256: str | None
    audio_seconds: float | None
    images: int


@dataclass(frozen=True)
class Setup:
    """How it was measured."""

    backend: str
    engine: str
    """The inference engine and its version."""
    threads: int
    warm_up: int
    runs: int
    speech: bool
    seed: int
    max_new_tokens: int | None
    stages: tuple[str, ...]
    """Those that were asked for; none: all."""


@dataclass(frozen=True)
class ProfiledReply:
    """What every turn answered, since all had the same seed."""

    text: str
    reason: str
    tokens: int
    speech_seconds: float


@dataclass(frozen=True)
class PlaybackLead:
    """How far speech ran ahead of its playing, over all turns; None where a turn's speech came in one piece.

    Args:
        least_ms: the least that was still to be played when more came; below 0 there was a gap.
        least_samples: the same in samples.
        turns_ms: the least of each turn.
    """

    least_ms: float | None
    least_samples: int | None
    turns_ms: tuple[float, ...]


@dataclass(frozen=True)
class ProfileReport:
    """One profile, whole."""

    report: str
    report_version: int
    made: str
    sottovoce: str
    machine: Machine
    ceilings: Ceilings
    bundle: ProfiledBundle
    setup: Setup
    question: ProfiledQuestion
    reply: ProfiledReply
    measures: tuple[Measure, ...]
    real_time: tuple[RealTimeFactor, ...]
    contexts: tuple[ContextSpeed, ...]
    lead: PlaybackLead
    memory: tuple[StageMemory, ...]
    memory_before_mb: float | None
    """Resident before any graph was loaded: Python, numpy and the engine."""
    layers: tuple[GraphLayers, ...]
    shares: tuple[Share, ...]
    energy: Energy
    waterfall: Waterfall
    notes: tuple[str, ...]

    def measure(self, name: str) -> Measure | None:
        """One of the measures by its name."""
        return next((one for one in self.measures if one.name == name), None)
