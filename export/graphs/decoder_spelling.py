"""What engines spell differently in a decoder: the same arithmetic in the operators that a family of them has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Heads:
    """A decoder's attention: query heads over KV heads of so many channels.

    `sees_call`: every position of one call sees all positions up to the end of the call. Otherwise it is causal.
    """

    query: int
    kv: int
    size: int
    sees_call: bool


@dataclass(frozen=True)
class Positions:
    """Where a call's positions lie, as values of the graph.

    `first` (1,), `count` (1,), all of them `ids` (T,), and their angles' cosines and sines (1, T, head/2), in the
    graph's float type and as they were computed, in float32.
    """

    first: str
    count: str
    ids: str
    cosines: str
    sines: str
    wide_cosines: str
    wide_sines: str


@dataclass(frozen=True)
class Projections:
    """Query, key and value of one layer, each (1, T, its heads · head), as values of the graph.

    Args:
        layer: its number.
        name: what values of this layer's attention are called, as a prefix.
    """

    layer: int
    name: str
    query: str
    key: str
    value: str


class DecoderSpelling(Protocol):
    """The operations of a decoder that engines disagree about. Values are names in the graph being built."""

    def rms_norm(self, hidden: str, scale: str, epsilon: float, *, output: str) -> str:
        """Root mean square normalization over the last axis (Zhang & Sennrich 2019), accumulated in float32."""
        ...

    def attend(self, projected: Projections, positions: Positions) -> str:
        """Turn query and key by their positions (Su et al. 2021, half-split form), write key and value into the
        layer's cache, and attend grouped over it: (1, T, heads · head)."""
        ...
