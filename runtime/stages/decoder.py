"""What the two autoregressive stages share: embeddings are appended to a cache, logits of the last place come back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.stages.tensors import finite, input_name, output_name

Floats = npt.NDArray[np.float32]


class DecoderStage:
    """A decoder's graph, called by role.

    Args:
        session: the loaded graph.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._embeddings = input_name(session, "embeddings")
        self._cache_length = input_name(session, "cache_length")
        self._logits = output_name(session, "logits")

    @property
    def max_positions(self) -> int | None:
        """The most that can be appended in one call; None: any number."""
        return self._session.max_positions

    def create_cache(self) -> KVCache:
        """An empty cache for this decoder."""
        return KVCache(self._session)

    def append(self, embeddings: Floats, cache: KVCache) -> Floats:
        """(n, width) embeddings at the cache's end → (V,) logits of the last of them.

        Raises:
            ContextFullError: the cache has no room for them.
            BackendError: the engine failed, or the logits are no numbers.
        """
        feeds = {self._embeddings: np.asarray(embeddings, dtype=np.float32)[None]}
        results = cache.append(feeds, self._cache_length, len(embeddings))
        return np.asarray(finite(self._session, "logits", results[self._logits])[0], dtype=np.float32)
