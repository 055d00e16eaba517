"""A bundle's next-token distributions along replies that another one gave: both see the same words at every place.

Left to itself, a smaller bundle says something else after its first other token, and all that follows would differ
for that reason alone. Along given replies every token says how far apart the two are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sottovoce.calibration.replay import replay_turns
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.conversation_set.item import EvaluationItem, HistoryTurn
from sottovoce.runtime.dialogue.context import embeddings_of
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.question import Question, parts_of, prepare
from sottovoce.runtime.reply import Reason

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GivenReply:
    """One turn: what was asked, and the ids that were replied."""

    asked: EvaluationItem | HistoryTurn
    tokens: tuple[int, ...]
    reason: Reason

    @property
    def fed(self) -> tuple[int, ...]:
        """The ids that the decoder reads: one that ended the reply by its limit is only read with the next turn."""
        return self.tokens if self.reason == "stop" else self.tokens[:-1]

    @property
    def positions(self) -> int:
        """Places at which a next token is predicted."""
        return len(self.fed) + 1


@dataclass(frozen=True)
class GivenConversation:
    """A conversation of a set with the replies that one bundle gave."""

    item: EvaluationItem
    turns: tuple[GivenReply, ...]

    @property
    def positions(self) -> int:
        """Places at which a next token is predicted, in all turns."""
        return sum(turn.positions for turn in self.turns)

    @property
    def hears(self) -> bool:
        """Whether there is a recording in any turn."""
        return any(turn.asked.audio is not None for turn in self.turns)

    @property
    def sees(self) -> bool:
        """Whether there is a picture or a clip in any turn."""
        return any(turn.asked.images or turn.asked.video is not None for turn in self.turns)


def hold(assistant: Assistant, item: EvaluationItem, folder: Path) -> GivenConversation:
    """Let a bundle answer, greedily.

    Raises:
        InputError: a recording, picture or clip that cannot be read.
    """
    asked: list[EvaluationItem | HistoryTurn] = [*(turn for turn in item.history if turn.role == "user"), item]
    done = replay_turns(assistant, item, folder, speech=False)
    turns = (GivenReply(turn, reply.tokens, reply.reason) for turn, reply in zip(asked, done, strict=True))
    return GivenConversation(item, tuple(turns))


def forced_logits(model: Model, given: GivenConversation, folder: Path) -> Iterator[Floats]:
    """Logits (V,) of the next token at every position of the given replies, in order.

    Args:
        model: whose logits they are; its encoders listen and look, its language model reads the given tokens.
        given: the replies.
        folder: of the set.
    """
    prompt, language_model = model.prompt, model.language_model
    cache, unfed = language_model.create_cache(), list[int]()
    for turn in given.turns:
        before = cache.length
        question = _question(turn.asked, folder)
        prepared = prepare(question, model.manifest, Stopwatch())
        content = prepared.content
        if before:
            opening = [*unfed, *prompt.tokenizer.encode(prompt.spec.turn_end), *prompt.after_reply()]
        else:
            own = prompt.system_text(images=content.tiles > 0 and not prepared.has_video, video=prepared.has_video)
            opening = prompt.system(own if given.item.system is None else given.item.system)
        parts = parts_of([*opening, *prompt.user(content)], prepared, model, Stopwatch(), None)
        yield language_model.prefill(embeddings_of(parts, model.token_embeddings.rows), cache)
        for token in turn.fed:
            yield language_model.step(model.token_embeddings.rows([token]), cache)
        if turn.reason == "not_addressed":
            cache.rewind(before)
        else:
            unfed = list(turn.tokens[len(turn.fed) :])


def log_probabilities(logits: Floats) -> Floats:
    """(V,) logits → (V,) natural logarithms of the probabilities."""
    wide = logits.astype(np.float64)
    wide -= wide.max()
    result: Floats = (wide - np.log(np.exp(wide).sum())).astype(np.float32)
    return result


def kl_divergence(expected: Floats, found: Floats) -> float:
    """Nats that `found` needs more than `expected` to say what `expected` says; both are logarithms (V,)."""
    wide = expected.astype(np.float64)
    return max(float(np.exp(wide) @ (wide - found)), 0.0)


def _question(asked: EvaluationItem | HistoryTurn, folder: Path) -> Question:
    return Question(
        asked.text,
        folder / asked.audio if asked.audio else None,
        [folder / image for image in asked.images],
        folder / asked.video if asked.video else None,
    )
