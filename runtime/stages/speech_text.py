"""Text frames → conditioned frames: the speech decoder's non-autoregressive half, with full attention."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.stages.feedforward import FeedForwardStage

Floats = npt.NDArray[np.float32]


class SpeechText:
    """The text part of the speech decoder."""

    def __init__(self, session: Session) -> None:
        self._stage = FeedForwardStage(session, "frames", "conditioned")

    def __call__(self, frames: Floats) -> Floats:
        """(n, width) → (n, width)."""
        return np.asarray(self._stage.run(np.asarray(frames, dtype=np.float32)[None])[0], dtype=np.float32)
