"""How far a model's next-token distributions are from the reference's, over windows of text. Needs numpy alone: peers
with a Python of their own import it, too."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass
class Divergence:
    """Sums over positions; windows are appended one at a time."""

    positions: int = 0
    predicted: int = 0
    same_top: int = 0
    surprise: float = 0.0
    kl: list[float] = field(default_factory=list)

    def append(self, reference: Floats, logits: Floats, tokens: npt.NDArray[np.int64]) -> None:
        """One window: (T, vocabulary) logits of both, and the (T,) tokens that were fed."""
        for start in range(0, len(tokens), 64):
            rows = slice(start, start + 64)
            expected, found = log_softmax(reference[rows]), log_softmax(logits[rows])
            self.kl += (np.exp(expected) * (expected - found)).sum(axis=1).tolist()
            self.same_top += int((expected.argmax(axis=1) == found.argmax(axis=1)).sum())
            following = tokens[start + 1 : start + 65]
            self.surprise -= float(found[np.arange(len(following)), following].sum())
            self.predicted += len(following)
        self.positions += len(tokens)

    def figures(self) -> dict[str, float]:
        """Mean KL in nats, its 95 % half-width over positions, perplexity, and how often the likeliest token is the
        same."""
        return {
            "kl": float(np.mean(self.kl)),
            "kl_within": float(1.96 * np.std(self.kl) / np.sqrt(len(self.kl))),
            "perplexity": float(np.exp(self.surprise / self.predicted)),
            "same_top": self.same_top / self.positions,
            "positions": float(self.positions),
        }


def log_softmax(logits: Floats) -> npt.NDArray[np.float64]:
    """(T, vocabulary) → natural logarithms of probabilities."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def open_reference(folder: Path) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The mapped (windows, T, vocabulary) logits and the (windows, T) tokens that `folder` holds."""
    return np.load(folder / "logits.npy", mmap_mode="r"), np.load(folder / "tokens.npy")
