"""How far the making of speech runs ahead of its playing: below zero, the listener hears a gap."""

from __future__ import annotations

from collections.abc import Sequence

from sottovoce.runtime.profiling.turn import Chunk


def leads_ms(chunks: Sequence[Chunk], sample_rate: int) -> list[float]:
    """For each chunk but the first, what was still to be played when it came, in milliseconds.

    A player begins with the first chunk, as it comes. Samples made until then, less samples played by then: where
    that is negative, playing had stopped for want of samples, and goes on with the chunk that came late.
    """
    leads: list[float] = []
    if not chunks:
        return leads
    ends_at = chunks[0].at + chunks[0].samples / sample_rate
    for chunk in chunks[1:]:
        leads.append(1000 * (ends_at - chunk.at))
        ends_at = max(ends_at, chunk.at) + chunk.samples / sample_rate
    return leads
