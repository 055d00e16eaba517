"""A playback queue and a device that empties it, over a clock that tests move."""

from __future__ import annotations

import numpy as np
import pytest

from sottovoce.runtime.devices.playback_format import PlaybackFormat
from sottovoce.runtime.devices.playback_queue import PlaybackQueue
from sottovoce.runtime.devices.wav_devices import SteppedClock

BLOCK = 480  # 20 ms at 24 kHz
FADE = 120  # 5 ms


def fail() -> None:
    pytest.fail("the ring is full")


class Playing:
    """A queue and the device that empties it, over a stepped clock."""

    def __init__(self, device_rate: int = 24_000, delay_s: float = 0.0, fade_s: float = 0.005) -> None:
        self.clock = SteppedClock(100.0)
        self.rate = device_rate
        self.delay_s = delay_s
        self.queue = PlaybackQueue(PlaybackFormat(device_rate, 24_000, 10.0, fade_s), fail, self.clock)
        self.heard: list[np.ndarray] = []

    def play(self, blocks: int = 1, underflow: bool = False) -> np.ndarray:
        played = []
        for _ in range(blocks):
            played.append(self.queue.fill(self.rate // 50, self.delay_s, underflow))
            self.clock.advance(0.02)
        self.heard += played
        return np.concatenate(played)


def speech(samples: int, seed: int = 3) -> np.ndarray:
    return (0.2 + 0.1 * np.random.default_rng(seed).random(samples)).astype(np.float32)
