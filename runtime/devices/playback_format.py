"""How a speaker plays, and what was not smooth about it."""

from __future__ import annotations

from dataclasses import dataclass

from sottovoce.runtime.devices.settings import SPEECH_RATE, DeviceSettings


@dataclass(frozen=True)
class PlaybackFormat:
    """How a speaker plays.

    Attributes:
        device_rate: frames a second that the device takes.
        sample_rate: samples a second of the speech.
        ring_seconds: speech that may wait for the device.
        fade_s: how long a stopped reply fades out.
        duck_gain: what a ducked reply is multiplied with.
    """

    device_rate: int
    sample_rate: int = SPEECH_RATE
    ring_seconds: float = 120.0
    fade_s: float = 0.005
    duck_gain: float = 0.25

    @classmethod
    def of(cls, settings: DeviceSettings, device_rate: int, sample_rate: int) -> PlaybackFormat:
        """What the settings ask for, on a device with this rate."""
        gain = 10 ** (settings.duck_db / 20)
        return cls(device_rate, sample_rate, settings.playback_seconds, settings.fade_ms / 1000, gain)


@dataclass(frozen=True)
class PlaybackCounts:
    """What was not smooth so far.

    Attributes:
        own_underruns: times that a reply went on but was not written fast enough,
        own_silence: and the samples of silence that were heard instead.
        device_underruns: times that the device said it had nothing to play.
        ends: replies that were played to their natural end; not an underrun.
        stops: replies that were stopped while they were heard.
    """

    own_underruns: int = 0
    own_silence: int = 0
    device_underruns: int = 0
    ends: int = 0
    stops: int = 0
