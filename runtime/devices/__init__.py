"""Microphones and loudspeakers, or WAV files in their place.

    from sottovoce.runtime.devices import DeviceSettings, open_microphone, open_speaker

    with open_microphone(settings) as microphone, open_speaker(settings, sample_rate=24000) as speaker:
        captured = microphone.read()
        speaker.write(epoch, samples)

PyAudio is imported when a device is opened or listed, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sottovoce.runtime.devices.echo_canceller import EchoCanceller, EchoCancellingMicrophone, EchoSettings
from sottovoce.runtime.devices.errors import DeviceError
from sottovoce.runtime.devices.interface import (
    Captured,
    CaptureDevice,
    DeviceEvent,
    DeviceInfo,
    Levels,
    PlaybackDevice,
)
from sottovoce.runtime.devices.settings import CAPTURE_RATE, SPEECH_RATE, DeviceSettings, ReopenPolicy
from sottovoce.runtime.devices.wav_devices import SteppedClock, WavMicrophone, WavSpeaker

if TYPE_CHECKING:
    from sottovoce.runtime.devices.microphone import Microphone
    from sottovoce.runtime.devices.speaker import Speaker

__all__ = [
    "CAPTURE_RATE",
    "SPEECH_RATE",
    "CaptureDevice",
    "Captured",
    "DeviceError",
    "DeviceEvent",
    "DeviceInfo",
    "DeviceSettings",
    "EchoCanceller",
    "EchoCancellingMicrophone",
    "EchoSettings",
    "Levels",
    "PlaybackDevice",
    "ReopenPolicy",
    "SteppedClock",
    "WavMicrophone",
    "WavSpeaker",
    "list_devices",
    "open_microphone",
    "open_speaker",
]


def list_devices(*, debug: bool = False) -> list[DeviceInfo]:
    """The devices that the system lists; empty when there are none.

    Raises:
        DeviceError: PyAudio is not installed.
    """
    from sottovoce.runtime.devices.portaudio_library import PORTAUDIO

    try:
        return PORTAUDIO.devices(debug)
    finally:
        PORTAUDIO.end_if_unused(debug)


def open_microphone(settings: DeviceSettings | None = None) -> Microphone:
    """A microphone that captures already; use it as a context manager.

    Raises:
        DeviceError: there is no such microphone (the message lists what there is), or it cannot be opened.
    """
    from sottovoce.runtime.devices.microphone import Microphone

    return Microphone(settings or DeviceSettings())


def open_speaker(settings: DeviceSettings | None = None, sample_rate: int = SPEECH_RATE) -> Speaker:
    """A loudspeaker that plays what is written to it; use it as a context manager.

    Raises:
        DeviceError: there is no such loudspeaker (the message lists what there is), or it cannot be opened.
    """
    from sottovoce.runtime.devices.speaker import Speaker

    return Speaker(settings or DeviceSettings(), sample_rate)
