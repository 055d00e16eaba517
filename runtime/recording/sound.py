"""A recorded WAV, read range by range: hours of it need no memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import soundfile

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.recording.lines import COPY_AGAIN

BLOCK_SAMPLES = 1 << 18


def float_bytes(samples: npt.NDArray[np.float32]) -> bytes:
    """Samples as what their SHA-256 is taken of: little-endian float32."""
    return np.ascontiguousarray(samples, dtype="<f4").tobytes()


class RecordedSound:
    """Mono samples of a file; use as a context manager, or `close` it.

    Args:
        path: the file.
        sample_rate: what it must be.

    Raises:
        InputError: not a WAV, of several channels, or of another rate.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        self.path = path
        try:
            self._file = soundfile.SoundFile(path)
        except (soundfile.SoundFileError, RuntimeError, OSError) as problem:
            raise InputError(f"not a recording that can be read: {problem}", file=path, fix=COPY_AGAIN) from problem
        rate, channels = self._file.samplerate, self._file.channels
        if rate != sample_rate or channels != 1:
            self._file.close()
            message = f"{rate} samples a second in {channels} channels, expected {sample_rate} in one"
            raise InputError(message, file=path, fix=COPY_AGAIN)

    def __len__(self) -> int:
        return int(self._file.frames)

    def between(self, start: int, end: int) -> npt.NDArray[np.float32]:
        """The samples [start, end), (n,).

        Raises:
            InputError: there are not so many.
        """
        if not 0 <= start <= end <= len(self):
            message = f"samples {start} to {end} are wanted, the file holds {len(self)}"
            raise InputError(message, file=self.path, fix=COPY_AGAIN)
        try:
            self._file.seek(start)
            samples: npt.NDArray[np.float32] = self._file.read(end - start, dtype="float32")
        except (soundfile.SoundFileError, RuntimeError) as problem:
            raise InputError(f"it cannot be read: {problem}", file=self.path, fix=COPY_AGAIN) from problem
        if len(samples) != end - start:
            raise InputError(f"its samples end at {start + len(samples)}, before its header says", file=self.path)
        return samples

    def sha256(self) -> str:
        """Of all samples as little-endian float32."""
        digest = hashlib.sha256()
        for start in range(0, len(self), BLOCK_SAMPLES):
            digest.update(float_bytes(self.between(start, min(start + BLOCK_SAMPLES, len(self)))))
        return digest.hexdigest()

    def first_difference(self, samples: npt.NDArray[np.float32]) -> int | None:
        """The first place at which `samples` (n,) is something else, or ends too early or late; None if none is."""
        common = min(len(self), len(samples))
        for start in range(0, common, BLOCK_SAMPLES):
            end = min(start + BLOCK_SAMPLES, common)
            same = self.between(start, end) == samples[start:end]
            if not same.all():
                return start + int(np.argmin(same))
        return common if len(self) != len(samples) else None

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> RecordedSound:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()
