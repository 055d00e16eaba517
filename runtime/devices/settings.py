"""How devices are chosen, buffered and reopened: what `open_microphone` and `open_speaker` are given."""

from __future__ import annotations

from dataclasses import dataclass, field

from sottovoce.runtime.devices.errors import DeviceError

CAPTURE_RATE = 16_000
"""Samples a second that a microphone gives, whatever its device runs at."""

SPEECH_RATE = 24_000
"""Samples a second that a speaker takes, unless told otherwise."""


@dataclass(frozen=True)
class ReopenPolicy:
    """When a device that vanished is tried again: a few times, each wait longer than the last.

    Attributes:
        attempts: tries before the device is given up.
        first_wait_s: seconds before the first try.
        growth: each wait is this many times the one before,
        longest_wait_s: but not longer than this.
    """

    attempts: int = 20
    first_wait_s: float = 0.25
    growth: float = 1.6
    longest_wait_s: float = 5.0


@dataclass(frozen=True)
class DeviceSettings:
    """Which devices, and how much sound may wait in them.

    Attributes:
        microphone: an index of `list_devices`, a part of a name, or None for the system's default.
        speaker: the same for playing.
        capture_buffer_ms: what the device gathers before it hands over captured sound.
        output_buffer_ms: what the device takes at a time; a reply that is stopped ends within this.
        capture_seconds: captured sound that may wait for `read()` before the newest is lost (and counted).
        playback_seconds: speech that may wait for the loudspeaker before `write()` waits.
        drop_on_stop: the device drops what it holds of a reply that is stopped, two output buffers and what is behind
            them: silence comes sooner by so much, but without a fade. It is started anew then, in some 20 ms.
        fade_ms: else it fades out over this, so that it does not click; at most half an output buffer.
        duck_db: how much quieter `duck(True)` makes a reply.
        stall_s: a device that has not called for so long has vanished.
        reopen: when a vanished device is tried again.
        debug: lets PortAudio and ALSA write what they think to standard error.
    """

    microphone: str | int | None = None
    speaker: str | int | None = None
    capture_buffer_ms: float = 20.0
    output_buffer_ms: float = 20.0
    capture_seconds: float = 10.0
    playback_seconds: float = 120.0
    drop_on_stop: bool = True
    fade_ms: float = 5.0
    duck_db: float = -12.0
    stall_s: float = 2.5
    reopen: ReopenPolicy = field(default_factory=ReopenPolicy)
    debug: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (
            ("capture_buffer_ms", 1, 1000),
            ("output_buffer_ms", 1, 1000),
            ("capture_seconds", 0.1, 600),
            ("playback_seconds", 0.1, 3600),
            ("fade_ms", 0, self.output_buffer_ms / 2),
            ("duck_db", -80, 0),
            ("stall_s", 0.05, 60),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise DeviceError(f"{name} is {value:g}, expected {low:g} to {high:g}", fix=f"give another {name}")
