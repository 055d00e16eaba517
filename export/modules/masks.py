"""Which places of a padded batch are real, and which frames a chunked encoder lets each frame see."""

from __future__ import annotations

import torch
from torch import Tensor


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """True where a place lies within its item.

    Args:
        lengths: (B,) valid places of each item.
        size: places of the padded batch.

    Returns:
        (B, size) bool.
    """
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def chunk_mask(size: int, chunk_size: int, left_chunks: int, device: torch.device) -> Tensor:
    """`window_mask` among all frames of one sequence.

    Args:
        size: frames in the sequence.
        chunk_size: as in `window_mask`.
        left_chunks: as in `window_mask`.
        device: where the mask is built.

    Returns:
        (size, size) bool.
    """
    places = torch.arange(size, device=device)
    return window_mask(places, places, chunk_size, left_chunks)


def window_mask(queries: Tensor, keys: Tensor, chunk_size: int, left_chunks: int) -> Tensor:
    """True where a query frame (row) may attend to a key frame (column) in chunked attention (U2, Zhang et al. 2020).

    A frame sees the whole of its own chunk and `left_chunks` chunks before it (-1: all of them).

    Args:
        queries: (Q,) integer places of the query frames in their sequence.
        keys: (K,) places of the key frames.
        chunk_size: frames a chunk, at least 1.
        left_chunks: chunks visible to the left; -1 is all of them.

    Returns:
        (Q, K) bool.
    """
    distance = (queries - queries % chunk_size)[:, None] - (keys - keys % chunk_size)[None, :]
    visible = distance >= 0
    if left_chunks >= 0:
        visible = visible & (distance <= left_chunks * chunk_size)
    return visible
