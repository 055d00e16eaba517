"""Mel filterbank frames → embeddings that the language model reads in place of `<audio>`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.stages.feedforward import FeedForwardStage

Floats = npt.NDArray[np.float32]


class AudioEncoder:
    """The audio encoder with its adapter (and CMVN) in one graph."""

    def __init__(self, session: Session) -> None:
        self._stage = FeedForwardStage(session, "features", "embeddings")

    def __call__(self, features: Floats) -> Floats:
        """(frames, mel bins) → (tokens, width)."""
        embeddings = self._stage.run(np.asarray(features, dtype=np.float32)[None])
        return np.asarray(embeddings[0], dtype=np.float32)
