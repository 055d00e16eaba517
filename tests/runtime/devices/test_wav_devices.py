from __future__ import annotations

import numpy as np
import pytest
import soundfile

from sottovoce.runtime.devices import DeviceSettings, SteppedClock, WavMicrophone, WavSpeaker
from sottovoce.runtime.errors import InputError


def speech(samples: int) -> np.ndarray:
    return (0.3 * np.sin(np.arange(samples) / 7)).astype(np.float32)


def test_a_recording_is_heard_as_time_goes(tmp_path):
    said = speech(16_000)
    soundfile.write(tmp_path / "said.wav", said, 16_000, subtype="FLOAT")
    clock = SteppedClock(50.0)
    heard, position = [], 0
    with WavMicrophone(tmp_path / "said.wav", clock, silence_s=0.5) as microphone:
        assert len(microphone.read().samples) == 0
        while not microphone.ended:
            clock.advance(0.03)
            captured = microphone.read()
            assert captured.start == position
            assert captured.moment == pytest.approx(50.0 + position / 16_000)
            position = captured.end
            heard.append(captured.samples)
        assert len(microphone.read().samples) == 0
    np.testing.assert_array_equal(np.concatenate(heard), np.concatenate([said, np.zeros(8000, dtype=np.float32)]))
    assert clock.now == pytest.approx(51.5, abs=0.03)


def test_a_reply_is_in_the_file_where_it_was_heard(tmp_path):
    clock = SteppedClock()
    said = speech(12_000)
    with WavSpeaker(tmp_path / "out.wav", clock=clock) as speaker:
        clock.advance(1.0)
        assert speaker.write(1, said) == 12_000
        speaker.finish(1)
        clock.advance(0.3)
        assert speaker.played(1) == 7200
        assert speaker.pending(1) == 4800
        assert speaker.ahead == 4800
        clock.advance(0.3)
        assert (speaker.played(1), speaker.pending(1)) == (12_000, 0)
    heard, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert rate == 24_000
    assert len(heard) == 1.6 * 24_000
    assert not heard[:24_000].any()
    np.testing.assert_allclose(heard[24_000:36_000], said, atol=1 / 32000)
    assert not heard[36_000:].any()


def test_a_stopped_reply_ends_within_one_block(tmp_path):
    clock = SteppedClock()
    with WavSpeaker(tmp_path / "out.wav", clock=clock) as speaker:
        speaker.write(1, np.full(24_000, 0.5, dtype=np.float32))
        clock.advance(0.505)
        speaker.stop(1)
        assert speaker.write(1, speech(100)) == 0
        clock.advance(1.0)
        assert speaker.pending(1) == 0
    heard, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert np.flatnonzero(heard)[-1] / 24_000 <= 0.505 + 0.02 + 0.005
    assert heard[12_000 - 1] == pytest.approx(0.5, abs=1e-4)


def test_the_reference_is_what_was_played(tmp_path):
    clock = SteppedClock(3.0)
    with WavSpeaker(tmp_path / "out.wav", clock=clock) as speaker:
        speaker.write(1, np.full(24_000, 0.5, dtype=np.float32))
        clock.advance(0.8)
        reference = speaker.reference(2.9, 16_000)
    assert not reference[:1590].any()
    assert len(reference) > 8000
    np.testing.assert_allclose(reference[1700:-100], 0.5, atol=0.01)


def test_an_error_leaves_no_file_and_ctrl_c_leaves_one(tmp_path):
    for error, is_there in ((ValueError, False), (KeyboardInterrupt, True)):
        clock = SteppedClock()
        path = tmp_path / f"{error.__name__}.wav"
        with pytest.raises(error), WavSpeaker(path, clock=clock) as speaker:
            speaker.write(1, speech(4800))
            clock.advance(0.2)
            raise error
        assert path.exists() == is_there


def test_what_cannot_be_read_or_written_is_said(tmp_path):
    with pytest.raises(InputError, match="no such recording"):
        WavMicrophone(tmp_path / "none.wav")
    with pytest.raises(InputError, match="folder"):
        WavSpeaker(tmp_path / "none" / "out.wav")


def test_ducking_and_levels_are_as_with_a_device(tmp_path):
    clock = SteppedClock()
    settings = DeviceSettings(duck_db=-20)
    with WavSpeaker(tmp_path / "out.wav", clock=clock, settings=settings) as speaker:
        speaker.write(1, np.full(24_000, 0.5, dtype=np.float32))
        speaker.duck(True)
        clock.advance(0.5)
        assert speaker.played(1) == 12_000
        assert speaker.levels.peak == pytest.approx(0.05, abs=1e-6)
