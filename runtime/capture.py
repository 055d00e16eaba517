"""Speech as it is captured, until its end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.features.audio_file import Waveform, read_audio

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CaptureSnapshot:
    """What was captured by a moment: parts (n,), which are never changed, and their rate."""

    parts: tuple[Samples, ...]
    sample_rate: int | None


class CapturedSpeech:
    """What the user has said so far in this turn.

    Args:
        max_seconds: what the model hears at most; no more than this is kept.
    """

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._parts: list[Samples] = []
        self._sample_rate: int | None = None
        self._count = 0

    @property
    def sample_rate(self) -> int | None:
        """Of this turn; None: nothing was captured."""
        return self._sample_rate

    @property
    def count(self) -> int:
        """Samples of this turn."""
        return self._count

    @property
    def seconds(self) -> float:
        """Duration of this turn so far."""
        return self._count / self._sample_rate if self._sample_rate else 0.0

    @property
    def waveform(self) -> Waveform:
        """The turn so far.

        Raises:
            InputError: nothing was captured.
        """
        if self._sample_rate is None:
            raise InputError("nothing was captured", fix="call accept_waveform() before end_of_speech()")
        return Waveform(self.between(0, self._count), self._sample_rate)

    def between(self, first: int, last: int) -> Samples:
        """Samples from `first` up to `last`, which is not among them."""
        found: list[Samples] = []
        end = self._count
        for part in reversed(self._parts):  # what is wanted is most often the newest
            start = end - len(part)
            if start < last and first < end:
                found.append(part[max(first - start, 0) : last - start])
            if start <= first:
                break
            end = start
        return np.concatenate(found[::-1]) if found else np.zeros(0, dtype=np.float32)

    def pause(self) -> CaptureSnapshot:
        """What was captured so far."""
        return CaptureSnapshot(tuple(self._parts), self._sample_rate)

    def resume(self, snapshot: CaptureSnapshot) -> None:
        """Go back to it."""
        self._parts = list(snapshot.parts)
        self._sample_rate = snapshot.sample_rate
        self._count = sum(len(part) for part in snapshot.parts)

    def reset(self) -> None:
        """Begin a new turn."""
        self._parts = []
        self._sample_rate = None
        self._count = 0

    def append(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        """Take what was just captured, (n,) floats in -1…1 or int16; nothing is fine.

        Raises:
            InputError: another rate than before, not audio, or longer than the model hears: what fits was kept.
        """
        if np.size(samples) == 0:
            return
        waveform = read_audio((samples, sample_rate))
        if self._sample_rate not in (None, sample_rate):
            message = f"{sample_rate} samples a second after {self._sample_rate} in the same turn"
            raise InputError(message, fix="capture one turn at one rate")
        self._sample_rate = sample_rate
        room = int(self._max_seconds * sample_rate) - self._count
        kept = waveform.samples[:room]
        self._parts.append(kept)
        self._count += len(kept)
        if len(kept) < len(waveform.samples):
            message = (
                f"the turn is longer than the {self._max_seconds:.0f} s that the model hears; the rest is not kept"
            )
            raise InputError(message, fix="end the turn with end_of_speech()")

    def take(self) -> Waveform:
        """The whole turn; a new one begins.

        Raises:
            InputError: nothing was captured.
        """
        waveform = self.waveform
        self.reset()
        return waveform
