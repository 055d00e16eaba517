from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sottovoce.runtime.devices.ring_buffer import RingBuffer

STEPS = st.lists(st.tuples(st.sampled_from(["write", "read", "skip"]), st.integers(0, 12)), max_size=60)


@given(capacity=st.integers(1, 9), steps=STEPS)
@settings(max_examples=300, deadline=None)
def test_any_order_of_writes_and_reads_equals_a_queue(capacity, steps):
    ring = RingBuffer(capacity)
    ring._storage[:] = np.nan  # what is read before it was written cannot go unseen
    queue: list[float] = []
    written = read = 0
    for step, count in steps:
        if step == "write":
            samples = np.arange(written, written + count, dtype=np.float32)
            accepted = ring.write(samples)
            assert accepted == min(count, capacity - len(queue))
            queue += list(samples[:accepted])
            written += accepted
        elif step == "read":
            samples = ring.read(count)
            assert list(samples) == queue[:count]
            del queue[: len(samples)]
            read += len(samples)
        else:
            to = min(written, read + count)
            ring.skip_to(to)
            del queue[: to - read]
            read = to
        assert (ring.written, ring.read_to) == (written, read)
        assert (ring.available, ring.room) == (len(queue), capacity - len(queue))


def test_two_threads_lose_and_repeat_nothing():
    ring = RingBuffer(997)
    total = 300_000
    received: list[np.ndarray] = []
    deadline = time.monotonic() + 20

    def write() -> None:
        sizes = np.random.default_rng(1).integers(1, 700, 4096)
        at = turn = 0
        while at < total and time.monotonic() < deadline:
            piece = np.arange(at, min(total, at + sizes[turn % len(sizes)]), dtype=np.float32)
            at += ring.write(piece)
            turn += 1

    writer = threading.Thread(target=write)
    writer.start()
    sizes = np.random.default_rng(2).integers(1, 700, 4096)
    got = turn = 0
    while got < total and time.monotonic() < deadline:
        received.append(ring.read(int(sizes[turn % len(sizes)])))
        got += len(received[-1])
        turn += 1
    writer.join()
    np.testing.assert_array_equal(np.concatenate(received), np.arange(total, dtype=np.float32))


def test_skipping_what_was_never_written_is_refused():
    ring = RingBuffer(4)
    ring.write(np.ones(2, dtype=np.float32))
    with pytest.raises(ValueError, match="only 2 samples"):
        ring.skip_to(3)
