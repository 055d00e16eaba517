"""Whatever happens, on whatever thread: each reply is heard in order, once, and not after its stop."""

from __future__ import annotations

import threading
import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from played_queue import BLOCK, FADE, Playing

from sottovoce.runtime.devices.playback_format import PlaybackFormat
from sottovoce.runtime.devices.playback_queue import PlaybackQueue

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
