from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from sottovoce.runtime.devices import (
    Captured,
    DeviceError,
    EchoCanceller,
    EchoCancellingMicrophone,
    EchoSettings,
    SteppedClock,
    WavMicrophone,
    WavSpeaker,
)
from sottovoce.runtime.devices.speexdsp import load_speexdsp

RATE = 16_000
try:
    load_speexdsp()
except DeviceError as problem:
    pytest.skip(str(problem), allow_module_level=True)


@pytest.fixture(scope="module")
def voices(golden_dir) -> tuple[np.ndarray, np.ndarray]:
    """Fifteen seconds of an assistant and, from the tenth second on, of a person, at equal loudness; 16 kHz."""
    said, rate = soundfile.read(golden_dir / "speech.wav", dtype="float32")
    parts = [soxr.resample(said, rate, RATE * factor) for factor in (1.0, 1.13, 0.9, 1.21, 0.95)]
    assistant = np.resize(np.concatenate([*parts, *parts[::-1]]), 15 * RATE)
    person = np.resize(soxr.resample(said, rate, RATE * 0.8), 15 * RATE)
    person[: 10 * RATE] = 0
    return loud(assistant), loud(person)


def loud(samples: np.ndarray) -> np.ndarray:
    return (0.07 * samples / np.sqrt(np.mean(samples[samples != 0] ** 2))).astype(np.float32)


def in_a_room(played: np.ndarray, delay_s: float = 0.03) -> np.ndarray:
    """A direct way and 0.2 s of decaying reflections, 6 dB below what was played."""
    taps = np.arange(int(0.15 * RATE))
    room = 0.3 * np.random.default_rng(3).standard_normal(len(taps)) * np.exp(-6.9 * taps / (0.2 * RATE))
    room[0] = 2.0
    room *= 0.5 / np.sqrt(np.sum(room**2))
    heard = np.convolve(played, room)[: len(played)]
    delay = round(delay_s * RATE)
    noise = 3e-4 * np.random.default_rng(4).standard_normal(len(played))
    return (np.concatenate([np.zeros(delay), heard])[: len(played)] + noise).astype(np.float32)


def decibels(before: np.ndarray, after: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(np.square(before)) / np.sum(np.square(after))))


def cleaned(captured: np.ndarray, played: np.ndarray, form: EchoSettings) -> np.ndarray:
    canceller = EchoCanceller(form)
    pieces = [canceller.cancel(captured[at : at + 700], played[at : at + 700]) for at in range(0, len(captured), 700)]
    canceller.close()
    return np.concatenate(pieces)


@pytest.mark.parametrize(("suppress", "at_least_db"), [(False, 14), (True, 21)])
def test_the_echo_of_speech_is_reduced(voices, suppress, at_least_db, capsys):
    assistant, _ = voices
    echo = in_a_room(assistant)
    left = cleaned(echo, assistant, EchoSettings(suppress=suppress))
    learned = slice(3 * RATE, 15 * RATE - 1600)
    reduction = decibels(echo[learned], left[learned])
    with capsys.disabled():
        print(f"\necho return loss enhancement, suppress={suppress}: {reduction:.1f} dB")
    assert reduction > at_least_db


@pytest.mark.parametrize("suppress", [False, True])
def test_a_person_who_speaks_at_the_same_time_is_heard(voices, suppress, capsys):
    assistant, person = voices
    captured = in_a_room(assistant) + person
    form = EchoSettings(suppress=suppress)
    heard = cleaned(captured, assistant, form)
    both = slice(round(10.5 * RATE), 15 * RATE - 1600)
    before = likeness(captured[both], person[both])
    after = likeness(heard[both], person[both])
    with capsys.disabled():
        print(f"\ndouble talk, suppress={suppress}: likeness to the person {before:.3f} before, {after:.3f} after")
    assert after > before
    assert after > 0.9
    assert abs(decibels(person[both], heard[both])) < 3  # neither swallowed nor joined by the echo


def likeness(heard: np.ndarray, person: np.ndarray) -> float:
    """Correlation of the two spectrograms' magnitudes: blind to delays of a few samples."""

    def spectrogram(samples: np.ndarray) -> np.ndarray:
        frames = np.lib.stride_tricks.sliding_window_view(samples, 512)[::160]
        return np.abs(np.fft.rfft(frames * np.hanning(512)))

    return float(
        max(
            np.corrcoef(spectrogram(heard)[lag:-3].ravel(), spectrogram(person)[: -3 - lag].ravel())[0, 1]
            for lag in range(3)
        )
    )


def test_without_echo_a_voice_passes(voices):
    _, person = voices
    silence = np.zeros_like(person)
    heard = cleaned(person, silence, EchoSettings())
    both = slice(round(10.5 * RATE), 15 * RATE - 1600)
    assert likeness(heard[both], person[both]) > 0.97
    assert abs(decibels(person[both], heard[both])) < 1


@given(sizes=st.lists(st.integers(0, 900), max_size=12))
@settings(max_examples=25, deadline=None)
def test_how_the_sound_is_cut_makes_no_difference(sizes):
    sound = (0.1 * np.random.default_rng(1).standard_normal(sum(sizes))).astype(np.float32)
    whole = EchoCanceller().cancel(sound, np.roll(sound, 5))
    canceller, pieces, at = EchoCanceller(), [np.zeros(0, dtype=np.float32)], 0
    for size in sizes:
        pieces.append(canceller.cancel(sound[at : at + size], np.roll(sound, 5)[at : at + size]))
        at += size
        assert canceller.waiting == at % 320
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="expected as many"):
        EchoCanceller().cancel(np.zeros(3, dtype=np.float32), np.zeros(4, dtype=np.float32))


def test_a_microphone_that_cancels_is_read_as_any_other(voices, tmp_path):
    """The recording is the echo of what the speaker plays from the same moment on."""
    assistant, _ = voices
    clock = SteppedClock()
    with (
        WavSpeaker(tmp_path / "out.wav", clock=clock) as speaker,
        EchoCancellingMicrophone(
            WavMicrophone((in_a_room(assistant, 0.06), RATE), clock, silence_s=0), speaker, EchoSettings(lead_ms=0)
        ) as microphone,
    ):
        speaker.write(1, soxr.resample(assistant, RATE, 24_000))
        speaker.finish(1)
        clock.advance(0.1)
        pieces, position = [], 0
        while not microphone.ended:
            speaker.played(1)
            captured = microphone.read()
            if len(captured.samples):
                assert captured.start == position
                assert captured.moment == pytest.approx(position / RATE, abs=1e-6)
                assert clock.now - captured.moment < len(captured.samples) / RATE + 0.15  # held back, but not for long
                position = captured.end
                pieces.append(captured.samples)
            clock.advance(0.03)
    heard = np.concatenate(pieces)
    echo = in_a_room(assistant, 0.06)
    assert decibels(echo[5 * RATE : 14 * RATE], heard[5 * RATE : 14 * RATE]) > 15


class Gapped:
    """A microphone whose stretches are given."""

    def __init__(self, stretches: list[Captured]) -> None:
        self._stretches = stretches
        self.ended = False

    def read(self) -> Captured:
        return self._stretches.pop(0) if self._stretches else Captured(np.zeros(0, dtype=np.float32), 0)


def test_gaps_stay_where_they_are(tmp_path):
    sound = (0.1 * np.random.default_rng(1).standard_normal(8000)).astype(np.float32)
    stretches = [Captured(sound[at : at + 500], at, 0, at / RATE) for at in (0, 500, 1000, 4000, 4500, 5000)]
    clock = SteppedClock()
    with WavSpeaker(tmp_path / "out.wav", clock=clock) as speaker:
        clock.advance(5.0)
        microphone = EchoCancellingMicrophone(Gapped(stretches), speaker, EchoSettings(suppress=False))
        given = [captured for _ in range(12) if len((captured := microphone.read()).samples)]
    ranges = [(captured.start, captured.end) for captured in given]
    assert ranges[0][0] == 0
    ends = [end for _, end in ranges if end <= 1500]
    assert ends[-1] == 1500  # nothing before the gap is lost
    starts = [start for start, _ in ranges if start >= 1500]
    assert starts[0] == 4000
    for (_, end), (start, _) in pairwise(ranges):
        assert start in (end, 4000)
    for captured in given:
        part = sound[captured.start : captured.end]
        assert np.corrcoef(captured.samples, part)[0, 1] > 0.95


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    import ctypes

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(DeviceError, match="needs the library speexdsp") as error:
        EchoCanceller()
    assert "apt install libspeexdsp1" in error.value.fix
