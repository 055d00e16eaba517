"""The KV cache as the conversation: what was fed, where each turn begins, and what to forget when it is nearly full."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.kv_cache import CacheSnapshot
from sottovoce.runtime.stages.language_model import LanguageModel

Floats = npt.NDArray[np.float32]
Logits = npt.NDArray[np.float32]
Part = tuple[int, ...] | Floats
"""Something fed: ids of the embedding table, or embeddings (n, width) that an encoder gave."""
EmbeddingRows = Callable[[Sequence[int]], Floats]
REFILL_POSITIONS = 64
"""What is remembered is fed again in slices as long as a spoken turn: an engine keeps the working memory of its largest
call, so that longer ones would cost a conversation memory (8 MB with the miniature) that no turn ever needs."""


@dataclass(eq=False)
class Mark:
    """A position that stays where it means to be when old turns are forgotten before it."""

    position: int


@dataclass(frozen=True)
class ContextSnapshot:
    """All that a context holds: the cache, what it was filled from, and where turns begin."""

    cache: CacheSnapshot
    parts: tuple[Part, ...]
    turns: tuple[int, ...]


def embeddings_of(parts: Iterable[Part], rows: EmbeddingRows) -> Floats:
    """(positions, width) of ids and embeddings, in order."""
    return np.concatenate([rows(part) if isinstance(part, tuple) else part for part in parts])


class Context:
    """The language model's memory of one conversation: append, rewind, and forget the oldest turns.

    What was fed is kept beside the cache, ids as ids, so that the cache can be filled again from a later turn on: a
    key's place is turned into it, so what comes behind a forgotten turn must be computed anew.

    Args:
        model: gives the decoder; asked at every call, so that a closed assistant says so.
        rows: ids → (n, width) of the embedding table.
        limit: positions that may be filled.
    """

    def __init__(self, model: Callable[[], LanguageModel], rows: EmbeddingRows, limit: int) -> None:
        self._model = model
        self._rows = rows
        self.limit = limit
        self._cache = model().create_cache()
        self._parts: list[list[int] | Floats] = []
        self._turns: list[Mark] = []
        self._marks: weakref.WeakSet[Mark] = weakref.WeakSet()
        self.forgotten_turns = 0
        """User turns that were forgotten so far."""

    @property
    def length(self) -> int:
        """Positions that are filled."""
        return self._cache.length

    @property
    def room(self) -> int:
        """Positions that are free."""
        return self.limit - self._cache.length

    @property
    def turns(self) -> int:
        """User turns that are remembered."""
        return len(self._turns)

    def mark(self, ahead: int = 0) -> Mark:
        """The end as it is now, or so many positions further."""
        mark = Mark(self.length + ahead)
        self._marks.add(mark)
        return mark

    def begin_turn(self, ahead: int) -> None:
        """The next user turn begins `ahead` positions behind the end, where the last reply will have been closed."""
        self._turns.append(self.mark(ahead))

    def append(self, parts: Sequence[Part]) -> Logits:
        """Feed `parts`, at least one position → (V,) logits of what follows. All of it is kept, or nothing.

        Raises:
            InputError: there is no room for it.
            BackendError: the engine failed.
        """
        parts = [part for part in parts if len(part)]
        positions = sum(len(part) for part in parts)
        if positions > self.room:
            message = f"{positions} more positions after {self.length}; the model's context holds {self.limit}"
            raise InputError(message, fix="start a new conversation, or ask with less")
        logits = self._model().prefill(embeddings_of(parts, self._rows), self._cache)
        for part in parts:
            self._note(part)
        return logits

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions, and the turns that began behind them.

        Raises:
            ValueError: more than there are, a mistake of the caller.
        """
        self._cache.rewind(length)
        self._parts = [list(part) if isinstance(part, tuple) else part for part in _between(self._parts, 0, length)]
        while self._turns and self._turns[-1].position > length:
            self._turns.pop()

    def make_room(self, wanted: int) -> Logits | None:
        """Forget as few of the oldest turns as leaves `wanted` positions free; the system text and the last turn stay.

        Returns:
            The logits (V,) of what follows the last position, or None if nothing was forgotten: there was room, or the
            last turn alone fills it.

        Raises:
            BackendError: the engine failed; all turns are forgotten then, and the system text stays.
        """
        first = next((n for n in range(1, len(self._turns)) if self._room_from(n) >= wanted), None)
        if self.room >= wanted or first is None:
            return None
        begin, cut = self._turns[0].position, self._turns[first].position
        kept, turns = list(_between(self._parts, cut, self.length)), self._turns[first:]
        self.forgotten_turns += first
        self.rewind(begin)
        for mark in self._marks:
            mark.position = mark.position - (cut - begin) if mark.position >= cut else min(mark.position, begin)
        self._turns = []
        logits = self._refill(kept)
        self._turns = turns
        return logits

    def _refill(self, kept: Sequence[Part]) -> Logits | None:
        """Feed what is remembered, a slice at a time; all of it is kept, or nothing."""
        begin, positions, logits = self.length, sum(len(part) for part in kept), None
        try:
            for start in range(0, positions, REFILL_POSITIONS):
                logits = self.append(list(_between(kept, start, start + REFILL_POSITIONS)))
        except BaseException:
            self.rewind(begin)
            raise
        return logits

    def snapshot(self) -> ContextSnapshot:
        """Copy out all that is there."""
        parts = tuple(tuple(part) if isinstance(part, list) else part for part in self._parts)
        return ContextSnapshot(self._cache.snapshot(), parts, tuple(mark.position for mark in self._turns))

    def resume(self, snapshot: ContextSnapshot) -> None:
        """Put a snapshot back, whatever is there now.

        Raises:
            ContextFullError: it is longer than this decoder's context.
        """
        self._cache.resume(snapshot.cache)
        self._parts = [list(part) if isinstance(part, tuple) else part for part in snapshot.parts]
        self._turns = [Mark(position) for position in snapshot.turns]
        self._marks = weakref.WeakSet(self._turns)

    def _room_from(self, turn: int) -> int:
        """Free positions if all before user turn `turn` were forgotten."""
        return self.room + self._turns[turn].position - self._turns[0].position

    def _note(self, part: Part) -> None:
        if not isinstance(part, tuple):
            self._parts.append(part)
        elif self._parts and isinstance(self._parts[-1], list):
            self._parts[-1] += part
        else:
            self._parts.append(list(part))


def _between(parts: Iterable[list[int] | Part], start: int, end: int) -> Iterator[Part]:
    """The positions [start, end) of `parts`, which follow one another from position 0."""
    at = 0
    for part in parts:
        piece = part[max(start - at, 0) : max(end - at, 0)]
        at += len(part)
        if len(piece):
            yield piece if isinstance(piece, np.ndarray) else tuple(piece)
