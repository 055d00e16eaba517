"""What a smaller bundle costs in answers: the same set, held with the bundle it was made from and with itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sottovoce.calibration.evaluation import evaluate
from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.ranges.calibrate import data_hash
from sottovoce.calibration.scores import Outcome, Scores, score
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.progress import Progress


@dataclass(frozen=True)
class Miss:
    """A reply that was right before and is not any more.

    Args:
        outcome: of the smaller bundle.
        before: what the bundle it was made from replied.
    """

    outcome: Outcome
    before: str


@dataclass(frozen=True)
class QualityCost:
    """Scores of both bundles on one set.

    Args:
        data: the set's folder.
        data_sha256: of the set and all its files.
        before: scores of the bundle that the smaller one was made from.
        after: scores of the smaller one.
        same_replies: share of the replies that are the same, character for character and with the same state.
        misses: what was right before and is not any more.
    """

    data: Path
    data_sha256: str
    items: int
    before: Scores
    after: Scores
    same_replies: float
    misses: tuple[Miss, ...]

    @property
    def points_lost(self) -> float:
        """Exact replies lost, in points of a hundred; negative when it answers better."""
        return 100 * (self.before.reply_exact - self.after.reply_exact)

    def summary(self) -> dict[str, float]:
        """What the manifest says of it."""
        return {
            "items": float(self.items),
            "reply_exact_before": self.before.reply_exact,
            "reply_exact_after": self.after.reply_exact,
            "same_replies": self.same_replies,
        }

    def as_json(self) -> dict[str, Any]:
        """For the report: both tables and the misses."""
        misses = [
            {
                "task": miss.outcome.item.task, "expected": miss.outcome.item.reply, "before": miss.before,
                "after": miss.outcome.reply, "state": miss.outcome.state, "audio": miss.outcome.item.audio,
            }
            for miss in self.misses
        ]  # fmt: skip
        scores = {"before": self.before.as_json(), "after": self.after.as_json()}
        for half in scores.values():
            del half["misses"]
        return {"data_sha256": self.data_sha256, **self.summary(), **scores, "misses": misses}


def measure_cost(before: Path, after: Path, data: Path, progress: Progress) -> QualityCost:
    """Hold every conversation of a set with two bundles.

    Raises:
        InputError: not a set.
        BundleError: one of the bundles is none.
    """
    items = read_evaluation_set(data)
    answered: list[Sequence[Outcome]] = []
    for bundle in (before, after):
        with Assistant.open(bundle, verify_hashes=False) as assistant:
            answered.append(evaluate(assistant, items, data, progress))
    pairs = list(zip(*answered, strict=True))
    same = sum((old.reply, old.state) == (new.reply, new.state) for old, new in pairs)
    misses = tuple(Miss(new, old.reply) for old, new in pairs if old.right and not new.right)
    old_scores, new_scores = (score(outcomes) for outcomes in answered)
    return QualityCost(data, data_hash(data, items), len(items), old_scores, new_scores, same / len(items), misses)
