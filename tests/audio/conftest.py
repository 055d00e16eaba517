"""A PulseAudio of our own: null sinks for loudspeakers, their monitors for microphones; nothing else hears it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest
from pulse_audio import PulseAudio, wait_until


@pytest.fixture(scope="session")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulseAudio]:
    """A daemon with its files in a folder of its own; stopped at the end, whatever happens."""
    for program in ("pulseaudio", "pactl", "parec", "pacat"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt install pulseaudio pulseaudio-utils libasound2-plugins")
    if importlib.util.find_spec("pyaudio") is None:
        pytest.skip("PyAudio is not installed: apt install portaudio19-dev, pip install 'sottovoce[audio]'")
    folder = tmp_path_factory.mktemp("pulse")
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


@pytest.fixture
def routed(pulse: PulseAudio, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Choose which sink our speaker plays into, and whose monitor our microphone hears."""

    def route(*, speaker: str = "speaker", microphone: str = "room") -> None:
        monkeypatch.setenv("PULSE_SINK", speaker)
        monkeypatch.setenv("PULSE_SOURCE", f"{microphone}.monitor")

    route()
    return route
