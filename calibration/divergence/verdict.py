"""What a comparison says is to blame for a value that left its tolerance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Blame = Literal["range", "scale", "op"]


@dataclass(frozen=True)
class Verdict:
    """What is to blame.

    Args:
        blame: *range*: values exceed what their scale holds; *scale*: the step is coarse for most values; *op*: the
            operator's result is not what its inputs give.
        at: the value or weight where the error comes in.
        reason: how that shows, in numbers.
        advice: what to do.
        numbers: the same for programs.
    """

    blame: Blame
    at: str
    reason: str
    advice: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
