"""Recordings in, WAV files out: any rate, width and channel count that libsndfile reads, bounded."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from sottovoce.runtime.errors import InputError

Samples = npt.NDArray[np.float32]
AudioSource = str | os.PathLike[str] | tuple[npt.ArrayLike, int]

MAX_FILE_BYTES = 1 << 30
MAX_CHANNELS = 32
SAMPLE_RATES = (1_000, 384_000)


@dataclass(frozen=True)
class Waveform:
    """Mono samples in -1…1 (n,) and how many there are a second."""

    samples: Samples
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / self.sample_rate

    def at_rate(self, sample_rate: int) -> Waveform:
        """The same sound at another rate (soxr, high quality); itself when the rate is already right."""
        if sample_rate == self.sample_rate or not len(self.samples):
            return Waveform(self.samples, sample_rate)
        resampled = soxr.resample(self.samples, self.sample_rate, sample_rate, quality="HQ")
        return Waveform(np.ascontiguousarray(resampled, dtype=np.float32), sample_rate)


def read_audio(source: AudioSource, *, max_seconds: float = 3600.0) -> Waveform:
    """Read a recording, or check samples that are in memory already.

    Args:
        source: a file, or `(samples, sample_rate)` with samples (n,) or (n, channels): floats in -1…1 or int16.
        max_seconds: longer recordings are refused before they are decoded.

    Raises:
        InputError: missing, not audio, empty, too long, or with values that are not numbers.
    """
    if isinstance(source, tuple):
        return _from_memory(np.asarray(source[0]), source[1], max_seconds)
    return _from_file(Path(source), max_seconds)


def _from_file(path: Path, max_seconds: float) -> Waveform:
    if not path.is_file():
        raise InputError("there is no such recording", file=path, fix="give the path of a WAV, FLAC or OGG file")
    size = path.stat().st_size
    if size == 0:
        raise InputError("the file is empty (0 bytes)", file=path, fix="record it again")
    if size > MAX_FILE_BYTES:
        raise InputError(f"{size} bytes, more than the limit of {MAX_FILE_BYTES}", file=path, fix="cut the recording")
    try:
        with soundfile.SoundFile(path) as recording:
            _check_shape(recording.samplerate, recording.channels, path)
            limit = int(max_seconds * recording.samplerate)
            if recording.frames > limit:
                raise _too_long(recording.frames / recording.samplerate, max_seconds, path)
            samples = recording.read(limit + 1, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as problem:
        fix = "give a WAV, FLAC or OGG file; others can be converted with ffmpeg"
        raise InputError(f"not a recording that can be read: {problem}", file=path, fix=fix) from problem
    return _mono(samples, recording.samplerate, max_seconds, path)


def _from_memory(samples: npt.NDArray[np.generic], sample_rate: int, max_seconds: float) -> Waveform:
    if samples.ndim not in (1, 2):
        raise InputError(f"audio of shape {samples.shape}, expected (samples,) or (samples, channels)")
    wide = samples.reshape(len(samples), -1)
    _check_shape(sample_rate, wide.shape[1], None)
    if wide.dtype == np.int16:
        wide = wide.astype(np.float32) / 32768.0
    elif not np.issubdtype(wide.dtype, np.floating):
        raise InputError(f"audio samples of type {wide.dtype}, expected floats in -1…1 or int16")
    return _mono(wide.astype(np.float32), sample_rate, max_seconds, None)


def _check_shape(sample_rate: int, channels: int, path: Path | None) -> None:
    low, high = SAMPLE_RATES
    if not low <= sample_rate <= high:
        raise InputError(f"{sample_rate} samples a second, expected {low} to {high}", file=path)
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(f"{channels} channels, expected 1 to {MAX_CHANNELS}", file=path)


def _mono(samples: Samples, sample_rate: int, max_seconds: float, path: Path | None) -> Waveform:
    if len(samples) == 0:
        raise InputError("the recording has no samples", file=path, fix="record it again")
    if len(samples) > max_seconds * sample_rate:
        raise _too_long(len(samples) / sample_rate, max_seconds, path)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise InputError("some samples are not numbers (NaN or infinite)", file=path, fix="write the recording again")
    return Waveform(np.ascontiguousarray(mono), sample_rate)


def _too_long(seconds: float, max_seconds: float, path: Path | None) -> InputError:
    message = f"{seconds:.1f} s of audio, more than the limit of {max_seconds:.0f} s"
    return InputError(message, file=path, fix="cut it into shorter turns")


class WavWriter:
    """A 16-bit mono WAV written piece by piece; it appears under its name when it is complete, or not at all.

    Use as a context manager: an exception inside leaves nothing behind.
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate: int) -> None:
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.samples_written = 0
        folder = self.path.parent
        if not folder.is_dir():
            raise InputError("the folder to write into does not exist", file=folder, fix="create it first")
        if self.path.is_dir():
            raise InputError("this is a folder, expected the name of a WAV file", file=self.path)
        handle, self._partial = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".partial", dir=folder)
        os.close(handle)
        self._file = soundfile.SoundFile(self._partial, "w", sample_rate, 1, "PCM_16", format="WAV")

    def append(self, samples: Samples) -> None:
        """Add samples (n,), clipped to -1…1."""
        self._file.write(np.clip(samples, -1.0, 1.0))
        self.samples_written += len(samples)

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._file.close()
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(self._partial, 0o666 & ~umask)  # mkstemp made it private
        os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Leave nothing."""
        self._file.close()
        Path(self._partial).unlink(missing_ok=True)

    def __enter__(self) -> WavWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def write_wav(path: str | os.PathLike[str], samples: Samples, sample_rate: int) -> None:
    """Write a whole 16-bit mono WAV, or nothing."""
    with WavWriter(path, sample_rate) as wav:
        wav.append(samples)
