"""The window of captured sound against the whole of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.runtime.chat.captured_sound import CapturedSound

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 40)),
        st.tuples(st.just("skip"), st.integers(0, 40)),
        st.tuples(st.just("forget"), st.floats(0, 1)),
        st.tuples(st.just("take"), st.floats(0, 1), st.floats(0, 1)),
    )
)


@given(STEPS)
def test_ranges_are_those_of_the_whole_stream(steps):
    sound, whole, forgotten = CapturedSound(), np.zeros(0, np.float32), 0
    for step in steps:
        if step[0] == "append":
            new = np.arange(len(whole) + 1, len(whole) + 1 + step[1], dtype=np.float32)
            sound.append(new)
            whole = np.concatenate([whole, new])
        elif step[0] == "skip":
            whole = np.concatenate([np.zeros_like(whole), np.zeros(step[1], np.float32)])  # lost, as what came before
            sound.skip_to(len(whole))
        elif step[0] == "forget":
            forgotten = max(forgotten, int(step[1] * len(whole)))
            sound.forget_before(forgotten)
        else:
            start = max(forgotten, int(min(step[1:]) * len(whole)))
            end = max(start, int(max(step[1:]) * len(whole)))
            np.testing.assert_array_equal(sound.between(start, end), whole[start:end])
        assert sound.end == len(whole)


def test_what_is_forgotten_takes_no_memory():
    sound = CapturedSound()
    for block in range(10_000):
        sound.append(np.ones(160, np.float32))
        sound.forget_before(160 * block - 4800)
    assert len(sound._parts) < 40


def test_lost_samples_are_silence():
    sound = CapturedSound()
    sound.append(np.ones(100, np.float32))
    np.testing.assert_array_equal(sound.between(90, 110), [1] * 10 + [0] * 10)
