"""What replies are spoken with: made once for a conversation, and gone with the reply, not with a later collection."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from scripted import samples_of, script, scripted

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.reply import AudioChunk

FIRST, SECOND = "Hello there, my friend.", "Yes, that is so."


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def sound(conversation: Conversation, question: str) -> np.ndarray:
    return np.concatenate([event.samples for event in conversation.ask(question) if isinstance(event, AudioChunk)])


@pytest.mark.usefixtures("no_collection")
def test_a_reply_is_gone_with_the_next(assistant: Assistant) -> None:
    conversation = scripted(assistant, FIRST, SECOND)
    assert samples_of(list(conversation.ask("Hello?"))) > 0
    assert conversation._reply is not None
    reply, speaker = weakref.ref(conversation._reply), weakref.ref(conversation._reply.speaker)
    list(conversation.ask("Really?"))
    assert reply() is speaker() is None


def test_the_cache_of_speech_is_made_once(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    made, codes = [], assistant._model.speech_codes
    create = codes.create_cache
    monkeypatch.setattr(codes, "create_cache", lambda: made.append(1) or create())
    conversation = scripted(assistant, FIRST, SECOND, FIRST)
    for question in ("Hello?", "Really?", "Hello?"):
        list(conversation.ask(question))
    assert len(made) == 1


def test_what_was_said_before_is_not_heard(assistant: Assistant) -> None:
    """Also where a reply was cancelled in the middle of its speech."""
    expected = sound(scripted(assistant, SECOND), "Really?")
    conversation = scripted(assistant, FIRST)
    for event in conversation.ask("Hello?"):
        if isinstance(event, AudioChunk):
            conversation.cancel(played_samples=100)
    script(assistant, conversation, SECOND)
    np.testing.assert_array_equal(sound(conversation, "Really?"), expected)
