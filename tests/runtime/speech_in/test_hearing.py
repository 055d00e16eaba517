"""Speech on its way in: however it is cut, paused and resumed, the embeddings are those of the whole recording."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streaming_encoders import CHUNKED, MAX_SECONDS, WIDTH, random_encoder, speech, unstreamed

from sottovoce.runtime.errors import BackendError, InputError
from sottovoce.runtime.features.audio_file import Waveform
from sottovoce.runtime.features.fbank import mel_filterbank, token_count
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.speech_in.hearing import Hearing

TOLERANCE = 1e-5
"""Of float32 rounding, where embeddings are near 1."""
LEAST_SAMPLES = 1360
"""85 ms: seven frames of 25 ms, 10 ms apart."""


def hearing(model: Model) -> Hearing:
    return Hearing(model, Stopwatch())


def parts(samples: np.ndarray, sizes: Iterable[int]) -> Iterable[np.ndarray]:
    """`samples` in portions of these sizes, repeated until the end."""
    start, given_sizes = 0, list(sizes)
    while start < len(samples):
        for size in given_sizes:
            yield samples[start : start + size]
            start += size


def streamed(model: Model, portions: Iterable[np.ndarray], rate: int = 16000) -> np.ndarray:
    listener = hearing(model)
    pieces = [listener.append(portion, rate) for portion in portions]
    return np.concatenate([*pieces, listener.finish()])


def check(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert np.isfinite(expected).all()
    assert expected.std() > 0.1, "embeddings that are all alike would prove nothing"
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    milliseconds=st.integers(85, 3000),
    sizes=st.lists(st.integers(0, 20_000), min_size=1, max_size=8).filter(any),
    seed=st.integers(0, 99),
)
def test_any_division_gives_the_embeddings_of_the_whole(
    chunked: Model, milliseconds: int, sizes: list[int], seed: int
) -> None:
    samples = speech(milliseconds / 1000, seed=seed)
    expected = unstreamed(chunked, samples)
    found = streamed(chunked, parts(samples, [*sizes, 4000]))
    assert found.shape == expected.shape == (token_count(_frames(len(samples)), chunked.manifest.audio), WIDTH)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def _frames(samples: int) -> int:
    return (samples - 400) // 160 + 1


@torch.no_grad()
@pytest.mark.parametrize("name", CHUNKED)
def test_streamed_speech_equals_pytorch(name: str, encoders: Callable[[str], Model]) -> None:
    model, samples = encoders(name), speech(2.7)
    features = mel_filterbank(Waveform(samples, 16000), model.manifest.audio)
    expected = random_encoder(CHUNKED[name])(torch.from_numpy(features)[None])[0][0].numpy()
    check(streamed(model, parts(samples, [1234])), expected)
    check(unstreamed(model, samples), expected)


def test_embeddings_come_while_one_speaks(chunked: Model) -> None:
    samples = speech(3.0)
    listener = hearing(chunked)
    given_out = [len(listener.append(portion, 16000)) for portion in parts(samples, [480])]
    rest = listener.finish()
    assert sum(1 for count in given_out if count) in range(3, 7)
    assert len(rest) < 0.4 * (sum(given_out) + len(rest))


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_another_rate_is_resampled_on_the_way(streaming: Model, rate: int) -> None:
    samples = speech(2.5, rate)
    check(streamed(streaming, parts(samples, [441, 1, 3000]), rate), unstreamed(streaming, samples, rate))


def test_integers_as_a_microphone_gives_them(streaming: Model) -> None:
    samples = (32767 * speech(1.5)).astype(np.int16)
    expected = unstreamed(streaming, samples.astype(np.float32) / 32768)
    check(streamed(streaming, parts(samples, [320])), expected)


def test_one_sample_at_a_time(streaming: Model) -> None:
    samples = speech(0.75)
    check(streamed(streaming, parts(samples, [1])), unstreamed(streaming, samples))


def test_silence_is_heard_too(chunked: Model) -> None:
    silence = np.zeros(32_000, dtype=np.float32)
    found = streamed(chunked, parts(silence, [1600]))
    np.testing.assert_allclose(found, unstreamed(chunked, silence), rtol=0, atol=TOLERANCE)


def test_the_shortest_turn(chunked: Model) -> None:
    samples = speech(1.0)[:LEAST_SAMPLES]
    found = streamed(chunked, parts(samples, [100]))
    np.testing.assert_allclose(found, unstreamed(chunked, samples), rtol=0, atol=TOLERANCE)


def test_a_turn_that_is_too_short_can_go_on(streaming: Model) -> None:
    samples, listener = speech(1.0), hearing(streaming)
    with pytest.raises(InputError, match="nothing was captured"):
        listener.finish()
    assert len(listener.append(samples[: LEAST_SAMPLES - 1], 16000)) == 0
    with pytest.raises(InputError, match="85 ms of audio, too short to hear anything in: at least 85 ms"):
        listener.finish()
    pieces = [listener.append(samples[LEAST_SAMPLES - 1 :], 16000), listener.finish()]
    check(np.concatenate(pieces), unstreamed(streaming, samples))


@pytest.mark.parametrize("rate", [16000, 44100])
def test_an_end_that_came_too_early_is_taken_back(chunked: Model, rate: int) -> None:
    samples = speech(2.4, rate)
    listener, pieces = hearing(chunked), []
    for portion in parts(samples, [rate // 5]):
        pieces.append(listener.append(portion, rate))
        before = listener.pause()
        early = np.concatenate([*pieces, listener.finish()])
        so_far = listener.waveform.samples
        np.testing.assert_allclose(early, unstreamed(chunked, so_far, rate), rtol=0, atol=TOLERANCE)
        listener.resume(before)
    check(np.concatenate([*pieces, listener.finish()]), unstreamed(chunked, samples, rate))
    np.testing.assert_array_equal(listener.waveform.samples, samples)


def test_a_snapshot_can_be_resumed_again_and_after_another_turn(streaming: Model) -> None:
    samples, other = speech(2.0, 44100), speech(2.0, 44100, seed=1)
    listener = hearing(streaming)
    first = listener.append(samples[:40_000], 44100)
    snapshot = listener.pause()
    for ending in (samples[40_000:], other[40_000:]):
        pieces = [first, listener.append(ending, 44100), listener.finish()]
        expected = unstreamed(streaming, np.concatenate([samples[:40_000], ending]), 44100)
        check(np.concatenate(pieces), expected)
        listener.reset()
        listener.append(other[:9000], 44100)
        listener.resume(snapshot)


def test_a_finished_turn_takes_nothing_more_until_it_is_reset(streaming: Model) -> None:
    samples, listener = speech(1.2), hearing(streaming)
    for _ in range(2):
        pieces = [listener.append(samples, 16000), listener.finish()]
        check(np.concatenate(pieces), unstreamed(streaming, samples))
        for again in (lambda: listener.append(samples, 16000), listener.finish, listener.pause):
            with pytest.raises(InputError, match="finished"):
                again()
        listener.reset()
        assert listener.seconds == 0


def test_a_turn_that_is_too_long_keeps_what_fits(streaming: Model) -> None:
    samples, listener = speech(MAX_SECONDS + 1), hearing(streaming)
    pieces = [listener.append(samples[:80_000], 16000)]
    for portion in (samples[80_000:], samples[:100]):
        with pytest.raises(InputError, match="longer than the 6 s"):
            listener.append(portion, 16000)
    assert listener.seconds == MAX_SECONDS
    pieces.append(listener.finish())
    check(np.concatenate(pieces), unstreamed(streaming, samples[: int(MAX_SECONDS * 16000)]))


def test_one_turn_has_one_rate(streaming: Model) -> None:
    samples, listener = speech(1.0), hearing(streaming)
    pieces = [listener.append(samples, 16000)]
    with pytest.raises(InputError, match="48000 samples a second after 16000"):
        listener.append(samples, 48000)
    check(np.concatenate([*pieces, listener.finish()]), unstreamed(streaming, samples))


def test_what_waits_stays_small(streaming: Model) -> None:
    listener, stream = hearing(streaming), streaming.bundle.graph("audio_encoder").stream
    assert stream is not None
    for portion in parts(speech(MAX_SECONDS), [700]):
        listener.append(portion, 16000)
        snapshot = listener.pause()
        assert sum(len(frames) for frames in snapshot.encoder.waiting) < 80
        assert len(snapshot.unframed) < 560
        if snapshot.encoder.state is not None:
            keys = snapshot.encoder.state.tensors["past_keys"]
            assert keys.shape[2] <= (stream.visible_frames or 0) == 8


def test_full_attention_hears_everything_at_the_end(whole: Model) -> None:
    samples, listener = speech(2.0), hearing(whole)
    for portion in parts(samples, [800]):
        assert listener.append(portion, 16000).shape == (0, WIDTH)
    before = listener.pause()
    for _ in range(2):
        check(listener.finish(), unstreamed(whole, samples))
        listener.resume(before)


def test_an_engine_that_fails_loses_nothing(streaming: Model) -> None:
    session = streaming.session("audio_encoder")
    failures = [BackendError("out of memory")]

    def open_stage(stage: object) -> object:
        if failures:
            raise failures.pop()
        return session

    model = Model(streaming.bundle, open_stage=open_stage)  # type: ignore[arg-type]
    samples, listener = speech(1.0), hearing(model)
    with pytest.raises(BackendError, match="out of memory"):
        listener.append(samples, 16000)
    check(listener.finish(), unstreamed(streaming, samples))


def test_spans_tell_where_the_time_went(streaming: Model) -> None:
    stopwatch = Stopwatch()
    listener = Hearing(streaming, stopwatch)
    listener.append(speech(1.0), 16000)
    listener.finish()
    assert {"audio_features", "load", "audio_encoder"} <= stopwatch.milliseconds().keys()
