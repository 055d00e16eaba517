"""espeak-ng's voice, from the first to the last sample that can be heard."""

from __future__ import annotations

import functools
import io
import subprocess

import numpy as np
import soundfile

from sottovoce.runtime.devices import CAPTURE_RATE
from sottovoce.runtime.features.audio_file import Waveform


@functools.cache
def spoken(text: str) -> np.ndarray:
    """(n,) samples at 16 kHz."""
    command = ["espeak-ng", "-v", "en-gb", "--stdout", text]
    wav = subprocess.run(command, capture_output=True, check=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    speech = Waveform(samples, rate).at_rate(CAPTURE_RATE).samples
    heard = np.flatnonzero(np.abs(speech) > 0.02 * np.abs(speech).max())
    return speech[heard[0] : heard[-1] + 1]
