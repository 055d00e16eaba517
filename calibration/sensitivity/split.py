"""One set of conversations as two: layers are ranked on one part, and the budget is held on the other.

A choice that was made and judged on the same conversations would look better than it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sottovoce.runtime.conversation_set.item import EvaluationItem, format_item
from sottovoce.runtime.errors import InputError

RANKING_SHARE = 0.25
"""Ranking needs only an order, and gets a whole distribution from each token: fewer conversations do."""
FEWEST_TO_RANK, FEWEST_TO_ACCEPT = 8, 24


@dataclass(frozen=True)
class DataSplit:
    """The two parts, each in the set's order."""

    ranking: tuple[EvaluationItem, ...]
    acceptance: tuple[EvaluationItem, ...]


def split_data(items: Sequence[EvaluationItem], *, allow_little_data: bool = False) -> DataSplit:
    """Divide by the hash of each item, so that neither order nor what else is in the set decides much.

    Items that say the same are in the same part.

    Raises:
        InputError: too few for either part; names the minimum.
    """
    hashes = [hashlib.sha256(format_item(item)).hexdigest() for item in items]
    distinct = sorted(set(hashes))
    held_back = set(distinct[: max(1, round(RANKING_SHARE * len(distinct)))])
    ranking = tuple(item for item, found in zip(items, hashes, strict=True) if found in held_back)
    acceptance = tuple(item for item, found in zip(items, hashes, strict=True) if found not in held_back)
    fewest = (1, 1) if allow_little_data else (FEWEST_TO_RANK, FEWEST_TO_ACCEPT)
    if len(held_back) < fewest[0] or len(distinct) - len(held_back) < fewest[1]:
        raise InputError(
            f"{len(distinct)} different conversations are too few for a budget, expected at least {sum(fewest)}: "
            f"{fewest[0]} to rank layers on and {fewest[1]} to hold the budget on",
            fix="collect more with `run --capture`"
            + ("" if allow_little_data else ", or take these all the same with --allow-little-data"),
        )
    return DataSplit(ranking, acceptance)
