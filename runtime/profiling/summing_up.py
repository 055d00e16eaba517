"""Raw measurements into a report."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from sottovoce.runtime.profiling.context_speed import ContextSpeed
from sottovoce.runtime.profiling.machine import this_machine
from sottovoce.runtime.profiling.measure import Measure, measure
from sottovoce.runtime.profiling.playback_lead import leads_ms
from sottovoce.runtime.profiling.profiler import Profiled, waveform_sha256
from sottovoce.runtime.profiling.report import (
    REPORT_KIND,
    REPORT_VERSION,
    PlaybackLead,
    ProfiledBundle,
    ProfiledQuestion,
    ProfiledReply,
    ProfileReport,
    Setup,
)
from sottovoce.runtime.profiling.shares import Share, context_shares, shares
from sottovoce.runtime.profiling.turn import Turn
from sottovoce.runtime.profiling.turn_measures import turn_measures
from sottovoce.runtime.profiling.waterfall import waterfall

OTHER_SPANS = {"audio_features": "audio_encoder", "image_features": "vision_encoder",
               "prefill": "language_model", "decode": "language_model"}  # fmt: skip
"""Spans that bear no stage's name, and the stage they go with."""


def summed_up(profiled: Profiled) -> ProfileReport:
    """Of a bundle that was measured."""
    turns, rate = profiled.turns, profiled.bundle.manifest.speech.sample_rate
    first = turns[0]
    return ProfileReport(
        report=REPORT_KIND,
        report_version=REPORT_VERSION,
        made=profiled.made,
        sottovoce=version("sottovoce"),
        machine=this_machine(),
        ceilings=profiled.ceilings,
        bundle=_bundle(profiled),
        setup=_setup(profiled),
        question=_question(profiled),
        reply=ProfiledReply(
            first.text, first.reason, len(first.tokens), round(sum(chunk.samples for chunk in first.chunks) / rate, 3)
        ),
        measures=tuple(one for one in _measures(profiled) if _is_wanted(one.name, profiled)),
        real_time=profiled.real_time,
        contexts=profiled.contexts,
        lead=_lead(turns, rate),
        memory=tuple(one for one in profiled.memory if _is_wanted(one.stage, profiled)),
        memory_before_mb=profiled.memory_before_mb,
        layers=tuple(one for one in profiled.layers if _is_wanted(one.call, profiled)),
        shares=tuple(one for one in _shares(profiled) if _is_wanted(one.call, profiled)),
        energy=profiled.energy,
        waterfall=waterfall(turns, rate),
        notes=tuple(_notes(profiled)),
    )


def _bundle(profiled: Profiled) -> ProfiledBundle:
    bundle = profiled.bundle
    precisions = {stage: str(spec.precision) for stage, spec in bundle.manifest.graphs.items()}
    return ProfiledBundle(bundle.path.resolve().name, bundle.sha256, bundle.weights_bytes, precisions)


def _setup(profiled: Profiled) -> Setup:
    options = profiled.options
    return Setup(
        profiled.backend, profiled.engine, profiled.threads, options.warm_up, options.runs, options.speech,
        options.seed, options.max_new_tokens, options.stages,
    )  # fmt: skip


def _question(profiled: Profiled) -> ProfiledQuestion:
    asked, audio = profiled.asked, profiled.asked.audio
    if audio is None:
        return ProfiledQuestion(asked.text, None, None, None, len(asked.images))
    name = None if profiled.options.audio is None else profiled.options.audio.name
    return ProfiledQuestion(asked.text, name, waveform_sha256(audio), round(audio.seconds, 3), len(asked.images))


def _measures(profiled: Profiled) -> list[Measure]:
    return [*turn_measures(profiled.turns), *_context_measures(profiled.contexts)]


def _context_measures(speeds: Sequence[ContextSpeed]) -> list[Measure]:
    """Milliseconds a position, so that less is better here, too."""
    found = []
    for speed in speeds:
        found.append(measure(f"prefill at {speed.context}", "context", [(value,) for value in speed.prefill_ms]))
        found.append(measure(f"decode at {speed.context}", "context", speed.decode_ms))
    return [one for one in found if one is not None]


def _shares(profiled: Profiled) -> list[Share]:
    ceilings, widened = profiled.ceilings, profiled.widened
    return [
        *shares(profiled.bundle, profiled.turns, profiled.layer_runs, ceilings, widened),
        *context_shares(profiled.bundle, profiled.contexts, ceilings, "language_model" in widened),
    ]


def _lead(turns: Sequence[Turn], rate: int) -> PlaybackLead:
    of_turns = [min(leads) for turn in turns if (leads := leads_ms(turn.chunks, rate))]
    if not of_turns:
        return PlaybackLead(None, None, ())
    least = min(of_turns)
    return PlaybackLead(round(least, 3), round(least * rate / 1000), tuple(round(one, 3) for one in of_turns))


def _is_wanted(name: str, profiled: Profiled) -> bool:
    """Whether it is of a stage that was asked for; what is of no stage alone is shown only if all are."""
    stages = profiled.options.stages
    first = name.partition(" at ")[0].partition(".")[0]
    return not stages or OTHER_SPANS.get(first, first) in stages


def _notes(profiled: Profiled) -> list[str]:
    notes = []
    if len({turn.tokens for turn in profiled.turns}) > 1:
        notes.append("the turns' replies were not all the same, though the seed was: they did different work")
    if not profiled.turns[0].tokens:
        notes.append("the reply was empty")
    if profiled.turns[0].reason == "not_addressed":
        notes.append("the model took the question for something not meant for it, and said nothing")
    left_out = [str(length) for length in profiled.options.contexts if length not in _measured(profiled)]
    if left_out:
        limit = profiled.bundle.manifest.generation.context_length
        notes.append(f"contexts of {', '.join(left_out)} were left out: the bundle's context holds {limit}")
    for one in profiled.layers:
        if one.uncounted:
            notes.append(f"multiply-adds of {one.call} are not known: {', '.join(one.uncounted)} do not tell theirs")
    if profiled.asked.speech and not any(one.work != "speech in" for one in profiled.real_time):
        notes.append("the speech decoder gave no samples, so its speed is not known")
    if not profiled.layers:
        notes.append("layers and multiply-adds were not measured")
    return notes


def _measured(profiled: Profiled) -> set[int]:
    return {speed.context for speed in profiled.contexts}
