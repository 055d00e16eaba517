"""A reply that is stopped: what is still heard of it, and what follows."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from played_queue import BLOCK, FADE, Playing, speech

from sottovoce.runtime.devices.playback_format import PlaybackFormat
from sottovoce.runtime.devices.playback_queue import PlaybackQueue


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
