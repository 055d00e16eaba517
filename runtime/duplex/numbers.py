"""Numbers that can be counted and timed with: not negative, not NaN, inside their range."""

from __future__ import annotations

import math
from typing import Any

from sottovoce.runtime.records import RecordError


def check_numbers(record: Any) -> None:
    """Check every number of a flat dataclass.

    Raises:
        RecordError: one is negative, infinite or not a number.
    """
    for name, value in vars(record).items():
        if isinstance(value, (int, float)) and not 0 <= value < math.inf:
            check_range(f"{type(record).__name__}.{name}", value, 0, None)


def check_range(path: str, value: float, low: float, high: float | None) -> None:
    """Check one number; `path` is what a message calls it.

    Raises:
        RecordError: it is below `low`, above `high`, or not finite.
    """
    if low <= value <= (math.inf if high is None else high) and math.isfinite(value):
        return
    expected = f"at least {low}" if high is None else f"{low} to {high}"
    raise RecordError(f"{path} is {value!r}, expected {expected}", fix=f"correct {path}")
