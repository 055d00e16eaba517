"""What left the loudspeaker, by the moment it did: what an echo canceller compares the microphone with."""

from __future__ import annotations

from collections import deque

import numpy as np

from sottovoce.runtime.devices.interface import Samples
from sottovoce.runtime.devices.settings import CAPTURE_RATE
from sottovoce.runtime.features.resampling import StreamingResampler

REMEMBERED_S = 10.0
JUMP_S = 0.05
"""Callbacks come some milliseconds early or late; more than this, and the device paused or came back."""
SMOOTHING = 1 / 64
DRIFT_S = 0.01
"""Positions keep their moments until the device's clock went away from ours by so much: an echo canceller that learned
how the two streams lie beside each other would have to learn it again."""


class PlayedTimeline:
    """The device's thread appends what it plays, the program reads it at 16 kHz from any moment of the last seconds.

    Args:
        device_rate: frames a second that the device takes.
    """

    def __init__(self, device_rate: int) -> None:
        self.device_rate = device_rate
        self._blocks: deque[tuple[float, Samples]] = deque(maxlen=1024)
        self._resampler = StreamingResampler(device_rate, CAPTURE_RATE)
        self._frames = 0
        self._began: float | None = None
        self._estimate = 0.0
        self._kept = np.zeros(0, dtype=np.float32)
        self._first = 0  # position of the first kept sample

    def append(self, block: Samples, plays_at: float) -> None:
        """Note a block (n,) whose first frame is heard at `plays_at` (seconds). For the device's thread."""
        self._blocks.append((plays_at, block))

    def drop(self, moment: float) -> None:
        """The device dropped what it would have played from `moment` on. For the device's thread."""
        self._blocks.append((moment, np.zeros(0, dtype=np.float32)))

    def reference(self, moment: float, count: int) -> Samples:
        """What was heard from `moment` on: (m,) at 16 kHz, m at most `count`; what is not known yet is left out.

        Before the first block, and longer ago than some seconds, there was silence.
        """
        while self._blocks:
            self._take(*self._blocks.popleft())
        if self._began is None:
            return np.zeros(0, dtype=np.float32)
        start = round((moment - self._began) * CAPTURE_RATE) - self._first
        heard = np.zeros(min(count, max(0, len(self._kept) - start)), dtype=np.float32)
        low, high = max(0, start), start + len(heard)
        if low < high:
            heard[low - start : high - start] = self._kept[low:high]
        return heard

    def _take(self, plays_at: float, block: Samples) -> None:
        if not len(block):
            self._silence(plays_at)
            return
        began = plays_at - self._frames / self.device_rate
        if self._began is not None and abs(began - self._estimate) > JUMP_S:
            self._keep(self._resampler.finish())
            self._resampler.reset()
            # Silence until then; a device that came back earlier than it said takes its place from now on.
            silence = np.zeros(max(0, round((began - self._began) * CAPTURE_RATE)), dtype=np.float32)
            self._keep(silence[-int(REMEMBERED_S * CAPTURE_RATE) :])
            self._restart(plays_at)
        elif self._began is None:
            self._restart(plays_at)
        else:
            self._estimate += SMOOTHING * (began - self._estimate)
            if abs(self._estimate - self._began) > DRIFT_S:
                self._began = self._estimate
        self._frames += len(block)
        self._keep(self._resampler.append(block))

    def _silence(self, moment: float) -> None:
        if self._began is not None:
            start = max(0, round((moment - self._began) * CAPTURE_RATE) - self._first)
            self._kept[start:] = 0

    def _restart(self, plays_at: float) -> None:
        """Count from here: the kept samples before lie before position 0."""
        self._began = self._estimate = plays_at
        self._frames = 0
        self._first = -len(self._kept)

    def _keep(self, samples: Samples) -> None:
        kept = np.concatenate([self._kept, samples])
        surplus = max(0, len(kept) - int(REMEMBERED_S * CAPTURE_RATE))
        self._kept = kept[surplus:]
        self._first += surplus
