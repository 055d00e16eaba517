"""Two versions of a stage, side by side: how far apart, and whether that is within what the precision allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.manifest import Precision, StagePrecision
from sottovoce.runtime.records import write_record

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ParityBar:
    """What one precision must keep.

    Args:
        activations: largest absolute error of an activation or a logit, for tensors of root mean square up to 1; larger
            tensors get as much more (an absolute bar means nothing to a logit of 40). None: only the cosine counts.
        samples: the same for waveforms, which are within -1…1.
        cosine: least cosine between the two flattened tensors.
        token_margin: where the best two logits are closer than this, a different greedy token is no failure.
    """

    activations: float | None
    samples: float | None
    cosine: float
    token_margin: float


BARS: dict[Precision, ParityBar] = {
    "fp32": ParityBar(activations=1e-4, samples=2e-5, cosine=0.99999, token_margin=1e-3),
    "fp16": ParityBar(activations=None, samples=None, cosine=0.9999, token_margin=0.05),
}


@dataclass(frozen=True)
class TensorParity:
    """One tensor of a stage under both versions."""

    tensor: str
    shape: tuple[int, ...]
    largest_error: float
    cosine: float
    allowed_error: float | None
    ok: bool


@dataclass(frozen=True)
class TokenParity:
    """Greedy choices under both versions, fed the same history."""

    steps: int
    first_difference: int | None
    margin_there: float | None
    ok: bool


@dataclass(frozen=True)
class StageParity:
    """One stage: its tensors in the order they are computed, and its tokens if it picks any."""

    stage: str
    precision: StagePrecision
    seconds: float
    tensors: tuple[TensorParity, ...]
    tokens: TokenParity | None = None

    @property
    def ok(self) -> bool:
        """Whether all of it is within the bar."""
        return all(tensor.ok for tensor in self.tensors) and (self.tokens is None or self.tokens.ok)


@dataclass(frozen=True)
class ParityReport:
    """All stages that were compared."""

    stages: tuple[StageParity, ...]

    @property
    def ok(self) -> bool:
        """Whether every stage is within its bar."""
        return all(stage.ok for stage in self.stages)

    @property
    def first_divergence(self) -> str | None:
        """The first tensor, in the order of computing, that leaves its tolerance; or the first token that differs."""
        for stage in self.stages:
            for tensor in stage.tensors:
                if not tensor.ok:
                    return tensor.tensor
            if stage.tokens is not None and not stage.tokens.ok:
                return f"{stage.stage}: greedy token {stage.tokens.first_difference}"
        return None

    def as_json(self) -> dict[str, Any]:
        """The object `verify --json` prints."""
        stages = [{**write_record(stage), "ok": stage.ok} for stage in self.stages]
        return {"ok": self.ok, "stages": stages, "first_divergence": self.first_divergence}


def compare_tensor(tensor: str, reference: FloatArray, found: FloatArray, bar: ParityBar) -> TensorParity:
    """Largest error and cosine of `found` against `reference`; a different shape or a NaN is never within the bar."""
    shape = tuple(reference.shape)
    if found.shape != reference.shape or not np.isfinite(found).all():
        return TensorParity(tensor, shape, float("inf"), 0.0, None, ok=False)
    wide, other = reference.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    error = float(np.abs(wide - other).max(initial=0.0))
    cosine = _cosine(wide, other)
    allowed = _allowed(tensor, wide, bar)
    return TensorParity(
        tensor, shape, error, cosine, allowed, (allowed is None or error <= allowed) and cosine >= bar.cosine
    )


def compare_tokens(reference_logits: FloatArray, found_logits: FloatArray, bar: ParityBar) -> TokenParity:
    """Greedy choices from (steps, V) logits; near-ties of the reference may fall either way."""
    best_two = np.sort(reference_logits, axis=-1)[:, -2:]
    margins = best_two[:, 1] - best_two[:, 0]
    differs = reference_logits.argmax(-1) != found_logits.argmax(-1)
    for step in np.flatnonzero(differs):
        if margins[step] > bar.token_margin:
            return TokenParity(len(differs), int(step), float(margins[step]), ok=False)
    return TokenParity(len(differs), None, None, ok=True)


def _cosine(reference: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> float:
    norms = float(np.linalg.norm(reference) * np.linalg.norm(found))
    if norms == 0.0:
        return 1.0 if not reference.any() and not found.any() else 0.0
    return float(reference @ found) / norms


def _allowed(tensor: str, reference: npt.NDArray[np.float64], bar: ParityBar) -> float | None:
    if tensor.startswith("codec."):
        return bar.samples
    if bar.activations is None:
        return None
    scale = float(np.sqrt(np.mean(reference**2))) if reference.size else 0.0
    return bar.activations * max(scale, 1.0)
