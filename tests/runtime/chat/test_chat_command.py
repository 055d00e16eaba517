"""`sottovoce chat` as people start it: files, flags, typed lines, Ctrl-C at any moment, and no microphone."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from espeak import spoken

QUESTION, OTHER = "What is seven plus five", "And what is the capital of France"
CHAT = [sys.executable, "-m", "sottovoce.runtime", "chat"]
FEW = ["--greedy", "--max-new-tokens", "4"]
Chat = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def short_speech(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with at most a second of speech a piece: random weights never say that they are done."""
    import shutil

    bundle = tmp_path_factory.mktemp("short") / "tiny.bundle"
    shutil.copytree(tiny_bundle, bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["speech"]["max_codes"] = 40
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    return bundle


@pytest.fixture
def chat(short_speech: Path) -> Chat:
    def run(*flags: object, typed: str = "", **options: object) -> subprocess.CompletedProcess[str]:
        command = [*CHAT, str(short_speech), "--threads", "1", *map(str, flags)]
        given = {"input": typed, "capture_output": True, "text": True, "timeout": 120, **options}
        return subprocess.run(command, check=False, **given)  # type: ignore[call-overload,no-any-return]

    return run


@pytest.fixture
def two_questions(tmp_path: Path) -> Path:
    quiet = np.zeros(16_000 * 3, np.float32)
    soundfile.write(tmp_path / "two.wav", np.concatenate([spoken(QUESTION), quiet, spoken(OTHER)]), 16_000)
    return tmp_path / "two.wav"


def test_a_recording_is_answered_into_a_file(chat, two_questions, tmp_path):
    done = chat("--audio-in", two_questions, "--audio-out", tmp_path / "out.wav", "--json", *FEW)
    assert done.returncode == 0, done.stderr
    turns = json.loads(done.stdout)["turns"]
    assert [turn["reason"] for turn in turns] == ["length", "length"]
    assert all(turn["played_seconds"] == turn["made_seconds"] > 0 for turn in turns)
    assert all(turn["spoken_seconds"] > 1 and turn["latency_ms"] >= 0 for turn in turns)
    assert "(spoken, " in done.stderr
    assert "\x1b" not in done.stderr
    played, rate = soundfile.read(tmp_path / "out.wav")
    seconds = soundfile.info(two_questions).duration
    assert len(played) / rate == pytest.approx(seconds + 2, abs=1.5)
    assert np.abs(played).max() > 0


def test_lines_from_a_pipe_are_answered_one_by_one(chat):
    done = chat("--typed-only", "--silent", *FEW, typed="How are you?\n/nonsense\n/image missing.png\nAnd you?\n")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("you  ")] == ["you        How are you?", "you        And you?"]
    assert any("/stop ends the reply" in line for line in lines)
    assert any("there is no picture 'missing.png'" in line for line in lines)
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--typed-only", "--audio-in", "a.wav"], "--typed-only leaves no microphone"),
        (["--silent", "--speaker", "x"], "--silent leaves no speaker"),
        (["--pause-ms", "20"], "--pause-ms"),
        (["--interruption-ms", "10"], "--interruption-ms"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_is_2(chat, flags, message):
    done = chat(*flags, "--json")
    assert done.returncode == 2
    assert message in json.loads(done.stdout)["error"]["message"]


def test_a_missing_recording_is_named(chat, tmp_path):
    done = chat("--audio-in", tmp_path / "no.wav", "--audio-out", tmp_path / "out.wav", "--json")
    assert done.returncode == 1
    assert "no.wav" in done.stdout
    assert not (tmp_path / "out.wav").exists()
    assert "Traceback" not in done.stderr


def test_without_a_microphone_the_devices_and_the_fix_are_named(chat, tmp_path):
    pytest.importorskip("pyaudio", reason="pip install 'sottovoce[audio]'")
    nowhere = {**os.environ, "PULSE_SERVER": f"unix:{tmp_path}/none", "XDG_RUNTIME_DIR": str(tmp_path)}
    done = chat("--microphone", "no such microphone", "--silent", "--json", env=nowhere)
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert "microphone" in error["message"]
    assert error["fix"]
    assert "Traceback" not in done.stderr


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PHASES = {"at once": None, "ready": "ready", "thinking or speaking": "(spoken,", "a second later": "(spoken,"}


@pytest.mark.parametrize(
    ("phase", "number"),
    [("at once", signal.SIGINT), *((phase, number) for phase in list(PHASES)[1:] for number in STOPPING)],
)
def test_ctrl_c_ends_it_in_order(short_speech, two_questions, tmp_path, phase, number):
    """A recording is heard in real time (the replies are only shown), on a terminal."""
    screen, end = pty.openpty()
    flags = ["--threads", "1", "--audio-in", two_questions, "--audio-out", tmp_path / "out.wav"]
    command = [*CHAT, short_speech, *flags, *FEW[:1], "--max-new-tokens", "200"]
    process = subprocess.Popen(list(map(str, command)), stdin=end, stdout=end, stderr=end, start_new_session=True)
    os.close(end)
    shown = b""
    try:
        deadline = time.monotonic() + 60
        while PHASES[phase] is not None and PHASES[phase] not in shown.decode(errors="replace"):
            assert time.monotonic() < deadline, shown
            shown += os.read(screen, 4096)
        time.sleep({"at once": 0.3, "a second later": 1.0}.get(phase, 0.02))
        began = time.monotonic()
        process.send_signal(number)
        with contextlib.suppress(OSError):  # the terminal is closed by its last user
            while data := os.read(screen, 4096):
                shown += data
        code = process.wait(20)
        assert time.monotonic() - began < 6
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    assert b"Traceback" not in shown
    if phase == "at once":
        assert code in (130, -signal.SIGINT)  # before or after Python was ready for it
        return
    assert code == 0, shown
    played = soundfile.info(tmp_path / "out.wav")
    assert played.samplerate == 24_000
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".wav"].count("out.wav") == 1
    assert len(list(tmp_path.iterdir())) == 2  # nothing half written is left beside it


def test_what_is_typed_on_a_terminal_is_answered(short_speech):
    screen, end = pty.openpty()
    command = [*CHAT, str(short_speech), "--typed-only", "--silent", "--threads", "1", *FEW]
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, start_new_session=True)
    os.close(end)
    shown = b""
    try:
        while b"ready" not in shown and process.poll() is None:
            shown += os.read(screen, 4096)
        os.write(screen, "Wie geht's dür\x7f\x7fir?\n".encode())
        while b"longest]" not in shown and process.poll() is None:
            shown += os.read(screen, 4096)
        os.write(screen, b"\x04")
        with contextlib.suppress(OSError):
            while data := os.read(screen, 4096):
                shown += data
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    assert "you        Wie geht's dir?" in shown.decode()
