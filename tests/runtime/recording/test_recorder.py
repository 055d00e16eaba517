"""What a recorder writes: whole at any moment, for the owner alone, and never more than it may."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from held_session import about

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.duplex.actions import Ask
from sottovoce.runtime.duplex.events import ReplyFinished, Tick, TypedLine
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.model import Model
from sottovoce.runtime.recording import recorder as recorder_module
from sottovoce.runtime.recording.growing_files import LinesFile
from sottovoce.runtime.recording.reading import Recording
from sottovoce.runtime.recording.recorder import MIN_TOTAL_BYTES, Recorder
from sottovoce.runtime.recording.session import RecordedSession
from sottovoce.runtime.reply import AudioChunk, ReplyDone, TextDelta


@pytest.fixture(scope="module")
def session(model: Model) -> RecordedSession:
    return about(Assistant(model).conversation(greedy=True), model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "recording"


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def in_folder(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def test_the_folder_is_there_at_once_and_private(session, folder: Path):
    with Recorder(folder, session) as recorder:
        assert Recording.open(folder).session == session
        recorder.captured(noise(512), 0)
        recorder.replied(1, AudioChunk(noise(100), 1))
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in in_folder(folder)} == {0o600}
    assert session.bundle.name == "tiny.bundle"
    assert "/" not in (folder / "recording.json").read_text(encoding="utf-8")


def test_a_folder_with_something_in_it_is_refused(session, folder: Path, tmp_path: Path):
    folder.mkdir()
    Recorder(folder, session).close()
    with pytest.raises(InputError, match="begins in an empty one"):
        Recorder(folder, session)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(InputError, match="this is a file"):
        Recorder(file, session)
    with pytest.raises(InputError, match="a recording of 1000 bytes"):
        Recorder(tmp_path / "small", session, limit_bytes=1000)
    assert not (tmp_path / "small").exists()


def test_samples_are_kept_to_the_bit_and_gaps_are_silent(session, folder: Path):
    loud = noise(1000) * np.float32(30)
    with Recorder(folder, session) as recorder:
        recorder.captured(loud[:300], 0)
        recorder.captured(loud[300:], 500)
        with pytest.raises(InputError, match="from 1100 on were captured again, after sample 1200"):
            recorder.captured(loud, 1100)
    recording = Recording.open(folder)
    with recording.microphone() as microphone:
        heard = microphone.between(0, len(microphone))
    np.testing.assert_array_equal(heard, np.concatenate([loud[:300], np.zeros(200, np.float32), loud[300:]]))
    assert recording.remarks == ("200 samples of the microphone were lost in 1 gaps, which are silent",)
    np.testing.assert_array_equal(soundfile.read(folder / "microphone.wav", dtype="float32")[0], heard)


def test_a_reply_is_kept_with_all_that_was_told_of_it(session, folder: Path):
    sound = noise(700)
    with Recorder(folder, session) as recorder:
        recorder.replied(3, TextDelta("Yes"))
        recorder.replied(3, AudioChunk(sound[:300], 1))
        recorder.replied(3, TextDelta(", 好."))
        recorder.replied(3, AudioChunk(sound[300:], 1))
        recorder.replied(3, ReplyDone("cancelled", {"total": 12.5}, "Yes", "☞", (4, 5, 6)))
        assert [line["epoch"] for line in lines(folder, "replies.jsonl")] == [3]
    reply = Recording.open(folder).replies[3]
    assert (reply.text, reply.kept, reply.state, reply.reason) == ("Yes, 好.", "Yes", "☞", "cancelled")
    assert (reply.tokens, reply.events, reply.samples) == ((4, 5, 6), 4, 700)
    assert reply.timings == {"total": 12.5}
    Recording.open(folder).check_sounds()
    np.testing.assert_array_equal(soundfile.read(folder / "reply-0003.wav", dtype="float32")[0], sound)


def test_replies_that_failed_or_have_not_ended_are_there(session, folder: Path):
    with Recorder(folder, session) as recorder:
        recorder.handled(TypedLine(0.0, "a"), (Ask(1, "a"),))
        recorder.handled(ReplyFinished(1.0, 1, "error"), ())
        recorder.handled(TypedLine(2.0, "b"), (Ask(2, "b"),))
        recorder.replied(2, TextDelta("so"))
    replies = Recording.open(folder).replies
    assert [(reply.text, reply.reason) for reply in replies.values()] == [("", "error"), ("so", None)]


def test_half_a_character_does_not_end_a_conversation(session, folder: Path):
    with Recorder(folder, session) as recorder:
        recorder.handled(TypedLine(0.0, "\udce4 é"), ())
    ((_, step),) = Recording.open(folder).steps()
    assert step.event == TypedLine(0.0, "\udce4 é")


def test_pictures_are_copied_under_names_of_the_folder(session, folder: Path, tmp_path: Path, monkeypatch):
    first, second = tmp_path / "a b.PNG", tmp_path / "../strange.exe"
    first.write_bytes(b"one")
    second.write_bytes(b"two")
    with Recorder(folder, session) as recorder:
        recorder.picture("x", first)
        recorder.handled(Tick(0.0), ())
        recorder.picture("x", second)
        recorder.picture("gone", tmp_path / "gone.png")
        recorder.picture("a folder", tmp_path)
        monkeypatch.setattr(recorder_module, "MAX_PICTURE_BYTES", 2)
        recorder.picture("large", first)
        assert recorder.stopped is None
    recording = Recording.open(folder)
    assert recording.picture("x", 0) == folder / "picture-0001.png"
    assert recording.picture("x", 1) == folder / "picture-0002"
    assert [path.read_bytes() for path in sorted(folder.glob("picture*"))] == [b"one", b"two"]
    for name, why in {
        "gone": "No such file",
        "a folder": "not a file",
        "large": "at most 2 bytes",
        "y": "no note",
    }.items():
        with pytest.raises(InputError, match=why):
            recording.picture(name, 9)


def test_recording_stops_at_its_limit_and_the_conversation_goes_on(session, folder: Path):
    told: list[str] = []
    with Recorder(folder, session, MIN_TOTAL_BYTES, told.append) as recorder:
        for second in range(20):
            recorder.captured(noise(4096), 4096 * second)
            recorder.handled(Tick(float(second)), ())
            recorder.replied(1, AudioChunk(noise(1000), 1))
        assert recorder.stopped is not None
        recorder.captured(noise(10), 0)  # whatever comes now
    assert told == [recorder.stopped] == ["it has reached its limit of 65,536 bytes"]
    assert sum(path.stat().st_size for path in in_folder(folder)) < MIN_TOTAL_BYTES
    recording = Recording.open(folder)
    assert recording.remarks == (f"recording stopped before the conversation's end: {told[0]}",)
    assert len(list(recording.steps())) in (2, 3)


@pytest.mark.parametrize("samples", [10**7, 10**12])
def test_a_gap_counts(session, folder: Path, samples: int):
    with Recorder(folder, session, MIN_TOTAL_BYTES) as recorder:
        recorder.captured(noise(10), samples)
        assert recorder.stopped is not None
    assert (folder / "microphone.wav").stat().st_size == 58


def test_a_full_disk_stops_the_recording_only(session, folder: Path, capsys):
    with Recorder(folder, session) as recorder:
        recorder.captured(noise(512), 0)
        os.close(recorder._steps._handle)
        recorder._steps._handle = os.open("/dev/full", os.O_WRONLY)
        recorder.handled(Tick(0.0), ())
        assert recorder.stopped == "it cannot be written: No space left on device"
        recorder.handled(Tick(1.0), ())
    assert capsys.readouterr().err == "recording stopped: it cannot be written: No space left on device\n"
    assert len(list(Recording.open(folder).steps())) == 0


def test_several_threads_may_tell(session, folder: Path, monkeypatch):
    append = LinesFile.append

    def slowly(file: LinesFile, line: bytes) -> None:
        size = os.fstat(file._handle).st_size
        time.sleep(1e-5)  # another thread's turn
        assert os.fstat(file._handle).st_size == size
        append(file, line)

    monkeypatch.setattr(LinesFile, "append", slowly)
    with Recorder(folder, session) as recorder:

        def tell(epoch: int) -> None:
            for _ in range(200):
                recorder.handled(Tick(1.0), ())
                recorder.replied(epoch, TextDelta("x"))
            recorder.replied(epoch, ReplyDone("stop", {}))

        threads = [threading.Thread(target=tell, args=(epoch,)) for epoch in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    recording = Recording.open(folder)
    assert len(list(recording.steps())) == 800
    assert [len(reply.text) for reply in recording.replies.values()] == [200] * 4


WRITES_FOR_EVER = """
import sys, threading
from pathlib import Path
import numpy as np
from sottovoce.runtime.duplex.events import Tick
from sottovoce.runtime.recording.reading import Recording
from sottovoce.runtime.recording.recorder import Recorder
from sottovoce.runtime.reply import AudioChunk
about = Recording.open(Path(sys.argv[1])).session
recorder = Recorder(Path(sys.argv[2]), about)
at = 0
while True:
    recorder.captured(np.full(512, at / 512, np.float32), at)
    recorder.replied(1, AudioChunk(np.full(800, at / 512, np.float32), 1))
    recorder.handled(Tick(at / 16000), ())
    at += 512
"""


@pytest.mark.parametrize("after_bytes", [1, 3_000, 20_000])
def test_a_killed_program_leaves_all_that_it_had_written(session, folder: Path, tmp_path: Path, after_bytes: int):
    Recorder(tmp_path / "about", session).close()
    program = subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path / "about"), str(folder)])
    try:
        events, deadline = folder / "events.jsonl", time.monotonic() + 60
        while not (events.exists() and events.stat().st_size >= after_bytes):
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()
    recording = Recording.open(folder)
    assert "cut off" in recording.remarks[0]
    steps = len(list(recording.steps()))
    with recording.microphone() as microphone, recording.reply_sound(1) as reply:
        assert steps <= len(microphone) // 512 <= steps + 1
        assert steps <= len(reply) // 800 <= steps + 1
        windows = len(microphone) // 512
        np.testing.assert_array_equal(microphone.between(0, 512 * windows)[::512], np.arange(windows))
    assert steps >= 1


def lines(folder: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
