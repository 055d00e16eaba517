"""From a bundle to its profile: ceilings, memory, timed turns, speech, contexts, and last what profiling slows down."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module

import numpy as np

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import check_backend, module_of, open_session
from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cores import available_cores
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.features.audio_file import Waveform, read_audio
from sottovoce.runtime.manifest import STAGES, StageName
from sottovoce.runtime.model import Model
from sottovoce.runtime.profiling.ceilings import Ceilings, measure_ceilings
from sottovoce.runtime.profiling.context_speed import ContextSpeed, context_speeds
from sottovoce.runtime.profiling.energy.sources import find_sources
from sottovoce.runtime.profiling.energy.spent import Energy, EnergyOfTurns
from sottovoce.runtime.profiling.layers.turn_layers import GraphLayers, ProfiledRun, turn_layers
from sottovoce.runtime.profiling.options import ProfileOptions
from sottovoce.runtime.profiling.recording import Recording
from sottovoce.runtime.profiling.speech_speed import RealTimeFactor, heard_factor, spoken_factors
from sottovoce.runtime.profiling.stage_memory import StageMemory, resident_mb, stage_memory
from sottovoce.runtime.profiling.timed_session import TimedSession
from sottovoce.runtime.profiling.turn import Asked, Turn, take_turn
from sottovoce.runtime.progress import Progress

ONNX_RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Profiled:
    """All that was measured of a bundle, raw."""

    bundle: Bundle
    options: ProfileOptions
    asked: Asked
    made: str
    backend: str
    engine: str
    threads: int
    ceilings: Ceilings
    memory_before_mb: float | None
    memory: tuple[StageMemory, ...]
    turns: tuple[Turn, ...]
    energy: Energy
    real_time: tuple[RealTimeFactor, ...]
    contexts: tuple[ContextSpeed, ...]
    widened: frozenset[str]
    layers: tuple[GraphLayers, ...]
    layer_runs: tuple[ProfiledRun, ...]


class Profiler:
    """Measures one bundle.

    Args:
        bundle: a checked one.
        options: what to measure.
        progress: told how far it is.

    Raises:
        InputError: the question cannot be taken, or does not run a stage that was asked for.
        BackendError: there is no such backend.
    """

    def __init__(self, bundle: Bundle, options: ProfileOptions, progress: Progress) -> None:
        self._bundle = bundle
        self._options = options
        self._progress = progress
        self._backend = check_backend(options.backend, bundle, options.require_engine)
        self._threads = options.threads or available_cores()
        self._asked = _asked(bundle, options)
        _check_stages(bundle, options)

    def measure(self) -> Profiled:
        """All of it, one thing after the other, so that none disturbs another.

        Raises:
            BackendError: the engine failed.
            InputError: the question does not fit into the context.
        """
        options = self._options
        ceilings = measure_ceilings(self._threads, self._progress)
        before = resident_mb()
        memory = stage_memory(self._bundle, self._open, self._asked)
        with self._timed() as (assistant, model, recording):
            turns, energy = self._turns(assistant, recording)
            real_time = self._real_time(assistant, model, turns)
            contexts = context_speeds(model, recording, options.contexts, options.runs, self._progress)
            loaded = dict.fromkeys(call.stage for turn in turns for call in turn.calls)
            widened = frozenset(stage for stage in loaded if model.session(stage).widened)
        layers, layer_runs = self._layers()
        return Profiled(
            self._bundle, options, self._asked, datetime.now(timezone.utc).isoformat(timespec="seconds"),
            self._backend, _engine(self._backend), self._threads, ceilings, before,
            tuple(memory), tuple(turns), energy, tuple(real_time), tuple(contexts), widened, tuple(layers),
            tuple(layer_runs),
        )  # fmt: skip

    def _open(self, stage: StageName) -> Session:
        return open_session(self._bundle, stage, self._backend, self._threads, self._options.require_engine)

    @contextmanager
    def _timed(self) -> Iterator[tuple[Assistant, Model, Recording]]:
        recording = Recording()
        model = Model(
            self._bundle, self._backend, open_stage=lambda stage: TimedSession(self._open(stage), stage, recording)
        )
        with Assistant(model) as assistant:
            yield assistant, model, recording

    def _turns(self, assistant: Assistant, recording: Recording) -> tuple[list[Turn], Energy]:
        options = self._options
        for _ in range(options.warm_up):
            take_turn(assistant, self._asked, recording)
        energy, turns = EnergyOfTurns(find_sources()), []
        with energy.measured():
            for run in range(options.runs):
                turns.append(take_turn(assistant, self._asked, recording))
                self._progress.step("turns", run + 1, options.runs)
        return turns, energy.energy(options.runs)

    def _real_time(self, assistant: Assistant, model: Model, turns: list[Turn]) -> list[RealTimeFactor]:
        asked, found = self._asked, []
        if asked.audio is not None:
            found.append(heard_factor(turns, asked.audio.seconds))
        if asked.speech:
            found += spoken_factors(assistant, model, turns[0].text, self._options.runs, self._progress)
        return found

    def _layers(self) -> tuple[list[GraphLayers], list[ProfiledRun]]:
        """Only ONNX Runtime tells; other engines have no layers that could be told apart from here."""
        if not self._options.layers or self._backend != ONNX_RUNTIME:
            return [], []
        self._progress.step("inside the graphs", 0, 1)
        found = turn_layers(self._bundle, self._threads, self._asked)
        self._progress.step("inside the graphs", 1, 1)
        return found


def _asked(bundle: Bundle, options: ProfileOptions) -> Asked:
    """The question, its recording read once."""
    limit = bundle.manifest.audio.max_seconds
    audio = None if options.audio is None else read_audio(options.audio, max_seconds=limit)
    return Asked(
        options.question_text, audio, options.images, options.max_new_tokens, options.seed, options.speech
    )  # fmt: skip


def _engine(backend: str) -> str:
    """The engine and its version, whichever of its packages brought it."""
    return f"{backend} {getattr(import_module(module_of(backend)), '__version__', '')}".strip()


def waveform_sha256(waveform: Waveform) -> str:
    """Of what is heard, whatever file it came in."""
    rate = np.array([waveform.sample_rate], dtype="<i8").tobytes()
    return hashlib.sha256(rate + np.asarray(waveform.samples, dtype="<f4").tobytes()).hexdigest()


def _check_stages(bundle: Bundle, options: ProfileOptions) -> None:
    """Every stage that was asked for is in the bundle, and is used by the question."""
    unused: dict[str, str] = {}
    if options.audio is None:
        unused["audio_encoder"] = "give a recording (--audio)"
    if not options.images:
        unused["vision_encoder"] = "give a picture (--image)"
    if not options.speech:
        unused |= dict.fromkeys(("speech_text", "speech_codes", "codec"), "leave --no-speech away")
    for stage in options.stages:
        if stage not in bundle.manifest.graphs:
            there = ", ".join(name for name in STAGES if name in bundle.manifest.graphs)
            raise InputError(f"this bundle has no stage {stage!r}; it has: {there}", file=bundle.path)
        if stage in unused:
            raise InputError(f"--stage {stage}: this question does not run it", fix=unused[stage])
