"""What is written is played, at any rate, and what was heard of it is known."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from played_queue import Playing, speech


def test_what_is_written_is_played_sample_for_sample():
    playing = Playing()
    said = speech(2000)
    for at in range(0, 2000, 333):
        assert playing.queue.write(1, said[at : at + 333]) == len(said[at : at + 333])
    playing.queue.finish(1)
    heard = playing.play(6)
    np.testing.assert_array_equal(heard[:2000], said)
    assert not heard[2000:].any()
    assert playing.queue.played(1) == 2000
    assert playing.queue.pending(1) == 0
    counts = playing.queue.counts
    assert (counts.ends, counts.own_underruns, counts.stops) == (1, 0, 0)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_at_another_rate_the_pieces_together_are_resampled_at_once(rate):
    playing = Playing(rate)
    said = speech(24_000)
    for at in range(0, 24_000, 1000):
        playing.queue.write(1, said[at : at + 1000])
    playing.queue.finish(1)
    heard = playing.play(52)
    expected = soxr.resample(said, 24_000, rate, quality="HQ")
    np.testing.assert_allclose(heard[: len(expected)], expected, atol=2e-4)
    assert not heard[len(expected) :].any()
    assert playing.queue.played(1) == 24_000


def test_what_was_heard_long_ago_takes_no_memory_but_is_still_known():
    playing = Playing(48_000)
    for epoch in range(30):
        playing.queue.write(epoch, speech(960))
        playing.queue.finish(epoch)
        if epoch % 3 == 0:
            playing.play(1)
            playing.queue.stop(epoch)
        playing.play(4)
    blocks = [len(playing.queue.handed_over(epoch)) for epoch in range(30)]
    assert not any(blocks[:20])
    assert all(blocks[25:])
    assert all(segment.resampler is None for segment in playing.queue._known())
    assert playing.queue.played(1) == 960
    assert 480 <= playing.queue.played(0) < 960
    assert not any(playing.queue.pending(epoch) for epoch in range(30))
    assert playing.queue.write(0, speech(960)) == playing.queue.write(1, speech(960)) == 0


def test_what_the_device_still_holds_is_not_taken_for_heard():
    playing = Playing(delay_s=1.0)
    for epoch in range(20):
        playing.queue.write(epoch, speech(960))
        playing.queue.finish(epoch)
        playing.play(2)
    assert not any(playing.queue.played(epoch) for epoch in range(20))
    playing.clock.advance(1.0)
    assert [playing.queue.played(epoch) for epoch in range(20)] == 20 * [960]


def test_played_counts_what_was_heard_not_what_was_handed_over():
    playing = Playing(delay_s=0.1)
    playing.queue.write(1, speech(24_000))
    playing.play(10)  # 0.2 s handed over; the first sample is heard after 0.1 s
    assert playing.queue.played(1) == pytest.approx(2400, abs=2)
    assert playing.queue.pending(1) == 24_000 - playing.queue.played(1)
    playing.clock.advance(0.05)
    assert playing.queue.played(1) == pytest.approx(3600, abs=2)
    playing.clock.advance(10)  # the device stopped calling: no more than it took
    assert playing.queue.played(1) == 4800
    assert playing.queue.ahead == 24_000 - 4800


def test_underruns_are_told_apart():
    playing = Playing()
    playing.queue.write(1, speech(1200))
    playing.play(5)  # it ran dry within the third block
    assert playing.queue.counts.own_underruns == 0  # it may have ended
    playing.queue.write(1, speech(960))
    playing.play(1)
    assert playing.queue.counts.own_underruns == 1
    assert playing.queue.counts.own_silence == 240 + 2 * 480
    playing.play(3)
    playing.queue.finish(1)  # told late: the natural end, not an underrun
    playing.play(1)
    assert playing.queue.counts.own_underruns == 1
    assert playing.queue.counts.ends == 1
    assert playing.queue.counts.device_underruns == 0
    playing.play(1, underflow=True)
    assert playing.queue.counts.device_underruns == 1
    assert playing.queue.counts.own_underruns == 1


def test_ducking_is_quieter_without_a_step():
    playing = Playing()
    playing.queue.write(1, np.full(24_000, 0.8, dtype=np.float32))
    playing.play(2)
    playing.queue.duck(True)
    down = playing.play(4)
    playing.queue.duck(False)
    up = playing.play(4)
    assert np.abs(np.diff(np.concatenate([down, up]))).max() < 0.002
    assert down[-1] == pytest.approx(0.2, abs=1e-6)
    assert up[-1] == pytest.approx(0.8, abs=1e-6)


def test_what_a_vanished_device_held_is_neither_heard_nor_played_again():
    playing = Playing(delay_s=0.05)
    said = speech(4800)
    playing.queue.write(1, said)
    playing.queue.finish(1)
    playing.play(5)  # 2,400 handed over, 1,200 heard
    playing.queue.device_lost()
    playing.clock.advance(3)
    assert playing.queue.played(1) == pytest.approx(1200, abs=2)
    rest = playing.play(5)
    np.testing.assert_array_equal(rest, said[2400:])
    playing.queue.device_lost()  # with the end of the reply in it
    playing.clock.advance(3)
    assert playing.queue.pending(1) == 0
    assert playing.queue.played(1) < 4800


def test_a_device_that_is_given_up_ends_every_reply():
    playing = Playing()
    playing.queue.write(1, speech(4800))
    playing.queue.abandon()
    assert playing.queue.pending(1) == 0
    assert playing.queue.write(2, speech(10)) == 0
