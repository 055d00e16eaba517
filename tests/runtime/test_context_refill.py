"""A context that forgets its oldest turns is filled again in calls no larger than a turn's; all of it, or nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.dialogue.context import REFILL_POSITIONS, Context
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.stages.language_model import LanguageModel

LIMIT = 400
TURN = tuple(range(40, 130))


class Counted:
    """A language model that notes how much it is fed at a time, and can fail."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.fed: list[int] = []
        self.fails_at: int | None = None

    def create_cache(self) -> KVCache:
        return self._model.create_cache()

    def prefill(self, embeddings: np.ndarray, cache: KVCache) -> np.ndarray:
        self.fed.append(len(embeddings))
        if self.fails_at == len(self.fed):
            raise BackendError("out of memory")
        return self._model.prefill(embeddings, cache)


def filled(assistant: Assistant) -> tuple[Context, Counted]:
    """A system text of 20 positions and four turns of 90."""
    model = Counted(assistant._model.language_model)
    context = Context(lambda: model, assistant._model.token_embeddings.rows, LIMIT)  # type: ignore[arg-type,return-value]
    context.append([tuple(range(300, 320))])
    for turn in range(4):
        context.begin_turn(0)
        context.append([(*TURN[turn:], *TURN[:turn])])
    model.fed.clear()
    return context, model


def logits_of(assistant: Assistant, ids: Sequence[int]) -> np.ndarray:
    model = assistant._model
    return model.language_model.prefill(model.token_embeddings.rows(ids), model.language_model.create_cache())


def test_it_is_fed_again_in_slices(assistant: Assistant) -> None:
    context, model = filled(assistant)
    logits = context.make_room(200)
    assert logits is not None
    assert sum(model.fed) == 2 * len(TURN)
    assert max(model.fed) == REFILL_POSITIONS < 2 * len(TURN)
    assert (context.length, context.turns, context.forgotten_turns) == (200, 2, 2)
    kept = [(*TURN[turn:], *TURN[:turn]) for turn in (2, 3)]
    expected = logits_of(assistant, [*range(300, 320), *kept[0], *kept[1]])
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_half_of_it_is_not_kept(assistant: Assistant) -> None:
    context, model = filled(assistant)
    model.fails_at = 2
    with pytest.raises(BackendError, match="out of memory"):
        context.make_room(200)
    assert (context.length, context.turns) == (20, 0)
    model.fails_at = None
    again = context.append([TURN])
    np.testing.assert_allclose(again, logits_of(assistant, [*range(300, 320), *TURN]), atol=1e-4)
