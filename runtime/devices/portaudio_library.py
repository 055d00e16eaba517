"""The one PortAudio of this process: started with the first stream, gone with the last, and the devices it found."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sottovoce.runtime.devices.errors import DeviceError
from sottovoce.runtime.devices.interface import DeviceInfo
from sottovoce.runtime.devices.quiet import quiet_stderr

if TYPE_CHECKING:
    from sottovoce.runtime.devices.portaudio import DeviceStream

SWITCH_INTERVAL_S = 0.001
"""A callback waits this long for each thread that computes in Python. With Python's own 5 ms, two such threads cost 122
underruns in 12 s at 20 ms of buffer, with 1 ms a quarter of that; one thread 24 in 9 s, then 2."""


def import_pyaudio() -> Any:
    """The module `pyaudio`.

    Raises:
        DeviceError: it is not installed, or not for this machine.
    """
    try:
        import pyaudio  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as problem:
        fix = "apt install portaudio19-dev, then pip install 'sottovoce[audio]'"
        raise DeviceError(f"microphones and loudspeakers need PyAudio: {problem}", fix=fix) from problem
    return pyaudio


class PortAudio:
    """PortAudio is one for the whole process, and looks for devices only when it starts: so all streams share this.

    Attributes:
        lock: held while streams are opened and closed; callbacks never need it.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.streams: set[DeviceStream] = set()
        self._audio: Any = None
        self._patience_s = sys.getswitchinterval()

    def started(self, debug: bool) -> Any:
        """The `pyaudio.PyAudio`, started if it is not."""
        with self.lock:
            if self._audio is None:
                pyaudio = import_pyaudio()
                atexit.unregister(self.end)
                atexit.register(self.end)  # a second Ctrl-C may cut any `close()` short
                with quiet_stderr(debug):
                    self._audio = pyaudio.PyAudio()
                self._patience_s = sys.getswitchinterval()
                sys.setswitchinterval(min(self._patience_s, SWITCH_INTERVAL_S))
            return self._audio

    def end_if_unused(self, debug: bool) -> None:
        """Let PortAudio go after the last stream."""
        with self.lock:
            if not self.streams and self._audio is not None:
                audio, self._audio = self._audio, None
                sys.setswitchinterval(self._patience_s)
                with quiet_stderr(debug):
                    audio.terminate()

    def end(self) -> None:
        """Close whatever is still open."""
        with self.lock:
            for stream in list(self.streams):
                stream.close()
            self.end_if_unused(debug=False)

    def look_again(self, debug: bool) -> None:
        """Start PortAudio anew, so that it sees devices that came; streams that were open are opened again."""
        with self.lock:
            others = [stream for stream in self.streams if stream.is_open]
            for stream in self.streams:
                stream.shut()
            audio, self._audio = self._audio, None
            if audio is not None:
                with quiet_stderr(debug):
                    audio.terminate()
            self.started(debug)
            for stream in others:
                stream.open_again()

    def devices(self, debug: bool) -> list[DeviceInfo]:
        """What PortAudio found when it started."""
        with self.lock:
            audio = self.started(debug)
            default = {which: _default_index(audio, which) for which in ("input", "output")}
            found = [audio.get_device_info_by_index(index) for index in range(audio.get_device_count())]
        return [_device_info(entry, default) for entry in found]


PORTAUDIO = PortAudio()


def _default_index(audio: Any, which: str) -> int | None:
    try:
        info = audio.get_default_input_device_info() if which == "input" else audio.get_default_output_device_info()
    except OSError:
        return None
    return int(info["index"])


def _device_info(entry: Mapping[str, Any], default: Mapping[str, int | None]) -> DeviceInfo:
    index = int(entry["index"])
    return DeviceInfo(
        index=index,
        name=str(entry["name"]),
        inputs=int(entry["maxInputChannels"]),
        outputs=int(entry["maxOutputChannels"]),
        sample_rate=round(float(entry["defaultSampleRate"])),
        is_default_input=index == default["input"],
        is_default_output=index == default["output"],
    )
