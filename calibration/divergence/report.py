"""What a comparison of two bundles found, for people and for programs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sottovoce.calibration.divergence.tokens import TokenComparison, TokenDifference
from sottovoce.calibration.divergence.verdict import Verdict
from sottovoce.runtime.manifest import StageName, StagePrecision
from sottovoce.runtime.records import write_record


@dataclass(frozen=True)
class StageDivergence:
    """One stage under both bundles.

    Args:
        stage: which graph.
        precision: of the smaller bundle's.
        is_same_file: whether both bundles hold the same graph and weights; nothing was computed then.
        values: how many values were compared; 1 where only the outputs bear the same names.
        largest_error: relative error of the worst value, see `Difference`.
        largest_error_at: its name.
        allowed: the stage's tolerance.
        cosine: of the stage's output, computed as in a conversation.
        signal_to_noise_db: the same output's; None: it is equal.
        tokens: of a decoder.
        ok: whether all of it is within the tolerance.
    """

    stage: StageName
    precision: StagePrecision
    is_same_file: bool
    values: int
    largest_error: float
    largest_error_at: str
    allowed: float
    cosine: float
    signal_to_noise_db: float | None
    tokens: TokenComparison | None
    ok: bool


@dataclass(frozen=True)
class FirstDivergence:
    """The first value, in the order of computing, that leaves its tolerance.

    Args:
        stage: where.
        tensor: its name in the graph.
        error: its relative error.
        allowed: the tolerance.
        verdict: what is to blame.
        token: the first token that differs by more than a near-tie, if the tokens are what is wrong.
    """

    stage: StageName
    tensor: str
    error: float
    allowed: float
    verdict: Verdict
    token: TokenDifference | None = None

    def __str__(self) -> str:
        if self.token is not None:
            token = self.token
            what = (
                f"greedy token {token.position} of reply {token.reply} is {token.found} {token.found_text!r}, expected "
                f"{token.expected} {token.expected_text!r} by a margin of {token.margin:.3g} (allowed "
                f"{token.allowed:.3g})"
            )
        else:
            what = f"{self.tensor!r} is {self._off()}, allowed {100 * self.allowed:.2g} %"
        verdict = self.verdict
        return f"stage {self.stage!r}: {what}\n  {verdict.blame}: {verdict.reason}\n  fix: {verdict.advice}"

    def _off(self) -> str:
        if math.isinf(self.error):
            return "no number, or of another shape"
        return f"{100 * self.error:.2g} % off" if self.error < 2 else f"off by {self.error:.3g} times its own size"

    def as_json(self) -> dict[str, Any]:
        """One flat object."""
        verdict = write_record(self.verdict)
        return {**write_record(self), **verdict, "verdict": str(self)}


@dataclass(frozen=True)
class DivergenceReport:
    """All six stages, and the first divergence."""

    stages: tuple[StageDivergence, ...]
    first_divergence: FirstDivergence | None

    @property
    def ok(self) -> bool:
        """Whether every stage is within its tolerance."""
        return self.first_divergence is None

    def as_json(self) -> dict[str, Any]:
        """The object that `verify --against --json` prints; an infinite error is null."""
        first = None if self.first_divergence is None else self.first_divergence.as_json()
        whole: dict[str, Any] = {"ok": self.ok, "stages": write_record(self.stages), "first_divergence": first}
        finite: dict[str, Any] = _finite(whole)
        return finite


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
