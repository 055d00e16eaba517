"""Pixel tiles → embeddings that the language model reads in place of `<image>`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.stages.feedforward import FeedForwardStage

Floats = npt.NDArray[np.float32]


class VisionEncoder:
    """The vision encoder with pixel shuffle and projector in one graph."""

    def __init__(self, session: Session) -> None:
        self._stage = FeedForwardStage(session, "pixels", "embeddings")

    def __call__(self, pixels: Floats) -> Floats:
        """(tiles, 3, size, size) → (tiles, tokens of a tile, width), tile by tile.

        Tiles do not see one another, and one at a time bounds the working memory: a 12-tile picture needs no more
        than a small one.
        """
        tiles = [self._stage.run(np.asarray(tile, dtype=np.float32)[None]) for tile in pixels]
        return np.asarray(np.concatenate(tiles), dtype=np.float32)
