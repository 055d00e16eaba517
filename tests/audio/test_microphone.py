from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import soxr
from pulse_audio import SINKS, PulseAudio, wait_until
from sound_likeness import explained_db

from sottovoce.runtime.devices import (
    CAPTURE_RATE,
    Captured,
    DeviceSettings,
    ReopenPolicy,
    list_devices,
    open_microphone,
)

pytestmark = pytest.mark.audio
PULSE = DeviceSettings(microphone="pulse", speaker="pulse")


@pytest.fixture(scope="module")
def speech(golden_dir) -> np.ndarray:
    """Spoken words (n,) at 16 kHz, loud enough to stand out."""
    samples, rate = soundfile.read(golden_dir / "speech.wav", dtype="float32")
    return (0.7 * soxr.resample(samples, rate, 16_000) / np.abs(samples).max()).astype(np.float32)


def listen(microphone, seconds: float) -> list[Captured]:
    heard = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.03)
        if len((captured := microphone.read()).samples):
            heard.append(captured)
    return heard


def test_the_pulse_device_is_listed(pulse: PulseAudio, capfd):
    names = [device.name for device in list_devices()]
    assert "pulse" in names
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("sink", ["room", "cd", "phone"])
def test_what_is_said_into_the_microphone_is_read_whole(pulse, routed, speech, sink, capfd):
    routed(microphone=sink)
    with open_microphone(PULSE) as microphone:
        listen(microphone, 0.3)
        player = pulse.play(sink, soxr.resample(speech, 16_000, SINKS[sink]), SINKS[sink])
        heard = listen(microphone, len(speech) / 16_000 + 1.0)
        player.wait(10)
        assert microphone.counts.ring_overruns == 0
        assert microphone.counts.lost_samples == 0, microphone.counts
    for before, after in pairwise(heard):
        assert after.start == before.end
    captured = np.concatenate([piece.samples for piece in heard])
    assert len(captured) == pytest.approx((len(speech) / 16_000 + 1.0) * CAPTURE_RATE, abs=0.2 * CAPTURE_RATE)
    said = speech
    if sink == "phone":  # an 8 kHz device hears only half of it
        said = soxr.resample(soxr.resample(speech, 16_000, 8_000), 8_000, 16_000)
    db, at = explained_db(captured, said)
    assert capfd.readouterr().err == ""
    with capfd.disabled():
        print(f"\nmicrophone on a sink of {SINKS[sink]} Hz: what was said is there, what differs {-db:.1f} dB, at {at}")
    assert db > 25


def test_reading_too_late_is_counted_and_jumps(pulse, routed):
    routed(microphone="room")
    settings = DeviceSettings(microphone="pulse", capture_seconds=0.5)
    with open_microphone(settings) as microphone:
        time.sleep(1.5)
        first = microphone.read()
        time.sleep(0.2)
        rest = microphone.read()  # what the filter kept back before the gap
        second = microphone.read()
        assert microphone.counts.ring_overruns == 1
        assert first.overruns == 1
        assert rest.start == first.end
        assert rest.end == pytest.approx(0.5 * CAPTURE_RATE, abs=0.05 * CAPTURE_RATE)
        lost = microphone.counts.lost_samples
        assert lost == pytest.approx(1.0 * CAPTURE_RATE, abs=0.25 * CAPTURE_RATE)
        assert second.start - rest.end == pytest.approx(lost, abs=2)


def test_a_microphone_that_vanishes_and_comes_back(pulse, routed, speech):
    routed(microphone="room")
    settings = DeviceSettings(microphone="pulse", stall_s=0.5, reopen=ReopenPolicy(attempts=20, first_wait_s=0.2))
    with open_microphone(settings) as microphone:
        before = listen(microphone, 0.5)
        pulse.remove_all()
        removed = time.monotonic()
        events = []

        def look() -> bool:
            microphone.read()
            events.extend(microphone.events())
            return bool(events)

        wait_until(look, 5)
        noticed = time.monotonic() - removed
        assert [event.kind for event in events] == ["vanished"]
        time.sleep(1.0)
        microphone.read()
        added = time.monotonic()
        pulse.add_all()
        wait_until(lambda: look() and events[-1].kind == "reopened", 10)
        back = events[-1].moment - added
        assert [event.kind for event in events] == ["vanished", "reopened"]
        print(f"\nnoticed after {noticed:.2f} s, back after {back:.2f} s")
        player = pulse.play("room", soxr.resample(speech, 16_000, 48_000), 48_000)
        after = listen(microphone, len(speech) / 16_000 + 1.0)
        player.wait(10)
    gap = after[0].start - before[-1].end
    assert gap > 0.3 * CAPTURE_RATE
    assert after[0].start / CAPTURE_RATE == pytest.approx(after[0].moment - before[0].moment, abs=0.1)
    db, _ = explained_db(np.concatenate([piece.samples for piece in after]), speech)
    assert db > 25
