"""A PulseAudio daemon of our own, as the tests talk to it: sinks come and go, sound is played and recorded."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

SINKS = {"speaker": 48_000, "room": 48_000, "cd": 44_100, "phone": 8_000}
"""`speaker` is played into and recorded; what is played into `room` is what a microphone on its monitor hears."""


@dataclass
class PulseAudio:
    """The daemon, and how to talk to it."""

    environment: dict[str, str]
    modules: dict[str, str] = field(default_factory=dict)
    hasteners: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def pactl(self, *arguments: str) -> str:
        command = ["pactl", *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    def add_sink(self, name: str) -> None:
        self.modules[name] = self.pactl(
            "load-module", "module-null-sink", f"sink_name={name}", f"rate={SINKS[name]}", "channels=1"
        )
        # Left alone a null sink plays two seconds at a time, as no sound card does; who listens closely makes it one.
        command = ["parec", f"--device={name}.monitor", "--latency-msec=10", "--rate=8000", "--channels=1"]
        self.hasteners[name] = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def remove_sink(self, name: str) -> None:
        self.pactl("unload-module", self.modules.pop(name))
        self.end_hastener(name)

    def add_all(self) -> None:
        for name in SINKS:
            if name not in self.modules:
                self.add_sink(name)
        time.sleep(2.5)  # each ends its first two seconds

    def remove_all(self) -> None:
        """Nothing is left that PulseAudio could move a stream to, as it does while there is."""
        for name in list(self.modules):
            self.remove_sink(name)

    def end_hastener(self, name: str) -> None:
        hastener = self.hasteners.pop(name)
        hastener.terminate()
        hastener.wait(10)

    def play(self, sink: str, samples: np.ndarray, rate: int) -> subprocess.Popen[bytes]:
        """Play samples (n,) into a sink, by a program that is not ours; returns at once."""
        command = ["pacat", "--playback", f"--device={sink}", f"--rate={rate}", "--channels=1", "--format=float32le"]
        with tempfile.TemporaryFile() as sound:  # a pipe would make us wait until most of it has been played
            sound.write(np.asarray(samples, dtype="<f4").tobytes())
            sound.seek(0)
            return subprocess.Popen(command, env=self.environment, stdin=sound, stderr=subprocess.DEVNULL)

    def record(self, sink: str, path: Path, rate: int) -> Recorder:
        return Recorder(self, sink, path, rate)


class Recorder:
    """Records what a sink plays while a `with` block runs, by a program that is not ours."""

    def __init__(self, pulse: PulseAudio, sink: str, path: Path, rate: int) -> None:
        self._path = path
        self._command = [
            "parec",
            f"--device={sink}.monitor",
            f"--rate={rate}",
            "--channels=1",
            "--format=float32le",
            "--latency-msec=10",
        ]
        self._environment = pulse.environment

    def __enter__(self) -> Recorder:
        with self._path.open("wb") as file:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=file, stderr=subprocess.DEVNULL
            )
        wait_until(lambda: self._path.stat().st_size > 0, 10)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.3)  # what is on its way
        self._process.terminate()
        self._process.wait(10)

    @property
    def samples(self) -> np.ndarray:
        data = self._path.read_bytes()
        return np.frombuffer(data[: len(data) // 4 * 4], dtype="<f4")


class TimedRecorder:
    """Records a sink and notes when each piece came in: a bound from above for when it was heard."""

    rate = 48_000
    last_sound = 0.0
    """When the last loud sample came in, of `time.monotonic`."""

    def __init__(self, pulse: PulseAudio, sink: str) -> None:
        command = ["parec", f"--device={sink}.monitor", f"--rate={self.rate}", "--channels=1", "--format=s16le"]
        command += ["--latency-msec=5"]
        self._process = subprocess.Popen(command, env=pulse.environment, stdout=subprocess.PIPE, bufsize=0)
        self._pieces: list[np.ndarray] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while data := self._process.stdout.read(4096):
            samples = np.frombuffer(data[: len(data) // 2 * 2], dtype="<i2")
            self._pieces.append(samples)
            loud = np.flatnonzero(np.abs(samples) > 300)
            if len(loud):
                self.last_sound = time.monotonic() - (len(samples) - 1 - loud[-1]) / self.rate

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(10)

    @property
    def samples(self) -> np.ndarray:
        """All that was recorded (n,)."""
        return np.concatenate(self._pieces).astype(np.float32) / 32768


def wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            pytest.fail(f"it did not come to that within {seconds} s")
        time.sleep(0.02)


@contextmanager
def own_daemon(folder: Path) -> Iterator[PulseAudio]:
    """A daemon with its files in `folder`, to which this process and its children talk; stopped whatever happens."""
    ours = {
        "XDG_RUNTIME_DIR": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "PULSE_RUNTIME_PATH": str(folder / "pulse"),
        "PULSE_STATE_PATH": str(folder / "state"),
        "PULSE_SERVER": f"unix:{folder}/socket",
        "PULSE_COOKIE": str(folder / "cookie"),
    }
    for part in ("config", "state"):
        (folder / part).mkdir()
    (folder / "pulse").mkdir(mode=0o700)
    environment = {**os.environ, **ours}
    log = (folder / "log").open("wb")
    daemon = subprocess.Popen(
        [
            "pulseaudio",
            "-n",
            "--daemonize=no",
            "--exit-idle-time=-1",
            "--disallow-exit=no",
            "-L",
            f"module-native-protocol-unix auth-anonymous=1 socket={folder}/socket",
        ],
        env=environment,
        stdout=log,
        stderr=log,
    )
    server = PulseAudio(environment)
    before = {name: os.environ.get(name) for name in ours}
    try:
        wait_until((folder / "socket").exists, 10)
        server.add_all()
        os.environ.update(ours)
        yield server
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for name in list(server.hasteners):
            server.end_hastener(name)
        daemon.terminate()
        try:
            daemon.wait(5)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        log.close()
