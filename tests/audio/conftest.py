"""A PulseAudio of our own: null sinks for loudspeakers, their monitors for microphones; nothing else hears it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator

import pytest
from pulse_audio import PulseAudio, own_daemon


@pytest.fixture(scope="session")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulseAudio]:
    """A daemon with its files in a folder of its own; stopped at the end, whatever happens."""
    for program in ("pulseaudio", "pactl", "parec", "pacat"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt install pulseaudio pulseaudio-utils libasound2-plugins")
    if importlib.util.find_spec("pyaudio") is None:
        pytest.skip("PyAudio is not installed: apt install portaudio19-dev, pip install 'sottovoce[audio]'")
    folder = tmp_path_factory.mktemp("pulse")
    with own_daemon(folder) as server:
        yield server


@pytest.fixture
def routed(pulse: PulseAudio, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Choose which sink our speaker plays into, and whose monitor our microphone hears."""

    def route(*, speaker: str = "speaker", microphone: str = "room") -> None:
        monkeypatch.setenv("PULSE_SINK", speaker)
        monkeypatch.setenv("PULSE_SOURCE", f"{microphone}.monitor")

    route()
    return route
