"""Run a set of conversations through a bundle and note what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sottovoce.calibration.replay import replay
from sottovoce.calibration.scores import Outcome
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.conversation_set.item import EvaluationItem
from sottovoce.runtime.progress import Progress


def evaluate(
    assistant: Assistant,
    items: Sequence[EvaluationItem],
    folder: Path,
    progress: Progress,
    *,
    streamed: bool = False,
) -> list[Outcome]:
    """Greedy answers to every item, text alone.

    Args:
        assistant: the bundle.
        items: the set's conversations.
        folder: of the set.
        progress: told of each answer.
        streamed: recordings are heard while they go on, as `chat` hears them.

    Raises:
        InputError: a recording, picture or clip that cannot be read.
        BackendError: streamed, and nothing is installed that tells speech from silence.
    """
    outcomes: list[Outcome] = []
    for number, item in enumerate(items):
        done = replay(assistant, item, folder, speech=False, streamed=streamed)
        # A reply that is not addressed to anyone has no text; what was begun before the state token does not count.
        outcomes.append(Outcome(item, done.text.strip(), done.state))
        progress.step("answering", number + 1, len(items))
    return outcomes
