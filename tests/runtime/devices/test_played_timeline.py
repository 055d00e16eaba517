from __future__ import annotations

import numpy as np
import soxr

from sottovoce.runtime.devices.played_timeline import PlayedTimeline


def test_the_reference_is_what_was_played_at_that_moment():
    timeline = PlayedTimeline(48_000)
    sound = np.random.default_rng(1).standard_normal(48_000).astype(np.float32)
    jitter = np.random.default_rng(0).uniform(-0.002, 0.002, 50)
    jitter[0] = 0
    for block in range(50):
        timeline.append(sound[block * 960 : (block + 1) * 960], 7.0 + block * 0.02 + jitter[block])
    heard = timeline.reference(7.3, 4800)
    expected = soxr.resample(sound, 48_000, 16_000, quality="HQ")[4800:9600]
    at = np.argmax(np.correlate(expected, heard[1000:3800], "valid")) - 1000
    assert abs(at) <= 8  # half a millisecond, though callbacks came two milliseconds early and late
    np.testing.assert_allclose(heard[max(0, -at) :][:4000], expected[max(0, at) :][:4000], atol=0.01)


def test_before_what_was_played_there_is_silence_and_what_comes_is_not_known():
    timeline = PlayedTimeline(16_000)
    assert len(timeline.reference(0.0, 100)) == 0
    timeline.append(np.ones(320, dtype=np.float32), 5.0)
    np.testing.assert_array_equal(timeline.reference(5.0 - 0.01, 640), np.repeat([0, 1], [160, 320]))
    assert len(timeline.reference(6.0, 100)) == 0


def test_a_pause_of_the_device_is_silence_and_what_was_before_stays():
    timeline = PlayedTimeline(16_000)
    timeline.append(np.full(320, 0.5, dtype=np.float32), 5.0)
    timeline.append(np.full(320, 0.7, dtype=np.float32), 5.52)
    heard = timeline.reference(5.0, 16_000)
    np.testing.assert_allclose(heard[:320], 0.5)
    assert not heard[320:8320].any()
    np.testing.assert_allclose(heard[8320:8640], 0.7)


def test_only_the_last_seconds_are_kept():
    timeline = PlayedTimeline(16_000)
    for block in range(1200):
        timeline.append(np.full(320, block / 1200, dtype=np.float32), block * 0.02)
        timeline.reference(0.0, 1)
    assert not timeline.reference(13.0, 320).any()
    np.testing.assert_allclose(timeline.reference(23.0, 320), 1150 / 1200)
    assert len(timeline._kept) == 160_000


def test_what_the_device_dropped_was_silence():
    timeline = PlayedTimeline(16_000)
    for block in range(4):
        timeline.append(np.full(320, 0.5, dtype=np.float32), 5.0 + block * 0.02)
        timeline.reference(5.0, 160)  # it is known already when it is dropped
    timeline.drop(5.03)
    heard = timeline.reference(5.0, 1280)
    np.testing.assert_allclose(heard[:480], 0.5)
    assert not heard[480:].any()
    timeline.append(np.full(320, 0.7, dtype=np.float32), 5.5)
    heard = timeline.reference(5.0, 16_000)
    assert not heard[480:8000].any()
    np.testing.assert_allclose(heard[8000:8320], 0.7)
