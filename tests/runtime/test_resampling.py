"""Resampled on the way, whole, or after going back: the same samples to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sottovoce.runtime.features.audio_file import Waveform
from sottovoce.runtime.features.resampling import StreamingResampler

NOISE = np.random.default_rng(0).normal(0, 0.2, 100_000).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000]),
    samples=st.integers(0, 100_000),
    size=st.integers(1, 30_000),
    back=st.integers(0, 20),
)
def test_any_division_is_the_whole_to_the_bit(rate: int, samples: int, size: int, back: int) -> None:
    sound = NOISE[:samples]
    resampler, made = StreamingResampler(rate, 16000), []
    for number, start in enumerate(range(0, samples, size)):
        made.append(resampler.append(sound[start : start + size]))
        if number == back:  # an end that was none
            given_out = resampler.given
            resampler.finish()
            resampler.resume(sound[: start + size], given_out)
    made.append(resampler.finish())
    np.testing.assert_array_equal(np.concatenate(made), Waveform(sound, rate).at_rate(16000).samples)


@pytest.mark.parametrize("given_out", [0, 1000, 9000])
def test_going_back_keeps_to_what_was_given_out(given_out: int) -> None:
    """Whatever was given out, nothing is lost and nothing comes twice."""
    resampler, whole = StreamingResampler(48000, 16000), Waveform(NOISE, 48000).at_rate(16000).samples
    resampler.resume(NOISE[:24_000], given_out)
    rest = np.concatenate([resampler.append(NOISE[24_000:]), resampler.finish()])
    np.testing.assert_array_equal(rest, whole[given_out:])


def test_at_the_right_rate_nothing_changes() -> None:
    resampler = StreamingResampler(16000, 16000)
    np.testing.assert_array_equal(resampler.append(NOISE), NOISE)
    assert resampler.given == len(NOISE)
    assert len(resampler.finish()) == 0
