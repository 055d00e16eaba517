"""A sampler that says what a test wants said, so that a model of random weights gives replies that can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.reply import AudioChunk, ReplyDone, ReplyEvent, TextDelta
from sottovoce.runtime.sampling import Sampler, SamplingOptions


class ScriptedSampler(Sampler):
    """Picks the given ids, whatever the logits are."""

    def __init__(self, ids: Sequence[int]) -> None:
        super().__init__(SamplingOptions(greedy=True))
        self._ids: Iterator[int] = iter(ids)

    def pick(self, logits: np.ndarray, used: Sequence[int] = (), banned: Sequence[int] = ()) -> int:
        return next(self._ids)


def scripted(assistant: Assistant, *replies: str, stop: bool = True, **options) -> Conversation:
    """A conversation in which the model says `replies`, one a turn."""
    conversation = assistant.conversation("You are a helpful assistant.", greedy=True, **options)
    script(assistant, conversation, *replies, stop=stop)
    return conversation


def script(assistant: Assistant, conversation: Conversation, *replies: str, stop: bool = True) -> None:
    tokenizer, ids = assistant._model.tokenizer, []
    for reply in replies:
        ids += tokenizer.encode_plain(reply)
        ids += assistant.bundle.manifest.generation.stop_ids[:1] if stop else ()
    conversation._text_sampler = ScriptedSampler(ids)


def text_of(events: Sequence[ReplyEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def samples_of(events: Sequence[ReplyEvent]) -> int:
    return sum(len(event.samples) for event in events if isinstance(event, AudioChunk))


def done_of(events: Sequence[ReplyEvent]) -> ReplyDone:
    """The last event, which must be the only end."""
    assert [isinstance(event, ReplyDone) for event in events].index(True) == len(events) - 1
    return events[-1]
