"""What a bundle in floating point says about a set, so that smaller ones can be held against it token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sottovoce.calibration.sensitivity.teacher_forcing import (
    Floats,
    GivenConversation,
    forced_logits,
    hold,
    kl_divergence,
    log_probabilities,
)
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.conversation_set.item import EvaluationItem
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.model import Model
from sottovoce.runtime.progress import Progress


@dataclass(frozen=True)
class Conversations:
    """What is measured on.

    Args:
        items: some of a set.
        folder: of the set.
        scratch: a folder with room, for what is in the way afterwards.
    """

    items: Sequence[EvaluationItem]
    folder: Path
    scratch: Path


class Teacher:
    """Replies of a bundle, and its distribution of the next token at every place of them.

    The distributions lie in a file that is mapped: those of a large vocabulary fill gigabytes.

    Args:
        model: the bundle in floating point.
        data: conversations.
        most_positions: conversations beyond so many predicted tokens are left out.
    """

    def __init__(self, model: Model, data: Conversations, most_positions: int) -> None:
        self._model = model
        self._data = data
        self._path = data.scratch / "next_tokens.f32"
        self._most_positions = most_positions
        self.conversations: list[GivenConversation] = []

    def listen(self, progress: Progress) -> None:
        """Note what the bundle replies, and how sure it is.

        Raises:
            InputError: a recording, picture or clip that cannot be read.
        """
        assistant, items, positions = Assistant(self._model), self._data.items, 0
        with self._path.open("wb") as file:
            for number, item in enumerate(items, start=1):
                given = hold(assistant, item, self._data.folder)
                for logits in forced_logits(self._model, given, self._data.folder):
                    file.write(log_probabilities(logits).tobytes())
                self.conversations.append(given)
                progress.step("listening to the original", number, len(items))
                positions += given.positions
                if positions >= self._most_positions:
                    break
        progress.step("listening to the original", len(items), len(items))

    def divergence_of(self, model: Model, changed: StageName | None = None, progress: Progress | None = None) -> float:
        """Mean KL divergence of a model's next-token distributions from the bundle's, in nats.

        Args:
            model: the bundle with something changed.
            changed: the only stage that differs; conversations that do not use it are known to be the same.
            progress: told of each conversation.
        """
        expected = np.memmap(self._path, np.float32, "r").reshape(self.positions, -1)
        total, place = 0.0, 0
        for number, given in enumerate(self.conversations, start=1):
            rows = expected[place : place + given.positions]
            place += given.positions
            if _uses(given, changed):
                total += self._divergence(model, given, rows)
            if progress is not None:
                progress.step("comparing next tokens", number, len(self.conversations))
        return total / self.positions

    def uses(self, stage: StageName) -> bool:
        """Whether any conversation goes through a stage."""
        return any(_uses(given, stage) for given in self.conversations)

    @property
    def positions(self) -> int:
        """Tokens that are predicted in all."""
        return sum(given.positions for given in self.conversations)

    def _divergence(self, model: Model, given: GivenConversation, expected: Floats) -> float:
        found = forced_logits(model, given, self._data.folder)
        return sum(kl_divergence(row, log_probabilities(logits)) for row, logits in zip(expected, found, strict=True))


def _uses(given: GivenConversation, stage: StageName | None) -> bool:
    if stage == "audio_encoder":
        return given.hears
    return given.sees if stage == "vision_encoder" else True
