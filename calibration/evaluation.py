"""Run a set of conversations through a bundle and note what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sottovoce.calibration.evaluation_set import EvaluationItem
from sottovoce.calibration.scores import Outcome
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.progress import Progress
from sottovoce.runtime.reply import ReplyDone

MAX_NEW_TOKENS = 256
"""A reply that runs on is wrong anyway; this keeps a broken model from taking all day."""


def evaluate(assistant: Assistant, items: Sequence[EvaluationItem], folder: Path, progress: Progress) -> list[Outcome]:
    """Greedy answers to every item, text alone.

    The earlier user turns of an item's history are asked in the same conversation, as typed text, so that the bundle's
    own replies (and its KV cache) are what a follow-up meets.

    Raises:
        InputError: a recording, picture or clip that cannot be read.
    """
    outcomes: list[Outcome] = []
    for number, item in enumerate(items):
        conversation = assistant.conversation(greedy=True, speech=False, max_new_tokens=MAX_NEW_TOKENS)
        for turn in item.history:
            if turn.role == "user":
                _ask(conversation, EvaluationItem(task=item.task, reply="", text=turn.text), folder)
        done = _ask(conversation, item, folder)
        # A reply that is not addressed to anyone has no text; what was begun before the state token does not count.
        outcomes.append(Outcome(item, done.text.strip(), done.state))
        progress.step("answering", number + 1, len(items))
    return outcomes


def _ask(conversation: Conversation, item: EvaluationItem, folder: Path) -> ReplyDone:
    events = conversation.ask(
        item.text,
        folder / item.audio if item.audio else None,
        [folder / image for image in item.images],
        folder / item.video if item.video else None,
    )
    *_, done = events
    assert isinstance(done, ReplyDone)  # noqa: S101  # a reply's stream always ends so
    return done
