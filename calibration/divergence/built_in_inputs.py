"""A recording and a picture to compare stages with where none is given: the same on every machine."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sottovoce.runtime.features.audio_file import Waveform

SPEECH_SECONDS = 2.0


def synthetic_speech(sample_rate: int) -> Waveform:
    """Two seconds with the make-up of speech: a gliding pitch with formants, in syllables, over a little noise."""
    time = np.arange(int(SPEECH_SECONDS * sample_rate)) / sample_rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.8 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    formants = (500 + 200 * np.sin(2 * np.pi * 1.5 * time), 1500 + 500 * np.sin(2 * np.pi * 1.1 * time))
    voice = np.zeros_like(time)
    for harmonic in range(1, 30):
        nearness = sum(np.exp(-(((harmonic * pitch - formant) / 250) ** 2)) for formant in formants)
        voice += nearness * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 2.2 * time), 0.0, None) ** 0.5
    noise = np.random.default_rng(0).normal(size=time.shape)
    return Waveform((0.15 * voice * syllables + 0.003 * noise).astype(np.float32), sample_rate)


def synthetic_picture(size: int) -> Image.Image:
    """Twice as wide as high, so that it is tiled: gradients, stripes and a disc."""
    x, y = np.meshgrid(np.linspace(0, 1, 2 * size), np.linspace(0, 1, size))
    red = x
    green = 0.5 + 0.5 * np.sin(40 * x * (1 + y))
    blue = np.where((x - 0.6) ** 2 * 4 + (y - 0.5) ** 2 < 0.1, 1.0, y)
    return Image.fromarray((255 * np.stack([red, green, blue], axis=-1)).astype(np.uint8))
