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
    """True where query frame i (row) may attend to key frame j (column) in chunked attention (U2, Zhang et al. 2020).

    Frame i sees the whole of its own chunk and `left_chunks` chunks before it (-1: all of them).

    Args:
        size: frames in the sequence.
        chunk_size: frames a chunk, at least 1.
        left_chunks: chunks visible to the left; -1 is all of them.
        device: where the mask is built.

    Returns:
        (size, size) bool.
    """
    place = torch.arange(size, device=device)
    chunk_start = place - place % chunk_size
    distance = chunk_start[:, None] - chunk_start[None, :]
    visible = distance >= 0
    if left_chunks >= 0:
        visible = visible & (distance <= left_chunks * chunk_size)
    return visible
