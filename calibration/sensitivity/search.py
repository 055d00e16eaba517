"""How few of the most sensitive layers must be kept for a budget to hold: bisection over their number.

That is partial quantization as Wu et al. 2020 do it (https://arxiv.org/abs/2004.09602, section 6.1): layers are ranked
by what quantizing each alone costs, and the worst are left in floating point. Adding them one by one would need a
measurement for each; the cost falls with every layer that is kept, or nearly, so halving finds the number in
log2(layers) of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, log2

from sottovoce.calibration.sensitivity.budget import Budget
from sottovoce.calibration.sensitivity.report import FrontierPoint
from sottovoce.runtime.errors import SottovoceError


@dataclass(frozen=True)
class SearchResult:
    """How many layers to keep, and all that was tried."""

    kept: int
    points: tuple[FrontierPoint, ...]


def most_trials(layers: int) -> int:
    """The most points that a search among so many layers measures."""
    return 1 if layers == 0 else 2 + ceil(log2(layers))


def search_kept(layers: int, budget: Budget, measure: Callable[[int], FrontierPoint]) -> SearchResult:
    """The smallest number for which the budget holds, where the cost falls with it.

    Where it does not fall everywhere, the number that is found holds all the same: it was measured.

    Args:
        layers: how many there are to keep.
        measure: what keeping the so many most sensitive ones gives.

    Raises:
        SottovoceError: it does not hold with all of them, either; says what was measured.
    """
    points: dict[int, FrontierPoint] = {}
    for kept in _trials(layers, lambda kept: budget.holds(points[kept].cost)):
        points[kept] = measure(kept)
    holding = [kept for kept, point in points.items() if budget.holds(point.cost)]
    tried = tuple(points[kept] for kept in sorted(points))
    if not holding:
        raise _impossible(layers, budget, tried)
    return SearchResult(min(holding), tried)


def _trials(layers: int, holds: Callable[[int], bool]) -> Iterator[int]:
    """Numbers to try, one after the other: none, all, then what lies between."""
    yield 0
    if holds(0) or layers == 0:
        return
    yield layers
    fails, works = 0, layers
    while holds(layers) and works - fails > 1:
        middle = (fails + works) // 2
        yield middle
        fails, works = (fails, middle) if holds(middle) else (middle, works)


def _impossible(layers: int, budget: Budget, tried: tuple[FrontierPoint, ...]) -> SottovoceError:
    none, everything = tried[0], tried[-1]
    found = f"as planned ({none.bytes / 1e6:.1f} MB) it costs {budget.says(none.cost)}"
    if layers:
        found += f", with all {layers} layers in floating point ({everything.bytes / 1e6:.1f} MB) still "
        found += budget.says(everything.cost)
    else:
        found += ", and no layer that makes the text is planned to be integers"
    return SottovoceError(
        f"the budget {budget} cannot be met: {found}",
        fix="allow more, or plan less: the KV cache and the embedding tables stay as planned whatever is kept",
    )
