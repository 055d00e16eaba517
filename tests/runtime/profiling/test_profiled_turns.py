"""What a profile says of turns: everything that ran is there, once, and adds up."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.profile import Stopwatch, spans_told_to
from sottovoce.runtime.profiling.measure import MAX_SAMPLES, measure
from sottovoce.runtime.profiling.options import ProfileOptions
from sottovoce.runtime.profiling.playback_lead import leads_ms
from sottovoce.runtime.profiling.profiler import Profiled, Profiler
from sottovoce.runtime.profiling.report import ProfileReport
from sottovoce.runtime.profiling.shares import cache_bytes_per_position, weight_bytes
from sottovoce.runtime.profiling.stage_memory import forget_peak
from sottovoce.runtime.profiling.summing_up import summed_up
from sottovoce.runtime.profiling.turn import Chunk
from sottovoce.runtime.progress import SilentProgress


def test_every_call_of_a_turn_is_recorded(profiled: Profiled) -> None:
    turn = profiled.turns[0]
    counted = Counter(call.name for call in turn.calls)
    assert counted["audio_encoder.call"] == 1
    assert counted["language_model.prefill"] == 1
    # After the last token that a limit allows nothing is computed.
    assert counted["language_model.step"] == len(turn.tokens) - 1 == 11
    assert counted["speech_codes.step"] > counted["codec.call"] > 0
    steps = [call for call in turn.calls if call.name == "language_model.step"]
    prefill = next(call for call in turn.calls if call.name == "language_model.prefill")
    assert [call.cached for call in steps] == list(range(prefill.size, prefill.size + 11))
    assert all(turn.start <= call.start <= call.end <= turn.end for call in turn.calls)


def test_spans_hold_their_graphs_calls(profiled: Profiled) -> None:
    for turn in profiled.turns:
        decoding = sorted((span.start, span.end) for span in turn.spans if span.name == "decode")
        steps = [call for call in turn.calls if call.name == "language_model.step"]
        assert len(decoding) == len(steps)
        for (start, end), call in zip(decoding, steps, strict=True):
            assert start <= call.start
            assert call.end <= end


def test_turns_sum_up_to_what_the_reply_itself_says(profiled: Profiled, report: ProfileReport) -> None:
    for name in ("first_token", "total", "decode", "codec"):
        found = report.measure(name)
        assert found is not None
        assert [run[0] for run in found.runs] == pytest.approx([turn.timings[name] for turn in profiled.turns])
    between = report.measure("between_tokens")
    assert between is not None
    assert [len(run) for run in between.runs] == [10, 10]


def test_contexts_that_fit_are_measured_and_others_named(report: ProfileReport) -> None:
    assert [speed.context for speed in report.contexts] == [32, 64]
    assert [len(run) for run in report.contexts[0].decode_ms] == [16, 16]
    assert all(0 <= speed.python_share < 1 for speed in report.contexts)
    assert any("1000000" in note and "left out" in note for note in report.notes)


def test_real_time_factors_of_hearing_and_speaking(report: ProfileReport) -> None:
    works = {one.work: one for one in report.real_time}
    assert set(works) == {"speech in", "speech out alone", "speech out while decoding"}
    assert works["speech in"].audio_seconds == 0.5
    assert works["speech out alone"].tokens_per_second is None
    assert (works["speech out while decoding"].tokens_per_second or 0) > 0
    assert all(len(one.factors) == 2 and min(one.factors) > 0 for one in report.real_time)


def test_memory_of_every_stage_that_ran(report: ProfileReport) -> None:
    stages = ["language_model", "audio_encoder", "speech_text", "speech_codes", "codec"]
    assert sorted(one.stage for one in report.memory) == sorted(stages)
    if forget_peak():
        peaks = [one.peak_mb for one in report.memory]
        assert all(peak is not None and peak > (report.memory_before_mb or 0) for peak in peaks)


def test_a_step_reads_weights_and_cache(profiled: Profiled, report: ProfileReport) -> None:
    bundle = profiled.bundle
    spec = bundle.graph("language_model")
    assert weight_bytes(bundle, "language_model", widened=False) == bundle.manifest.files[spec.data[0]].bytes
    assert weight_bytes(bundle, "language_model", widened=True) == 2 * bundle.manifest.files[spec.data[0]].bytes
    cache = spec.cache
    assert cache is not None
    position = 2 * cache.layers * cache.kv_heads * cache.head_size * 4
    assert cache_bytes_per_position(bundle, "language_model") == position
    step = next(one for one in report.shares if one.call == "language_model.step")
    calls = [[call for call in turn.calls if call.name == step.call] for turn in profiled.turns]
    read = sum(weight_bytes(bundle, "language_model", False) + position * (call.cached + 1) for call in calls[0])
    reached = np.median([read / sum(call.end - call.start for call in one) for one in calls]) / 1e9
    assert step.reached == pytest.approx(reached)
    assert step.share == pytest.approx(reached / report.ceilings.read_gb_s)


def test_spans_of_other_threads_are_told_and_none_after_the_block() -> None:
    told: list[str] = []
    with spans_told_to(lambda name, start, end: told.append(name)):
        stopwatch = Stopwatch()
    silent = Stopwatch()

    def work() -> None:
        with stopwatch.measure("heard"):
            pass
        with silent.measure("not heard"):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == ["heard"]


def test_speech_that_runs_ahead_and_speech_that_comes_late() -> None:
    ahead = [Chunk(1.0, 24000), Chunk(1.2, 24000), Chunk(2.9, 12000)]
    assert leads_ms(ahead, 24000) == pytest.approx([800.0, 100.0])
    late = [Chunk(1.0, 2400), Chunk(1.3, 2400), Chunk(1.35, 2400)]  # 100 ms of sound, 300 ms later the next
    assert leads_ms(late, 24000) == pytest.approx([-200.0, 50.0])
    assert leads_ms([], 24000) == leads_ms(late[:1], 24000) == []


def test_the_least_lead_is_that_of_the_worst_turn(profiled: Profiled, report: ProfileReport) -> None:
    leads = [min(leads_ms(turn.chunks, 24000)) for turn in profiled.turns]
    assert report.lead.least_ms == pytest.approx(min(leads), abs=1e-3)
    assert report.lead.least_samples == round(report.lead.least_ms * 24)


def test_many_samples_are_thinned_but_summed_up_whole() -> None:
    values = [float(value) for value in range(10_000)]
    found = measure("steps", "call", [values[:5000], values[5000:]])
    assert found is not None
    assert found.count == 10_000
    assert sum(map(len, found.runs)) <= MAX_SAMPLES
    assert found.p50 == pytest.approx(4999.5)
    assert found.max == 9999
    assert measure("nothing", "call", [[], []]) is None


def test_stages_that_are_asked_for_alone(profiled: Profiled) -> None:
    options = replace(profiled.options, stages=("codec",))
    shown = summed_up(replace(profiled, options=options))
    assert [one.name for one in shown.measures] == ["codec", "codec.call"]
    assert [one.call for one in shown.layers] == [one.call for one in shown.shares] == ["codec.call"]
    assert [one.stage for one in shown.memory] == ["codec"]


def test_what_makes_no_profile_is_refused(profiled: Profiled) -> None:
    with pytest.raises(InputError, match="runs is 0"):
        ProfileOptions(runs=0)
    with pytest.raises(InputError, match="no stage 'ears'"):
        ProfileOptions(stages=("ears",))
    with pytest.raises(InputError, match="does not run it"):
        Profiler(profiled.bundle, ProfileOptions(stages=("vision_encoder",)), SilentProgress())
    with pytest.raises(InputError, match="does not run it"):
        Profiler(profiled.bundle, ProfileOptions(stages=("codec",), speech=False), SilentProgress())
