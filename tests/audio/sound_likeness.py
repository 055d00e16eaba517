"""How much of a sound is in a recording of it."""

from __future__ import annotations

import numpy as np


def best_offset(long: np.ndarray, short: np.ndarray) -> int:
    """Where `short` begins in `long`, by correlation."""
    size = 1 << (len(long) + len(short)).bit_length()
    product = np.fft.irfft(np.fft.rfft(long, size) * np.conj(np.fft.rfft(short, size)), size)
    return int(np.argmax(product[: len(long)]))


def explained_db(long: np.ndarray, short: np.ndarray) -> tuple[float, int]:
    """How far below `short` lies what is left of it without the best aligned, best scaled part of `long`."""
    at = best_offset(long, short)
    part = long[at : at + len(short)]
    assert len(part) == len(short), "the end is missing"
    # a part of a sample of delay, as resampling at two unlocked clocks leaves it
    spectrum, wanted = np.fft.rfft(part), np.fft.rfft(short)
    frequency = np.fft.rfftfreq(len(short))

    def explained(delay: float) -> float:
        moved = spectrum * np.exp(-2j * np.pi * frequency * delay)
        gain = np.real(np.vdot(moved, wanted)) / np.real(np.vdot(moved, moved))
        return -10 * np.log10(np.sum(np.abs(wanted - gain * moved) ** 2) / np.sum(np.abs(wanted) ** 2))

    delay = 0.0
    for step in (0.05, 0.0025, 0.0001):
        delay = max(delay + step * np.arange(-20, 21), key=explained)
    return explained(delay), at
