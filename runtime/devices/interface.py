"""What every microphone and speaker here gives and takes, with a device behind it or a file."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DeviceInfo:
    """A device as the system lists it.

    Attributes:
        index: what the audio system calls it; changes when devices come and go.
        name: what people call it.
        inputs: channels it captures, 0 for a loudspeaker.
        outputs: channels it plays, 0 for a microphone.
        sample_rate: its own, in samples a second.
        is_default_input: the system's choice for capturing.
        is_default_output: the system's choice for playing.
    """

    index: int
    name: str
    inputs: int
    outputs: int
    sample_rate: int
    is_default_input: bool = False
    is_default_output: bool = False


@dataclass(frozen=True)
class Captured:
    """A stretch of captured sound without a gap in it.

    Attributes:
        samples: float32 (n,) at 16 kHz in -1…1; n is 0 when nothing new is there.
        start: position of the first sample in the capture stream, which counts lost samples too: where it is more than
            the end of the stretch before, the samples between were lost.
        overruns: losses noticed since the read before.
        moment: when the first sample was captured, on the clock of the device (seconds).
    """

    samples: Samples
    start: int
    overruns: int = 0
    moment: float = 0.0

    @property
    def end(self) -> int:
        """Position after the last sample."""
        return self.start + len(self.samples)


@dataclass(frozen=True)
class Levels:
    """How loud it is, for a display: `rms` and `peak` of the last block in 0…1, samples `clipped` since the start."""

    rms: float = 0.0
    peak: float = 0.0
    clipped: int = 0


@dataclass(frozen=True)
class DeviceEvent:
    """A device vanished, is there again, or was given up; `moment` on the clock of the device, `detail` for people."""

    kind: Literal["vanished", "reopened", "given_up"]
    device: str
    moment: float
    detail: str = ""


class CaptureDevice(Protocol):
    """What listens: a `Microphone` or a `WavMicrophone`."""

    def read(self) -> Captured:
        """What was captured since the last call, at most up to the next gap; never waits."""

    def events(self) -> list[DeviceEvent]:
        """What happened to the device since the last call."""

    @property
    def levels(self) -> Levels:
        """How loud it is now."""

    @property
    def ended(self) -> bool:
        """Nothing more will come."""

    def close(self) -> None:
        """Let go of the device; again is harmless."""

    def __enter__(self) -> CaptureDevice: ...

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None: ...


class PlaybackDevice(Protocol):
    """What speaks: a `Speaker` or a `WavSpeaker`. Epochs number the replies, newer ones higher or not."""

    def write(self, epoch: int, samples: Samples) -> int:
        """Queue samples (n,) of a reply; how many were taken: 0 once it was stopped, finished or superseded."""

    def finish(self, epoch: int) -> None:
        """The reply has no more samples; what is queued is played to its end."""

    def stop(self, epoch: int) -> None:
        """Silence the reply within one output buffer; nothing of it is played after, also if it is written later."""

    def played(self, epoch: int) -> int:
        """Samples of the reply that were heard."""

    def pending(self, epoch: int) -> int:
        """Samples of the reply that are still to be heard; 0 when it was stopped."""

    def duck(self, quieter: bool) -> None:
        """Play quieter, or as loud as before."""

    def reference(self, moment: float, count: int) -> Samples:
        """What left the loudspeaker from `moment` on: at most `count` samples at 16 kHz, as far as it is known yet."""

    def events(self) -> list[DeviceEvent]:
        """What happened to the device since the last call."""

    @property
    def levels(self) -> Levels:
        """How loud it is now."""

    @property
    def ahead(self) -> int:
        """Samples that are queued ahead of what the device has taken."""

    def close(self) -> None:
        """Let go of the device; again is harmless."""

    def __enter__(self) -> PlaybackDevice: ...

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None: ...
