"""From single outcomes to a table by task, each figure with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sottovoce.calibration.edit_distance import edit_distance
from sottovoce.runtime.conversation_set.item import TASKS, EvaluationItem, Measure
from sottovoce.runtime.records import write_record

NORMAL_95 = 1.959964
BOOTSTRAP_SAMPLES = 1000


@dataclass(frozen=True)
class Outcome:
    """What the bundle answered to one item."""

    item: EvaluationItem
    reply: str
    state: str | None

    @property
    def errors(self) -> int:
        """Word edits between reply and expectation (for `word_error_rate`)."""
        return edit_distance(self.item.reply.split(), self.reply.split())

    @property
    def right(self) -> bool:
        """Whether this reply is what the set expects."""
        if self.item.measure == "ignored":
            return self.state == self.item.state
        return self.reply == self.item.reply


@dataclass(frozen=True)
class TaskScore:
    """One row of the table: a share (or a rate) between 0 and 1 with its interval."""

    task: str
    measure: Measure
    count: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """The whole evaluation."""

    reply_exact: float
    """Share of exact replies over all items judged that way."""
    questions_ignored: float
    """Share of the questions that the model took for talk not meant for it."""
    tasks: tuple[TaskScore, ...]
    misses: tuple[Outcome, ...]

    def as_json(self) -> dict[str, Any]:
        """The object `evaluate --json` prints."""
        return {
            "reply_exact": self.reply_exact,
            "questions_ignored": self.questions_ignored,
            "tasks": {score.task: write_record(score) for score in self.tasks},
            "misses": [
                {
                    "task": m.item.task,
                    "expected": m.item.reply,
                    "reply": m.reply,
                    "state": m.state,
                    "audio": m.item.audio,
                }
                for m in self.misses
            ],
        }


def score(outcomes: Sequence[Outcome]) -> Scores:
    """Group outcomes by task and judge each by its measure."""
    by_task = {task: [o for o in outcomes if o.item.task == task] for task in TASKS}
    rows = tuple(_task_score(task, group) for task, group in by_task.items() if group)
    exact = [o.right for o in outcomes if o.item.measure == "exact"]
    questions = [o.state == "☟" for o in outcomes if o.item.measure != "ignored"]
    return Scores(_share(exact), _share(questions), rows, tuple(o for o in outcomes if not o.right))


def _task_score(task: str, group: Sequence[Outcome]) -> TaskScore:
    measure = TASKS[task]
    if measure == "word_error_rate":
        errors = np.array([outcome.errors for outcome in group], dtype=float)
        words = np.array([max(len(outcome.item.reply.split()), 1) for outcome in group], dtype=float)
        low, high = _bootstrap_ratio(errors, words)
        return TaskScore(task, measure, len(group), float(errors.sum() / words.sum()), low, high)
    right = [outcome.right for outcome in group]
    return TaskScore(task, measure, len(group), _share(right), *wilson_interval(sum(right), len(right)))


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): sensible at 0 and 1 and for few trials, unlike the normal one."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, NORMAL_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _bootstrap_ratio(errors: np.ndarray, words: np.ndarray) -> tuple[float, float]:
    picks = np.random.default_rng(0).integers(0, len(errors), (BOOTSTRAP_SAMPLES, len(errors)))
    ratios = errors[picks].sum(axis=1) / words[picks].sum(axis=1)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(low), float(high)


def table_rows(scores: Iterable[TaskScore]) -> list[list[str]]:
    """The table's cells: task, measure, count, value and interval in per cent."""
    return [
        [
            s.task,
            s.measure.replace("_", " "),
            str(s.count),
            f"{100 * s.value:.1f} %",
            f"{100 * s.low:.1f} to {100 * s.high:.1f}",
        ]
        for s in scores
    ]
