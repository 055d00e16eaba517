"""Recordings in, WAV files out: any rate, sample width and channel count that libsndfile reads, bounded.

libsndfile is loaded with the first file: a conversation through a microphone has none, and starts sooner without it.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import soxr

from sottovoce.runtime.errors import InputError

if TYPE_CHECKING:
    import soundfile

Samples = npt.NDArray[np.float32]
AudioSource: TypeAlias = str | os.PathLike[str] | tuple[npt.ArrayLike, int]

MAX_FILE_BYTES = 1 << 30
MAX_CHANNELS = 32
SAMPLE_RATES = (1_000, 384_000)
BLOCK_FRAMES = 1 << 16
SECONDS_PER_DAY = 86_400
MAX_AMPLITUDE = 8.0
"""Floats far beyond -1…1 are not loud, they are integers that nobody divided: they would be heard as noise."""


@dataclass(frozen=True)
class Waveform:
    """Mono samples in -1…1 (n,), how many there are a second, and the file they came from (for messages)."""

    samples: Samples
    sample_rate: int
    file: str | None = None

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / self.sample_rate

    def at_rate(self, sample_rate: int) -> Waveform:
        """The same sound at another rate (soxr, high quality); itself when the rate is already right."""
        if sample_rate == self.sample_rate:
            return self
        if not len(self.samples):
            return Waveform(self.samples, sample_rate, self.file)
        resampled = soxr.resample(self.samples, self.sample_rate, sample_rate, quality="HQ")
        return Waveform(np.ascontiguousarray(resampled, dtype=np.float32), sample_rate, self.file)


def read_audio(source: AudioSource, *, max_seconds: float = 3600.0) -> Waveform:
    """Read a recording, or check samples that are in memory already.

    Args:
        source: a file that libsndfile reads (WAV, FLAC, OGG, MP3…), or `(samples, sample_rate)` with samples (n,) or
            (n, channels): floats in -1…1 or int16. Channels are averaged.
        max_seconds: longer recordings are refused, before more than that is decoded.

    Raises:
        InputError: missing, not audio, empty, too long, or with values that are not samples.
    """
    if isinstance(source, tuple):
        return _from_memory(np.asarray(source[0]), source[1], max_seconds)
    import soundfile

    try:
        return _from_file(Path(source), max_seconds)
    except (soundfile.SoundFileError, RuntimeError, TypeError, OSError) as problem:
        # A RuntimeError without libsndfile's code, a TypeError for names that end in .raw.
        fix = "give a WAV, FLAC or OGG file; others can be converted with ffmpeg"
        raise InputError(f"not a recording that can be read: {problem}", file=source, fix=fix) from problem


def _from_file(path: Path, max_seconds: float) -> Waveform:
    if not path.is_file():
        raise InputError("there is no such recording", file=path, fix="give the path of a WAV, FLAC or OGG file")
    size = path.stat().st_size
    if size == 0:
        raise InputError("the file is empty (0 bytes)", file=path, fix="record it again")
    if size > MAX_FILE_BYTES:
        raise InputError(f"{size} bytes, more than the limit of {MAX_FILE_BYTES}", file=path, fix="cut the recording")
    import soundfile

    with soundfile.SoundFile(path) as recording:
        _check_shape(recording.samplerate, recording.channels, path)
        return _checked(_decode(recording, max_seconds, path), recording.samplerate, max_seconds, path)


def _decode(recording: soundfile.SoundFile, max_seconds: float, path: Path) -> Samples:
    """Mono samples, block by block: a header that promises more than the file holds allocates nothing."""
    limit = max_seconds * recording.samplerate
    if limit < recording.frames < recording.samplerate * SECONDS_PER_DAY:
        raise _too_long(recording.frames / recording.samplerate, max_seconds, path)
    blocks: list[Samples] = []
    frames = 0
    while frames <= limit:
        block = recording.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        if not len(block):
            break
        frames += len(block)
        blocks.append(_mono(block))
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


def _from_memory(samples: npt.NDArray[np.generic], sample_rate: int, max_seconds: float) -> Waveform:
    if samples.ndim not in (1, 2):
        raise InputError(f"audio of shape {samples.shape}, expected (samples,) or (samples, channels)")
    wide = samples[:, None] if samples.ndim == 1 else samples
    _check_shape(sample_rate, wide.shape[1], None)
    if wide.dtype == np.int16:
        mono = _mono(wide.astype(np.float32) / 32768.0)
    elif np.issubdtype(wide.dtype, np.floating):
        mono = _mono(wide.astype(np.float32))
    else:
        raise InputError(f"audio samples of type {wide.dtype}, expected floats in -1…1 or int16")
    return _checked(mono, sample_rate, max_seconds, None)


def _check_shape(sample_rate: int, channels: int, path: Path | None) -> None:
    low, high = SAMPLE_RATES
    if not low <= sample_rate <= high or sample_rate != int(sample_rate):
        raise InputError(f"{sample_rate} samples a second, expected a whole number from {low} to {high}", file=path)
    if not 1 <= channels <= MAX_CHANNELS:
        fix = "samples come first: (samples, channels)" if path is None else "mix it down to one or two channels"
        raise InputError(f"{channels} channels, expected 1 to {MAX_CHANNELS}", file=path, fix=fix)


def _mono(samples: Samples) -> Samples:
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


def _checked(mono: Samples, sample_rate: int, max_seconds: float, path: Path | None) -> Waveform:
    if len(mono) == 0:
        raise InputError("the recording has no samples", file=path, fix="record it again")
    if len(mono) > max_seconds * sample_rate:
        raise _too_long(len(mono) / sample_rate, max_seconds, path)
    if not np.isfinite(mono).all():
        raise InputError("some samples are not numbers (NaN or infinite)", file=path, fix="write the recording again")
    loudest = float(np.abs(mono).max())
    if loudest > MAX_AMPLITUDE:
        fix = "divide 16-bit values by 32768"
        raise InputError(f"samples reach {loudest:g}, expected -1 to 1", file=path, fix=fix)
    return Waveform(np.ascontiguousarray(mono), int(sample_rate), None if path is None else str(path))


def _too_long(seconds: float, max_seconds: float, path: Path | None) -> InputError:
    message = f"{seconds:.1f} s of audio, more than the limit of {max_seconds:g} s"
    return InputError(message, file=path, fix="cut it into shorter turns")


class WavWriter:
    """A 16-bit mono WAV; it appears under its name when it is complete, in place of an older one, or not at all.

    Use as a context manager: an exception inside leaves nothing behind.

    Args:
        path: the file to make; its folder must be there.
        sample_rate: samples a second.

    Raises:
        InputError: the place cannot be written to, the disk is full, or a sample is not a number.
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate: int) -> None:
        import soundfile

        self.path = Path(path)
        self.sample_rate = sample_rate
        self.samples_written = 0
        self._failures = (OSError, soundfile.SoundFileError)
        try:
            self._partial = self._reserve()
            self._file = soundfile.SoundFile(self._partial, "w", sample_rate, 1, "PCM_16", format="WAV")
        except self._failures as problem:
            raise self._cannot_write(problem) from problem

    def append(self, samples: Samples) -> None:
        """Add samples (n,), clipped to -1…1."""
        if not np.isfinite(samples).all():
            raise InputError("the speech holds values that are not numbers", file=self.path)
        try:
            self._file.write(np.clip(samples, -1.0, 1.0))
        except self._failures as problem:
            raise self._cannot_write(problem) from problem
        self.samples_written += len(samples)

    def close(self) -> None:
        """Finish the file and give it its name."""
        try:
            self._file.close()
            umask = os.umask(0)
            os.umask(umask)
            self._partial.chmod(0o666 & ~umask)  # mkstemp made it private
            self._partial.replace(self.path)
        except self._failures as problem:
            self._partial.unlink(missing_ok=True)
            raise self._cannot_write(problem) from problem

    def discard(self) -> None:
        """Leave nothing."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> WavWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _reserve(self) -> Path:
        folder = self.path.parent
        if not folder.is_dir():
            raise InputError("the folder to write into does not exist", file=folder, fix="create it first")
        if self.path.exists() and not self.path.is_file():  # renaming onto /dev/null would replace the device
            raise InputError("this is not a regular file, expected the name of a WAV file", file=self.path)
        handle, partial = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".partial", dir=folder)
        os.close(handle)
        return Path(partial)

    def _cannot_write(self, problem: Exception) -> InputError:
        fix = "choose a folder that can be written to and has room"
        return InputError(f"the recording cannot be written: {problem}", file=self.path, fix=fix)


def write_wav(path: str | os.PathLike[str], samples: Samples, sample_rate: int) -> None:
    """Write a whole 16-bit mono WAV of samples (n,) in -1…1, or nothing."""
    with WavWriter(path, sample_rate) as wav:
        wav.append(samples)
