"""What a smaller bundle may cost: `reply-exact:-0.5`, `wer:1.0`, `logit-kl:0.01`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from sottovoce.runtime.conversation_set.item import EvaluationItem
from sottovoce.runtime.errors import SottovoceError

BudgetMeasure = Literal["reply-exact", "wer", "logit-kl"]
MEASURES: tuple[BudgetMeasure, ...] = get_args(BudgetMeasure)
EXAMPLES: Mapping[BudgetMeasure, str] = {
    "reply-exact": "reply-exact:-0.5 (half a point of a hundred fewer exact replies)",
    "wer": "wer:1.0 (one more word in a hundred wrong, of what is to be said after the user)",
    "logit-kl": "logit-kl:0.01 (nats between the next-token distributions)",
}
UNITS: Mapping[BudgetMeasure, str] = {
    "reply-exact": "points of exact replies lost",
    "wer": "points of word error rate more",
    "logit-kl": "nats of KL divergence",
}


@dataclass(frozen=True)
class Budget:
    """The most that may be lost.

    Args:
        measure: in what.
        limit: the highest cost that holds, 0 or more: points of a hundred, or nats.
    """

    measure: BudgetMeasure
    limit: float

    def __str__(self) -> str:
        return f"{self.measure}:{-self.limit if self.measure == 'reply-exact' and self.limit else self.limit:g}"

    def holds(self, cost: float) -> bool:
        """Whether a cost is within it; the last bits of a difference of two shares do not count."""
        return cost <= self.limit + 1e-9

    def says(self, cost: float) -> str:
        """A cost in words."""
        return f"{cost:.3g} {UNITS[self.measure]}"

    def judges(self, item: EvaluationItem) -> bool:
        """Whether a conversation says anything about it."""
        wanted = {"reply-exact": "exact", "wer": "word_error_rate", "logit-kl": item.measure}
        return item.measure == wanted[self.measure]


def parse_budget(text: str) -> Budget:
    """Read what `--budget` says.

    Raises:
        SottovoceError: not MEASURE:NUMBER, an unknown measure, or a number on the wrong side of 0; the valid ones are
            listed.
    """
    name, colon, number = (piece.strip() for piece in text.partition(":"))
    measure = next((known for known in MEASURES if known == name), None)
    if measure is None:
        raise SottovoceError(f"--budget {text!r}: there is no measure {name!r}", fix=_usage())
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not colon or not math.isfinite(value):
        raise SottovoceError(f"--budget {text!r}: {number!r} is not a number", fix=_usage())
    limit = -value if measure == "reply-exact" else value
    if limit < 0:
        wanted = "0 or less: a change in exact replies" if measure == "reply-exact" else "0 or more: an increase"
        raise SottovoceError(f"--budget {text!r}: {number} is beyond what can be, expected {wanted}", fix=_usage())
    return Budget(measure, limit + 0.0)


def _usage() -> str:
    return f"write {'; '.join(EXAMPLES.values())}"
