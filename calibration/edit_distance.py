"""How far apart two sequences are: of words, of letters, of token ids."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def edit_distance(expected: Sequence[Hashable], found: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and substitutions from one to the other (Levenshtein 1966)."""
    row = list(range(len(found) + 1))
    for i, item in enumerate(expected, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(found, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (item != other))
    return row[-1]
