"""Something of the right form for every stage's graph, so that two engines can be compared on it."""

from __future__ import annotations

import numpy as np

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import StageName

FEED_FORWARD: tuple[StageName, ...] = ("audio_encoder", "vision_encoder", "speech_text", "codec")
DECODERS: tuple[StageName, ...] = ("language_model", "speech_codes")
SIZES = {"frames": 40, "tiles": 1, "codes": 25}
"""Sizes that are not there have no elements: a stream's state at its start."""


def feeds_of(bundle: Bundle, stage: StageName) -> dict[str, np.ndarray]:
    """Inputs of a stage without a cache, by name."""
    random, feeds = np.random.default_rng(5), {}
    for tensor in bundle.graph(stage).inputs:
        shape = [SIZES.get(size, 0) if isinstance(size, str) else size for size in tensor.shape]
        values = random.integers(0, 8, shape) if tensor.dtype == "int64" else random.standard_normal(shape)
        feeds[tensor.name] = (values * (tensor.role != "position")).astype(tensor.dtype)
    return feeds


def rows_of(bundle: Bundle, stage: StageName, count: int) -> np.ndarray:
    """Embeddings for a decoder, (count, width)."""
    [width] = [tensor.shape[2] for tensor in bundle.graph(stage).inputs if tensor.role == "embeddings"]
    return np.random.default_rng(6).standard_normal((count, int(width))).astype(np.float32)
