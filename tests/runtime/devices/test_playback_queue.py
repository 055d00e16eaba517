from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from sottovoce.runtime.devices.playback_format import PlaybackFormat
from sottovoce.runtime.devices.playback_queue import PlaybackQueue
from sottovoce.runtime.devices.wav_devices import SteppedClock

BLOCK = 480  # 20 ms at 24 kHz
FADE = 120  # 5 ms


def fail() -> None:
    pytest.fail("the ring is full")


class Playing:
    """A queue and the device that empties it, over a stepped clock."""

    def __init__(self, device_rate: int = 24_000, delay_s: float = 0.0, fade_s: float = 0.005) -> None:
        self.clock = SteppedClock(100.0)
        self.rate = device_rate
        self.delay_s = delay_s
        self.queue = PlaybackQueue(PlaybackFormat(device_rate, 24_000, 10.0, fade_s), fail, self.clock)
        self.heard: list[np.ndarray] = []

    def play(self, blocks: int = 1, underflow: bool = False) -> np.ndarray:
        played = []
        for _ in range(blocks):
            played.append(self.queue.fill(self.rate // 50, self.delay_s, underflow))
            self.clock.advance(0.02)
        self.heard += played
        return np.concatenate(played)


def speech(samples: int, seed: int = 3) -> np.ndarray:
    return (0.2 + 0.1 * np.random.default_rng(seed).random(samples)).astype(np.float32)


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


def test_what_the_device_drops_of_a_stopped_reply_was_not_heard():
    playing = Playing(48_000, delay_s=0.06)
    playing.queue.write(1, speech(24_000))
    for _ in range(10):
        assert not playing.queue.drop_stopped()
        playing.play(1)
    heard = playing.queue.played(1)
    assert 0 < heard < 10 * BLOCK
    playing.queue.stop(1)
    assert playing.queue.drop_stopped()
    assert not playing.queue.drop_stopped()  # once
    playing.clock.advance(1.0)
    assert playing.queue.played(1) == heard
    assert playing.queue.pending(1) == 0
    assert playing.queue.counts.stops == 1
    assert playing.queue.write(1, speech(100)) == 0
    playing.queue.write(2, speech(960, seed=4))
    playing.queue.finish(2)
    np.testing.assert_array_equal(playing.play(3)[: 2 * 480] > 0, True)  # nothing of the first reply is left
    playing.clock.advance(1.0)
    assert playing.queue.played(2) == 960


def test_the_end_of_a_reply_that_the_device_still_holds_is_dropped_too():
    playing = Playing(delay_s=0.06)
    playing.queue.write(1, speech(960))
    playing.queue.finish(1)
    playing.play(3)
    playing.queue.stop(1)
    assert playing.queue.drop_stopped()
    playing.clock.advance(1.0)
    assert playing.queue.played(1) == 0
    assert playing.queue.counts.ends == 1


@pytest.mark.parametrize("state", ["not written", "not heard", "heard to its end", "played"])
def test_nothing_is_dropped_of_what(state):
    playing = Playing(delay_s=0.02)
    playing.queue.write(1, speech(960))
    playing.queue.finish(1)
    stopped = 1
    if state == "not written":
        playing.play(1)
        stopped = 7
    elif state == "heard to its end":
        playing.play(5)
    elif state == "played":  # another one is stopped
        playing.play(1)
        playing.queue.write(2, speech(960))
        stopped = 2
    playing.queue.stop(stopped)
    assert not playing.queue.drop_stopped()


def test_a_reply_before_the_stopped_one_ends_with_it():
    """The device holds the end of one and the beginning of the next."""
    playing = Playing(delay_s=0.1)
    playing.queue.write(1, speech(480))
    playing.queue.finish(1)
    playing.queue.write(2, speech(4800))
    playing.play(3)
    playing.queue.stop(2)
    assert playing.queue.drop_stopped()
    playing.clock.advance(1.0)
    assert playing.queue.played(1) == playing.queue.played(2) == 0
    assert playing.queue.pending(1) == playing.queue.pending(2) == 0


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


def test_a_stopped_reply_fades_out_in_the_next_block_and_never_comes_back():
    playing = Playing()
    said = speech(24_000)
    playing.queue.write(1, said)
    playing.play(3)
    playing.queue.stop(1)
    tail = playing.play()
    assert tail[0] == pytest.approx(said[1440], abs=1e-6)
    assert np.all(tail[:FADE] <= said[1440 : 1440 + FADE] + 1e-6)
    assert np.abs(np.diff(tail[: FADE + 1])).max() < 0.15  # no click: the whole sound is at 0.2 to 0.3
    assert tail[FADE - 1] < 0.001
    assert not tail[FADE:].any()
    assert playing.queue.write(1, said) == 0
    playing.queue.finish(1)
    assert not playing.play(10).any()
    assert playing.queue.pending(1) == 0
    assert playing.queue.played(1) == 1440 + FADE
    assert playing.queue.ahead == 0  # its room is free at once
    assert playing.queue.counts.stops == 1
    assert playing.queue.counts.own_underruns == 0


def test_a_reply_that_was_stopped_before_it_was_written_is_not_heard():
    playing = Playing()
    playing.queue.stop(7)
    assert playing.queue.write(7, speech(4000)) == 0
    assert not playing.play(5).any()


def test_the_next_reply_follows_a_stopped_one_in_the_same_block():
    playing = Playing()
    playing.queue.write(1, speech(24_000))
    playing.play(2)
    playing.queue.stop(1)
    answer = speech(900, seed=9)
    playing.queue.write(2, answer)
    playing.queue.finish(2)
    heard = playing.play(3)
    np.testing.assert_array_equal(heard[FADE : FADE + 900], answer)
    assert not heard[FADE + 900 :].any()


def test_a_reply_that_is_still_waiting_can_be_stopped():
    playing = Playing()
    first, second, third = speech(1000, 1), speech(1000, 2), speech(1000, 3)
    for epoch, said in ((1, first), (2, second), (3, third)):
        playing.queue.write(epoch, said)
    playing.queue.finish(3)
    playing.queue.stop(2)
    heard = playing.play(6)
    np.testing.assert_array_equal(heard[:2000], np.concatenate([first, third]))
    assert playing.queue.played(2) == 0


def test_a_newer_reply_ends_the_older_one():
    playing = Playing()
    playing.queue.write(1, speech(100))
    playing.queue.write(2, speech(100))
    assert playing.queue.write(1, speech(100)) == 0


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


def test_who_waits_for_room_is_let_go_by_stop_and_by_close():
    for release in (lambda queue: queue.stop(1), lambda queue: queue.close()):
        queue = PlaybackQueue(PlaybackFormat(24_000, ring_seconds=0.1), lambda: time.sleep(0.002))
        writer = threading.Thread(target=queue.write, args=(1, speech(24_000)), daemon=True)
        writer.start()
        time.sleep(0.02)
        assert writer.is_alive()
        release(queue)
        writer.join(2)
        assert not writer.is_alive()


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "finish", "stop", "play", "play"]), st.integers(0, 3), st.integers(1, 900)),
    max_size=50,
)


@given(steps=STEPS)
@settings(max_examples=300, deadline=None)
def test_whatever_happens_each_reply_is_heard_in_order_once_and_never_after_its_stop(steps):
    playing = Playing(fade_s=0)  # so that every sample is one that was written
    model: dict[int, list[float]] = {}  # what was taken of each reply, in order of writing
    stopped_at: dict[int, int] = {}  # block in which a stop must have taken effect
    value = 0
    for what, epoch, count in steps:
        if what == "write":
            samples = (epoch + 1 + (value + np.arange(count)) / 2**16).astype(np.float32)  # each value is unique
            value += count
            if playing.queue.write(epoch, samples):
                model.setdefault(epoch, []).extend(samples)
        elif what == "finish":
            playing.queue.finish(epoch)
        elif what == "stop":
            playing.queue.stop(epoch)
            stopped_at.setdefault(epoch, len(playing.heard))
        else:
            playing.play()
    playing.play(2 + sum(map(len, model.values())) // BLOCK)
    heard = np.concatenate(playing.heard)
    for epoch, said in model.items():
        whole = np.isin(heard, np.array(said, dtype=np.float32))
        sound = heard[whole]
        np.testing.assert_array_equal(sound, said[: len(sound)])  # in order, nothing twice, nothing left out
        if epoch in stopped_at:
            assert not whole[stopped_at[epoch] * BLOCK :].any()
        else:
            assert len(sound) == len(said)
    everything = np.array([x for said in model.values() for x in said], dtype=np.float32)
    assert np.isin(heard[heard != 0], everything).all()


def test_threads_that_write_stop_and_play_at_once():
    """A bounded storm: the device's thread checks that nothing of a stopped reply comes two blocks after its stop."""
    queue = PlaybackQueue(PlaybackFormat(24_000, ring_seconds=0.5), lambda: time.sleep(0.0005))
    deadline = time.monotonic() + 3.0
    stopped_through = 0
    wrong: list[str] = []
    blocks = 0

    def play() -> None:
        nonlocal blocks
        newest = 0.0
        while time.monotonic() < deadline:
            silenced = stopped_through
            block = queue.fill(BLOCK)
            blocks += 1
            sound = block[FADE:][block[FADE:] > 0]  # a fade is at the beginning
            if len(sound) and sound.min() <= silenced:
                wrong.append(f"reply {sound.min()} after {silenced} was stopped")
            if len(sound) and sound.min() < newest:
                wrong.append("an older reply after a newer one")
            newest = sound.max() if len(sound) else newest
            time.sleep(0.0002)

    def write(epoch: int) -> None:
        for _ in range(20):
            queue.write(epoch, np.full(700, epoch, dtype=np.float32))
        queue.finish(epoch)

    device = threading.Thread(target=play)
    device.start()
    epoch = 0
    while time.monotonic() < deadline:
        epoch += 1
        writer = threading.Thread(target=write, args=(epoch,))
        writer.start()
        time.sleep(0.003)
        queue.stop(epoch)
        stopped_through = epoch
        writer.join()
    queue.close()
    device.join()
    assert not wrong
    assert epoch > 50
    assert blocks > 200
