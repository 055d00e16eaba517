"""Embeddings → logits of the next token, with a KV cache that is the conversation's memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.stages.decoder import DecoderStage

Floats = npt.NDArray[np.float32]
PREFILL_POSITIONS = 256
"""A prompt is appended in slices of this length. Attention scores take memory for slice × context; and since a slice
sees only the cache as it is then, 3300 positions take a third less time than in one go."""
SHORTEST_SLICE = 32
MOST_SCORES = 1 << 20
"""Positions of a slice × of the context, for each query head: an engine may write all scores of a slice down at once
(28 heads: 117 MB). So slices get shorter behind 4,096 positions; down to 32 a position takes as long (3.4 ms of
SmolLM2-135M in int4, on one busy core)."""


class LanguageModel:
    """The causal decoder."""

    def __init__(self, session: Session) -> None:
        self._decoder = DecoderStage(session)

    def create_cache(self) -> KVCache:
        """An empty cache."""
        return self._decoder.create_cache()

    def prefill(self, embeddings: Floats, cache: KVCache) -> Floats:
        """(n, width), n ≥ 1, at the cache's end → (V,) logits after the last. All of it is kept, or nothing.

        Raises:
            ContextFullError: the cache has no room for them.
            BackendError: the engine failed, or the logits are no numbers.
        """
        before = cache.length
        try:
            while (start := cache.length - before) < len(embeddings):
                logits = self._decoder.append(embeddings[start : start + self._slice(cache.length)], cache)
        except BaseException:
            cache.rewind(before)
            raise
        return logits

    def _slice(self, filled: int) -> int:
        """How many positions to append at once behind so many."""
        bounded = max(SHORTEST_SLICE, MOST_SCORES // (filled + PREFILL_POSITIONS))
        return min(PREFILL_POSITIONS, bounded, self._decoder.max_positions or PREFILL_POSITIONS)

    def step(self, embedding: Floats, cache: KVCache) -> Floats:
        """One row (1, width) at the cache's end → (V,) logits of the next token."""
        return self._decoder.append(embedding, cache)
