"""What happens to speech before a microphone: speed, rooms, coloring, noise, gain, clipping, silence around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sottovoce.demos.miniature.voices import SAMPLE_RATE

Samples = NDArray[np.float32]


def _filtered(samples: Samples, response: NDArray[np.float64]) -> Samples:
    """Circular filtering by a response over the half spectrum of a padded transform."""
    size = 2 * (len(response) - 1)
    return np.fft.irfft(np.fft.rfft(samples, size) * response, size)[: len(samples)].astype(np.float32)


def _spectrum_size(samples: Samples, tail: int = 4000) -> int:
    return 1 << int(np.ceil(np.log2(len(samples) + tail)))


def change_speed(samples: Samples, factor: float) -> Samples:
    """Play faster or slower: tempo, pitch and formants move together, which makes new speakers of one."""
    import soxr

    return np.asarray(soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE), dtype=np.float32)


def reverberate(samples: Samples, seconds: float, wetness: float, draw: np.random.Generator) -> Samples:
    """A room as exponentially fading noise behind the direct sound; `seconds` until it is 60 dB down."""
    length = int(seconds * SAMPLE_RATE)
    decay = np.exp(-6.9 * np.arange(length) / length)
    tail = draw.normal(size=length) * decay
    tail *= wetness / np.sqrt(np.sum(tail**2))
    size = _spectrum_size(samples, length)
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[: len(samples)]
    return (samples + wet).astype(np.float32)


def color(samples: Samples, draw: np.random.Generator) -> Samples:
    """A smooth random equalization of ± 8 dB, as microphones and loudspeakers have."""
    size = _spectrum_size(samples)
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    knots = np.array([50, 200, 500, 1200, 2500, 4500, 8000])
    gains = draw.normal(0, 4, len(knots)).clip(-8, 8)
    return _filtered(samples, 10 ** (np.interp(np.log(frequencies + 1), np.log(knots), gains) / 20))


def telephone(samples: Samples) -> Samples:
    """300 to 3,400 Hz."""
    frequencies = np.fft.rfftfreq(_spectrum_size(samples), 1 / SAMPLE_RATE)
    low = 1 / (1 + np.exp(-(frequencies - 300) / 40))
    high = 1 / (1 + np.exp((frequencies - 3400) / 100))
    return _filtered(samples, low * high)


def noise(length: int, draw: np.random.Generator) -> Samples:
    """Noise of a random color (white to brown), hum, or both; of unit power."""
    size = 1 << int(np.ceil(np.log2(max(length, 2))))
    slope = draw.uniform(0, 1.6)
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    shape = np.maximum(frequencies, 30.0) ** -slope
    made: NDArray[np.float64] = np.fft.irfft(np.fft.rfft(draw.normal(size=size)) * shape, size)[:length]
    made /= np.std(made) + 1e-9
    if draw.random() < 0.2:
        time = np.arange(length) / SAMPLE_RATE
        base = draw.choice((50.0, 60.0, 100.0, 120.0))
        hum = sum(draw.uniform(0.2, 1) * np.sin(2 * np.pi * base * k * time + draw.uniform(0, 6)) for k in range(1, 6))
        made = made * draw.uniform(0.1, 1) + hum
    return np.asarray(made / (np.std(made) + 1e-9), dtype=np.float32)


def music(seconds: float, draw: np.random.Generator) -> Samples:
    """A little tune of harmonic tones over a chord, at random tempo and timbre."""
    total = int(seconds * SAMPLE_RATE)
    out = np.zeros(total)
    scale = np.array((0, 2, 4, 5, 7, 9, 11, 12))
    root = draw.uniform(110, 330)
    harmonics = draw.uniform(0, 1, 6) / np.arange(1, 7)
    step = draw.uniform(0.12, 0.5)
    for start in np.arange(0, seconds, step):
        length = int(min(step * draw.uniform(0.8, 2.5), seconds - start) * SAMPLE_RATE)
        time = np.arange(length) / SAMPLE_RATE
        envelope = np.minimum(time / 0.01, 1) * np.exp(-time * draw.uniform(1, 6))
        for note in draw.choice(scale, draw.integers(1, 4)):
            pitch = root * 2 ** (note / 12)
            tone = sum(h * np.sin(2 * np.pi * pitch * (k + 1) * time) for k, h in enumerate(harmonics))
            at = int(start * SAMPLE_RATE)
            out[at : at + length] += envelope * tone
    return np.asarray(out / (np.abs(out).max() + 1e-9), dtype=np.float32)


def disturb(samples: Samples, draw: np.random.Generator, others: Sequence[Samples] = ()) -> Samples:
    """One utterance as it might arrive; `others` is speech to babble behind it. Peaks stay within ±1."""
    samples = samples / (np.abs(samples).max() + 1e-6)
    if draw.random() < 0.6:
        samples = change_speed(samples, float(draw.uniform(0.87, 1.16)))
    before, after = (int(draw.uniform(0.02, 0.4) * SAMPLE_RATE) for _ in range(2))
    samples = np.pad(samples, (before, after))
    if draw.random() < 0.5:
        samples = color(samples, draw)
    if draw.random() < 0.06:
        samples = telephone(samples)
    if draw.random() < 0.35:
        samples = reverberate(samples, float(draw.uniform(0.08, 0.45)), float(draw.uniform(0.2, 0.9)), draw)
    power = float(np.sqrt(np.mean(samples**2)) + 1e-6)
    if draw.random() < 0.65:
        loudness = np.float32(power * 10 ** (-draw.uniform(8, 35) / 20))
        samples = samples + noise(len(samples), draw) * loudness
    if len(others) and draw.random() < 0.1:
        other = np.resize(others[int(draw.integers(len(others)))], len(samples))
        samples = samples + other * np.float32(power / (np.std(other) + 1e-6) * 10 ** (-draw.uniform(12, 24) / 20))
    samples = samples / (np.abs(samples).max() + 1e-6)
    level = 10 ** (-draw.uniform(0, 26) / 20) if draw.random() < 0.95 else draw.uniform(1.2, 3.0)
    return np.asarray(np.clip(samples * level, -1.0, 1.0), dtype=np.float32)


def disturbance(draw: np.random.Generator) -> Samples:
    """Something that is no speech at all: noise, music, knocks, or near silence; 0.6 to 3 seconds."""
    seconds = float(draw.uniform(0.6, 3.0))
    length = int(seconds * SAMPLE_RATE)
    kind = draw.integers(4)
    if kind == 0:
        made = noise(length, draw)
    elif kind == 1:
        made = music(seconds, draw)
    elif kind == 2:
        made = noise(length, draw) * 0.02
        for _ in range(int(draw.integers(1, 6))):
            at, knock = int(draw.integers(length)), int(draw.uniform(0.005, 0.08) * SAMPLE_RATE)
            hit = noise(knock, draw) * np.exp(-np.arange(knock) / (knock / 4))
            made[at : at + knock] += hit[: length - at]
    else:
        made = noise(length, draw) * float(draw.uniform(0, 0.01))
    level = 10 ** (-draw.uniform(0, 30) / 20)
    return np.asarray(np.clip(made / max(np.abs(made).max(), 0.1) * level, -1, 1), dtype=np.float32)
