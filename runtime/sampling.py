"""How a token is picked from logits: greedy, or drawn after penalty, temperature, top-k and top-p, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.errors import InputError

Floats = npt.NDArray[np.floating]
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SamplingOptions:
    """One way to pick tokens.

    Args:
        greedy: the most likely token (the lowest id on a tie); temperature, top-k and top-p do nothing then.
        temperature: logits are divided by it; 0 is greedy.
        top_k: only the k most likely tokens; 0 keeps all.
        top_p: the fewest most likely tokens that reach this probability (nucleus sampling, Holtzman et al. 2020);
            1 keeps all.
        repetition_penalty: logits of tokens already used are divided by it, negative ones multiplied (CTRL, Keskar
            et al. 2019); 1 does nothing.

    Raises:
        InputError: a value outside its range.
    """

    greedy: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        rules = {
            "temperature must be 0 or more": self.temperature >= 0,
            "top_k must be 0 or more": self.top_k >= 0,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "repetition_penalty must be above 0": self.repetition_penalty > 0,
        }
        for rule, holds in rules.items():
            if not holds:
                raise InputError(f"{rule}; found {self}", fix="choose a value in that range")

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.greedy or self.temperature == 0 or self.top_k == 1


class Sampler:
    """Picks tokens; the same options, seed and logits give the same tokens.

    Args:
        options: how to pick.
        seed: of the random numbers; None draws a fresh one.
    """

    def __init__(self, options: SamplingOptions, seed: int | np.random.SeedSequence | None = None) -> None:
        self.options = options
        self._random = np.random.default_rng(seed)

    @property
    def state(self) -> dict[str, Any]:
        """Where the random numbers stand: put back, the same are drawn again."""
        return dict(self._random.bit_generator.state)

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._random.bit_generator.state = state

    def pick(self, logits: Logits, used: Sequence[int] = (), banned: Sequence[int] = ()) -> int:
        """One id from `logits` (V,).

        Args:
            logits: unnormalized scores.
            used: ids that the repetition penalty is for.
            banned: ids that are never picked.
        """
        if self.options.is_greedy and not (banned or (used and self.options.repetition_penalty != 1.0)):
            return int(np.argmax(logits))  # no copy of a vocabulary for each token
        scores = np.array(logits, dtype=np.float64).reshape(-1)
        if used and self.options.repetition_penalty != 1.0:
            index = np.unique(np.asarray(used, dtype=np.int64))
            penalty = self.options.repetition_penalty
            scores[index] = np.where(scores[index] > 0, scores[index] / penalty, scores[index] * penalty)
        if banned:
            scores[np.asarray(banned, dtype=np.int64)] = -np.inf
        if self.options.is_greedy:
            return int(np.argmax(scores))
        return self._draw(scores / self.options.temperature)

    def _draw(self, scores: npt.NDArray[np.float64]) -> int:
        candidates = _top_k(scores, self.options.top_k)
        weights = np.exp(scores[candidates] - scores[candidates[0]])
        weights /= weights.sum()
        if self.options.top_p < 1.0:
            # A token stays if what is more likely than it does not reach top_p yet: at least one stays.
            kept = int(np.count_nonzero(np.cumsum(weights) - weights < self.options.top_p))
            candidates, weights = candidates[:kept], weights[:kept] / weights[:kept].sum()
        return int(self._random.choice(candidates, p=weights))


def _top_k(scores: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.int64]:
    """Ids of the k largest scores (all finite ones for k = 0), largest first, lower ids first on a tie."""
    possible = np.flatnonzero(scores > -np.inf)
    if 0 < k < possible.size:
        threshold = np.partition(scores[possible], possible.size - k)[possible.size - k]
        possible = possible[scores[possible] >= threshold]
    order = np.argsort(-scores[possible], kind="stable")
    return possible[order][: k or None]
