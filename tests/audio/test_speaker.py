from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import soxr
from pulse_audio import PulseAudio, TimedRecorder, wait_until
from sound_likeness import explained_db

from sottovoce.runtime.devices import DeviceSettings, ReopenPolicy, open_microphone, open_speaker

pytestmark = pytest.mark.audio
PULSE = DeviceSettings(microphone="pulse", speaker="pulse")


@pytest.fixture(scope="module")
def reply(golden_dir) -> np.ndarray:
    """Spoken words (n,) at 24 kHz."""
    samples, rate = soundfile.read(golden_dir / "speech.wav", dtype="float32")
    return (0.7 * soxr.resample(samples, rate, 24_000) / np.abs(samples).max()).astype(np.float32)


def steady(seconds: float) -> np.ndarray:
    """A tone that is never near zero for long."""
    return (0.5 * np.sin(2 * np.pi * 997 * np.arange(round(24_000 * seconds)) / 24_000)).astype(np.float32)


@pytest.mark.parametrize("sink", ["speaker", "cd", "phone"])
def test_a_reply_is_heard_as_it_was_written(pulse: PulseAudio, routed, reply, sink, tmp_path, capsys):
    routed(speaker=sink)
    with pulse.record(sink, tmp_path / "heard.f32", 24_000) as recorder, open_speaker(PULSE) as speaker:
        for at in range(0, len(reply), 1920):
            assert speaker.write(3, reply[at : at + 1920]) > 0
        speaker.finish(3)
        assert speaker.ahead > 0
        wait_until(lambda: speaker.pending(3) == 0, 10)
        assert speaker.played(3) == len(reply)
        counts = speaker.counts
    assert (counts.ends, counts.own_underruns, counts.device_underruns) == (1, 0, 0)
    said = reply if sink != "phone" else soxr.resample(soxr.resample(reply, 24_000, 8_000), 8_000, 24_000)
    db, _ = explained_db(recorder.samples, said)
    with capsys.disabled():
        print(f"\nspeaker to {sink}: what was written is there, what differs {-db:.1f} dB")
    assert db > 20


def test_stop_ends_the_sound_within_one_output_buffer(pulse: PulseAudio, routed, capsys):
    """200 interruptions, by the callback's account: when the last sample was handed over, and when it is heard."""
    said = steady(1.0)
    handed_ms, heard_ms, after_frames = [], [], []
    random = np.random.default_rng(5)
    with open_speaker(PULSE) as speaker:
        fade = round(PULSE.fade_ms / 1000 * speaker.device.sample_rate)
        for epoch in range(200):
            speaker.write(epoch, said)
            wait_until(lambda: speaker.played(epoch) > 0, 5)  # noqa: B023 - called at once
            time.sleep(random.uniform(0, 0.04))
            stopped = time.monotonic()
            speaker.stop(epoch)
            time.sleep(0.05)
            assert speaker.write(epoch, said) == 0
            last = speaker.handed_over(epoch)[-1]
            length = last.frames / speaker.device.sample_rate
            handed_ms.append(1000 * max(0.0, last.moment - stopped))
            heard_ms.append(1000 * (last.plays_at + length - stopped))
            after = [block.frames for block in speaker.handed_over(epoch) if block.moment > stopped]
            after_frames.append(sum(after))
        assert speaker.counts.stops == 200
    with capsys.disabled():
        print(f"\nstop(), 200 times: last block handed over after {percentiles(handed_ms)};", end=" ")
        print(f"last sample heard, by PortAudio's latency, after {percentiles(heard_ms)}")
    assert max(after_frames) <= fade  # never more than the fade
    assert np.percentile(handed_ms, 99) <= PULSE.output_buffer_ms + 5  # the machine may be late, the queue is not


def percentiles(milliseconds: list[float]) -> str:
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {max(milliseconds):.1f} ms"


def tails_ms(pulse: PulseAudio, settings: DeviceSettings, stops: int) -> tuple[list[float], float]:
    """After how long the monitor hears the last sample of each stopped reply; and PortAudio's own latency, ms."""
    said, tails = steady(1.0), []
    recorder = TimedRecorder(pulse, "speaker")
    try:
        with open_speaker(settings) as speaker:
            for epoch in range(stops):
                speaker.write(epoch, said)
                wait_until(lambda: speaker.played(epoch) > 2400, 5)  # noqa: B023 - called at once
                stopped = time.monotonic()
                speaker.stop(epoch)
                time.sleep(0.3)
                tails.append(1000 * (recorder.last_sound - stopped))
            return tails, 1000 * speaker.latency_s
    finally:
        recorder.close()


def test_stop_as_the_monitor_hears_it(pulse: PulseAudio, routed, capsys):
    tails, latency_ms = tails_ms(pulse, PULSE, 30)
    with capsys.disabled():
        print(f"\nstop(), 30 times: the monitor hears the last sample after {percentiles(tails)}", end="; ")
        print(f"PortAudio's own latency is {latency_ms:.0f} ms")
    assert np.percentile(tails, 90) < 150


def test_a_reply_after_a_dropped_one_is_whole(pulse: PulseAudio, routed, reply, tmp_path):
    """The device is started again with nothing of the stopped reply left in it, and counts what was heard of it."""
    with pulse.record("speaker", tmp_path / "played.f32", 24_000) as recorder, open_speaker(PULSE) as speaker:
        for epoch in range(3):
            speaker.write(epoch, steady(2.0))
            wait_until(lambda: speaker.played(epoch) > 4800, 5)  # noqa: B023 - called at once
            handed = sum(block.frames for block in speaker.handed_over(epoch)) / speaker.device.sample_rate
            speaker.stop(epoch)
            time.sleep(0.1)
            assert 4800 < speaker.played(epoch) < 24_000 * handed  # what was dropped was not heard
        speaker.write(3, reply)
        speaker.finish(3)
        wait_until(lambda: speaker.pending(3) == 0, 10)
        assert speaker.played(3) == len(reply)
        assert speaker.events() == []  # it did not vanish
        assert (speaker.counts.stops, speaker.counts.own_underruns) == (3, 0)
    db, _ = explained_db(recorder.samples, reply)
    assert db > 20


def test_dropping_silences_sooner_than_a_fade(pulse: PulseAudio, routed, capsys):
    dropped, faded = (
        float(np.median(tails_ms(pulse, settings, 8)[0])) for settings in (PULSE, replace(PULSE, drop_on_stop=False))
    )
    with capsys.disabled():
        print(f"\nstop() is heard by the monitor after {dropped:.1f} ms; with a fade after {faded:.1f} ms")
    assert dropped < faded - 20


def test_starving_on_purpose_is_counted_as_ours(pulse: PulseAudio, routed, reply):
    with open_speaker(PULSE) as speaker:
        for part in range(4):
            speaker.write(1, reply[part * 4800 : (part + 1) * 4800])
            time.sleep(0.2 + 0.15)
        speaker.finish(1)
        wait_until(lambda: speaker.pending(1) == 0, 5)
        counts = speaker.counts
        assert counts.own_underruns in (3, 4)  # between the parts, and before what the filter kept back for the end
        assert counts.own_silence > 3 * 0.05 * 24_000
        assert counts.ends == 1
        speaker.write(2, reply)
        speaker.finish(2)
        wait_until(lambda: speaker.pending(2) == 0, 10)
        assert speaker.counts.own_underruns == counts.own_underruns
        assert speaker.counts.ends == 2


def test_a_speaker_that_vanishes_goes_on_where_it_was(pulse: PulseAudio, routed, tmp_path):
    settings = DeviceSettings(speaker="pulse", reopen=ReopenPolicy(attempts=20, first_wait_s=0.2))
    ramp = np.linspace(0.1, 0.9, 10 * 24_000, dtype=np.float32)  # each value tells its place
    with open_speaker(settings) as speaker:
        speaker.write(1, ramp)
        speaker.finish(1)
        wait_until(lambda: speaker.played(1) > 12_000, 5)
        pulse.remove_all()
        events = []
        wait_until(lambda: bool(events.extend(speaker.events()) or events), 5)
        assert [event.kind for event in events] == ["vanished"]
        time.sleep(0.7)
        heard_before = speaker.played(1)
        time.sleep(0.2)
        assert speaker.played(1) == heard_before
        pulse.add_all()
        wait_until(lambda: bool(events.extend(speaker.events()) or events[-1].kind == "reopened"), 15)
        with pulse.record("speaker", tmp_path / "after.f32", 24_000) as recorder:
            time.sleep(1.0)
        after = recorder.samples[recorder.samples > 0.09][240:]  # without the edge that resampling rounds
        assert len(after) > 12_000
        place = (after - 0.1) / 0.8 * len(ramp)
        assert place.min() > heard_before  # nothing twice
        assert np.all(np.diff(after) > -0.002)
        assert speaker.pending(1) > 0
        speaker.stop(1)
        assert speaker.pending(1) == 0


def test_a_speaker_that_never_comes_back_is_given_up(pulse: PulseAudio, routed):
    from sottovoce.runtime.devices import DeviceError

    settings = DeviceSettings(speaker="pulse", reopen=ReopenPolicy(attempts=3, first_wait_s=0.1))
    try:
        with open_speaker(settings) as speaker:
            speaker.write(1, steady(5.0))
            wait_until(lambda: speaker.played(1) > 0, 5)
            pulse.remove_all()
            events = []
            wait_until(lambda: bool(events.extend(speaker.events()) or len(events) >= 2), 15)
            assert [event.kind for event in events] == ["vanished", "given_up"]
            assert speaker.pending(1) == 0
            with pytest.raises(DeviceError, match="did not come back"):
                speaker.write(2, steady(0.1))
    finally:
        pulse.add_all()


def test_both_at_once_and_the_reference_lies_under_the_echo(pulse: PulseAudio, routed, reply):
    """The microphone hears the speaker's own sink: the reference must be it, at the same moments."""
    routed(speaker="room", microphone="room")
    heard, references = [], []
    with open_microphone(PULSE) as microphone, open_speaker(PULSE) as speaker:
        speaker.write(1, reply)
        speaker.finish(1)
        deadline = time.monotonic() + len(reply) / 24_000 + 0.5
        while time.monotonic() < deadline:
            time.sleep(0.02)
            captured = microphone.read()
            heard.append(captured.samples)
            references.append(speaker.reference(captured.moment, len(captured.samples)))
    echo, reference = np.concatenate(heard), np.concatenate(references)
    assert np.sum(reference**2) > 1
    size = 1 << (2 * len(echo)).bit_length()
    product = np.fft.irfft(np.fft.rfft(echo, size) * np.conj(np.fft.rfft(reference, size)), size)
    lag = int(np.argmax(product))
    lag = lag - size if lag > size // 2 else lag
    assert abs(lag) / 16_000 < 0.1  # within what a canceller looks back


def test_many_openings_leave_no_thread_and_no_file_behind(pulse: PulseAudio, routed):
    def count() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    with open_speaker(PULSE), open_microphone(PULSE):
        pass
    before = count()
    for _ in range(5):
        with open_microphone(PULSE) as microphone, open_speaker(PULSE) as speaker:
            speaker.write(1, steady(0.2))
            microphone.read()
    after = count()
    assert after[0] == before[0]
    assert after[1] <= before[1] + 1


def test_intervals_of_epochs_do_not_overlap(pulse: PulseAudio, routed):
    """Replies one after another: each begins when the one before was handed over."""
    with open_speaker(PULSE) as speaker:
        for epoch in range(4):
            speaker.write(epoch, steady(0.1))
        speaker.finish(3)
        wait_until(lambda: speaker.pending(3) == 0, 5)
        blocks = [speaker.handed_over(epoch) for epoch in range(4)]
        assert speaker.counts.own_underruns == 0
    for before, after in pairwise(blocks):
        assert before[-1].moment <= after[0].moment


def test_the_microphone_does_not_hear_the_speaker(pulse: PulseAudio, routed, reply, capsys):
    """Echo through two real streams on one sink: the delay is whatever the system makes it."""
    from sottovoce.runtime.devices import DeviceError, EchoCancellingMicrophone

    routed(speaker="room", microphone="room")
    said = np.tile(reply, 5)

    def heard(cancelling: bool) -> np.ndarray:
        with open_speaker(PULSE) as speaker, open_microphone(PULSE) as plain:
            microphone = EchoCancellingMicrophone(plain, speaker) if cancelling else plain
            speaker.write(1, said)
            speaker.finish(1)
            pieces = []
            deadline = time.monotonic() + len(said) / 24_000 + 0.5
            while time.monotonic() < deadline:
                time.sleep(0.02)
                pieces.append(microphone.read().samples)
        return np.concatenate(pieces)

    try:
        cleaned = heard(True)
    except DeviceError as problem:
        pytest.skip(str(problem))
    echo = heard(False)
    half = len(echo) // 2
    reduction = 10 * np.log10(np.sum(echo[half:-8000] ** 2) / np.sum(cleaned[half:-8000] ** 2))
    with capsys.disabled():
        print(f"\nthe speaker's own sink as microphone: echo reduced by {reduction:.1f} dB")
    assert reduction > 12


def test_ctrl_c_while_opening_and_while_talking_leaves_nothing_open(pulse: PulseAudio, routed):
    """A process is interrupted at moments all over its opening, talking and closing; it always ends soon."""
    code = (
        "import sys, time, numpy as np\n"
        "from sottovoce.runtime.devices import DeviceSettings, open_microphone, open_speaker\n"
        "settings = DeviceSettings(microphone='pulse', speaker='pulse')\n"
        "print('ready', flush=True)\n"
        "try:\n"
        "    for epoch in range(100):\n"
        "        with open_microphone(settings) as microphone, open_speaker(settings) as speaker:\n"
        "            speaker.write(epoch, np.ones(2400, dtype=np.float32)); time.sleep(0.05); microphone.read()\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    random = np.random.default_rng(8)
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(random.uniform(0, 0.8))
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=10)
        assert child.returncode in (130, -signal.SIGINT), errors
        assert pulse.pactl("list", "short", "sink-inputs") == ""
