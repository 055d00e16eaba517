"""What a whole smaller bundle costs in the budget's own measure, on conversations that no layer was ranked on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sottovoce.calibration.evaluation import evaluate
from sottovoce.calibration.scores import Outcome, score
from sottovoce.calibration.sensitivity.budget import Budget
from sottovoce.calibration.sensitivity.teacher import Conversations, Teacher
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.conversation_set.item import TASKS
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.model import Model
from sottovoce.runtime.progress import Progress

MOST_POSITIONS = 4096
"""Predicted tokens that a budget of KL divergence is held on."""


class Acceptance:
    """Costs of smaller bundles against the one they are made from.

    Args:
        source: that one.
        budget: says in what the cost is.
        data: conversations; those that say nothing about it are left out.
        progress: told of each answer.

    Raises:
        InputError: none of the conversations says anything about the budget.
    """

    def __init__(self, source: Bundle, budget: Budget, data: Conversations, progress: Progress) -> None:
        self._source, self._budget, self._progress = source, budget, progress
        self.data = replace(data, items=[item for item in data.items if budget.judges(item)])
        if not self.data.items:
            raise _says_nothing(budget, data)
        self._before: float | None = None
        self._teacher: Teacher | None = None

    def cost(self, bundle: Path) -> float:
        """In points of a hundred, or in nats; below 0 where the smaller one is better.

        Raises:
            InputError: no reply was exact before, so that none could be lost.
        """
        if self._budget.measure == "logit-kl":
            return self._divergence(bundle)
        if self._before is None:
            self._before = self._badness(self._source.path)
            if self._budget.measure == "reply-exact" and self._before == 1:
                raise _nothing_right(self.data)
        return 100 * (self._badness(bundle) - self._before)

    def _badness(self, bundle: Path) -> float:
        """Share of replies that are not exact, or words wrong a word."""
        with Assistant.open(bundle, verify_hashes=False) as assistant:
            outcomes = evaluate(assistant, self.data.items, self.data.folder, self._progress)
        return word_error_rate(outcomes) if self._budget.measure == "wer" else 1 - score(outcomes).reply_exact

    def _divergence(self, bundle: Path) -> float:
        if self._teacher is None:
            model = Model(self._source)
            self._teacher = Teacher(model, self.data, MOST_POSITIONS)
            self._teacher.listen(self._progress)
            model.close()
        model = Model(Bundle.open(bundle, verify_hashes=False))
        try:
            return self._teacher.divergence_of(model, progress=self._progress)
        finally:
            model.close()


def word_error_rate(outcomes: Sequence[Outcome]) -> float:
    """Word edits over words expected, of all outcomes together."""
    return sum(outcome.errors for outcome in outcomes) / sum(max(len(o.item.reply.split()), 1) for o in outcomes)


def _says_nothing(budget: Budget, data: Conversations) -> InputError:
    wanted = "word_error_rate" if budget.measure == "wer" else "exact"
    tasks = ", ".join(task for task, measure in TASKS.items() if measure == wanted)
    return InputError(
        f"none of the {len(data.items)} conversations that the budget is held on says anything about {budget.measure}",
        file=data.folder,
        fix=f"add conversations of these tasks: {tasks}; or choose another measure",
    )


def _nothing_right(data: Conversations) -> InputError:
    return InputError(
        f"none of {len(data.items)} replies is exact before anything is quantized: any bundle would hold this budget",
        file=data.folder,
        fix="give conversations with the replies that are right (`run --capture` writes the bundle's own), or hold "
        "logit-kl",
    )
