"""Conditioned frames, then code after code → logits of the next code: the speech decoder's autoregressive half."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.stages.decoder import DecoderStage

Floats = npt.NDArray[np.float32]


class SpeechCodes:
    """The code part of the speech decoder."""

    def __init__(self, session: Session) -> None:
        self._decoder = DecoderStage(session)

    def create_cache(self) -> KVCache:
        """An empty cache; every piece of text starts from one."""
        return self._decoder.create_cache()

    def prefill(self, frames: Floats, cache: KVCache) -> None:
        """The whole prefix (n, width) in one call, since all its positions see each other."""
        self._decoder.append(frames, cache)

    def step(self, row: Floats, cache: KVCache) -> Floats:
        """The last code's row (1, width) → (V,) logits of the next code."""
        return self._decoder.append(row, cache)
