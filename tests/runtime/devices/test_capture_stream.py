from __future__ import annotations

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from sottovoce.runtime.devices.capture_stream import CaptureStream
from sottovoce.runtime.devices.wav_devices import SteppedClock


def noise(frames: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(frames)).astype(np.float32)


def drained(stream: CaptureStream) -> list:
    stretches = []
    while len((captured := stream.read()).samples):
        stretches.append(captured)
    return stretches


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_pieces_together_are_the_sound_resampled_at_once(rate):
    clock = SteppedClock()
    stream = CaptureStream(rate, 10.0, clock)
    sound = noise(2 * rate)
    pieces, position = [], 0
    for at in range(0, len(sound), rate // 50):
        clock.advance(0.02)
        stream.capture(sound[at : at + rate // 50], delay_s=0.02)
        captured = stream.read()
        assert captured.start == position
        position = captured.end
        pieces.append(captured.samples)
    together = np.concatenate(pieces)
    expected = soxr.resample(sound, rate, 16_000, quality="HQ") if rate != 16_000 else sound
    assert len(together) > len(expected) - 0.12 * 16_000  # the filter keeps the newest back
    np.testing.assert_allclose(together, expected[: len(together)], atol=2e-4)
    assert stream.counts.lost_samples == 0


def test_nothing_new_is_an_empty_stretch():
    stream = CaptureStream(48_000)
    captured = stream.read()
    assert captured.samples.shape == (0,)
    assert captured.start == captured.overruns == 0


def test_a_full_ring_is_counted_and_leaves_a_jump():
    clock = SteppedClock()
    stream = CaptureStream(16_000, 0.1, clock)  # 1,600 frames: five blocks of 320
    sound = noise(16_000)
    for at in range(0, 3200, 320):
        clock.advance(0.02)
        stream.capture(sound[at : at + 320], delay_s=0.02)
    before = stream.read()
    np.testing.assert_array_equal(before.samples, sound[:1600])
    assert (before.start, before.overruns) == (0, 1)
    stream.capture(sound[3200:3520])
    after = stream.read()
    np.testing.assert_array_equal(after.samples, sound[3200:3520])
    assert (after.start, after.overruns) == (3200, 0)
    assert stream.counts.ring_overruns == 1
    assert stream.counts.device_overruns == 0
    assert stream.counts.lost_samples == 1600


def test_what_the_device_lost_is_measured_by_its_clock():
    clock = SteppedClock()
    stream = CaptureStream(48_000, 5.0, clock)
    sound = noise(48_000)
    for at in range(0, 9600, 960):
        clock.advance(0.02)
        stream.capture(sound[at : at + 960], delay_s=0.02)
    clock.advance(0.1 + 0.02)  # the device threw 100 ms away
    stream.capture(sound[14_400:15_360], delay_s=0.02, overflow=True)
    for at in range(15_360, 28_800, 960):
        clock.advance(0.02)
        stream.capture(sound[at : at + 960], delay_s=0.02)
    first, second = drained(stream)
    assert (first.start, first.end) == (0, 3200)
    assert second.start == 4800
    assert stream.counts.device_overruns == 1
    assert stream.counts.lost_samples == 1600
    assert second.moment - first.moment == pytest.approx(0.3, abs=0.002)


def test_a_device_that_was_away_leaves_a_jump_and_no_overrun():
    clock = SteppedClock()
    stream = CaptureStream(16_000, 5.0, clock)
    clock.advance(0.02)
    stream.capture(noise(320), delay_s=0.02)
    stream.interrupted()
    clock.advance(2.02)
    stream.capture(noise(320), delay_s=0.02)
    first, second = drained(stream)
    assert (first.start, first.end, second.start) == (0, 320, 32_320)
    assert first.overruns == second.overruns == 0
    assert stream.counts.lost_samples == 32_000


def test_an_overrun_reported_before_anything_was_captured_loses_nothing():
    stream = CaptureStream(16_000, 5.0, SteppedClock())
    stream.capture(noise(320), overflow=True)
    captured = stream.read()
    assert (captured.start, len(captured.samples), captured.overruns) == (0, 320, 0)


@given(
    rate=st.sampled_from([8_000, 16_000, 44_100, 48_000]),
    turns=st.lists(st.tuples(st.integers(1, 700), st.sampled_from(["", "read", "overflow", "away"])), max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_no_sample_is_out_of_place(rate, turns):
    """A ramp over time: whatever is lost and whenever it is read, each sample tells when it was captured."""
    clock = SteppedClock()
    stream = CaptureStream(rate, 0.1, clock)
    stretches = []
    frame = 0
    for frames, what in turns:
        if what in ("overflow", "away") and frame:  # position 0 is where the first block begins
            clock.advance(0.05)
            frame += round(0.05 * rate)
            if what == "away":
                stream.interrupted()
        clock.advance(frames / rate)
        stream.capture(ramp(frame, frames, rate), frames / rate, overflow=what == "overflow")
        frame += frames
        if what == "read":
            stretches.append(stream.read())
    stretches += drained(stream)
    end = 0
    for captured in stretches:
        assert captured.start >= end or not len(captured.samples)
        end = max(end, captured.end)
        inner = captured.samples[160:-160]  # at its ends a stretch rings
        if len(inner):
            moments = (captured.start + 160 + np.arange(len(inner))) / 16_000
            np.testing.assert_allclose(inner / 0.01, moments, atol=0.004)


def ramp(frame: int, frames: int, rate: int) -> np.ndarray:
    return (0.01 * np.arange(frame, frame + frames) / rate).astype(np.float32)


def test_levels_tell_loudness_and_clipping():
    stream = CaptureStream(16_000)
    stream.capture(np.full(320, 0.5, dtype=np.float32))
    assert stream.levels.rms == pytest.approx(0.5)
    assert stream.levels.peak == 0.5
    assert stream.levels.clipped == 0
    stream.capture(np.array([1.0, -1.0, 0.0], dtype=np.float32))
    stream.capture(np.zeros(320, dtype=np.float32))
    assert (stream.levels.peak, stream.levels.clipped) == (0.0, 2)
