"""The conversation in its thread: in order, interrupted at any moment, one end a reply, and never left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from espeak import spoken
from PIL import Image
from scripted import ScriptedSampler, scripted

from sottovoce.runtime.chat.worker import ConversationWorker, Cut, Ended, Made, Message, Trouble
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.reply import AudioChunk, ReplyDone, TextDelta

FIRST, SECOND = "Hello there, my friend. It is seven.", "Yes, that is so."
QUESTION = "What is seven plus five"


class GatedSampler(ScriptedSampler):
    """Says what is scripted, and waits before one token until it may go on."""

    def __init__(self, ids: Sequence[int], at: int) -> None:
        super().__init__(ids)
        self._at = at
        self.reached, self.may_go_on = threading.Event(), threading.Event()
        self.picked = 0

    def pick(self, logits: np.ndarray, used: Sequence[int] = (), banned: Sequence[int] = ()) -> int:
        if self.picked == self._at:
            self.reached.set()
            assert self.may_go_on.wait(20)
        self.picked += 1
        return super().pick(logits, used, banned)


def gate(assistant, conversation: Conversation, reply: str, at: int) -> GatedSampler:
    ids = assistant._model.tokenizer.encode_plain(reply) + list(assistant.bundle.manifest.generation.stop_ids[:1])
    conversation._text_sampler = GatedSampler(ids, at)
    return conversation._text_sampler


class Held:
    """A worker, and everything it has told."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.worker = ConversationWorker(conversation)
        self.told: list[Message] = []

    def done(self) -> list[Message]:
        assert self.worker.wait(30)
        self.told += self.worker.messages()
        return self.told

    def ends(self) -> list[tuple[int, str]]:
        return [(told.epoch, told.reason) for told in self.told if isinstance(told, Ended)]

    def text(self, epoch: int) -> str:
        made = [told.event for told in self.told if isinstance(told, Made) and told.epoch == epoch]
        return "".join(event.text for event in made if isinstance(event, TextDelta))


@pytest.fixture
def held(assistant) -> Iterator[Held]:
    before = set(threading.enumerate())
    one = Held(scripted(assistant, FIRST, SECOND))
    yield one
    one.worker.close()
    one.worker.close()
    assert set(threading.enumerate()) <= before


def hear(worker: ConversationWorker, text: str = QUESTION) -> None:
    speech = spoken(text)
    for start in range(0, len(speech), 512):
        worker.hear(speech[start : start + 512])


def test_commands_are_done_in_order(held):
    hear(held.worker)
    held.worker.end_of_speech(1, ())
    held.worker.ask(2, "And what is the time?", ())
    held.done()
    assert held.ends() == [(1, "stop"), (2, "stop")]
    assert (held.text(1), held.text(2)) == (FIRST, SECOND)
    made = [told for told in held.told if isinstance(told, Made)]
    assert [told.made_at for told in made] == sorted(told.made_at for told in made)
    assert [turn.text for turn in held.conversation.history] == ["", FIRST, "And what is the time?", SECOND]


def test_a_prepared_reply_is_silent_until_the_end_of_speech(held):
    hear(held.worker)
    held.worker.prepare(1, ())
    assert held.done() == []
    held.worker.end_of_speech(1, ())
    held.done()
    assert held.text(1) == FIRST
    assert held.ends() == [(1, "stop")]


def test_a_withdrawn_reply_ends_once_and_the_turn_goes_on(held, assistant):
    hear(held.worker)
    held.worker.prepare(1, ())
    held.worker.withdraw(1)
    held.done()
    assert held.told == [Ended(1, "cancelled")]
    held.conversation._text_sampler = scripted(assistant, SECOND)._text_sampler
    hear(held.worker, "and three")
    held.worker.prepare(2, ())
    held.worker.end_of_speech(2, ())
    held.done()
    assert held.ends() == [(1, "cancelled"), (2, "stop")]
    assert held.text(2) == SECOND
    assert len(held.conversation.history) == 2


def test_cancelled_before_it_is_begun(held, assistant):
    """The thread is busy with another reply while the next is asked for and cancelled."""
    sampler = gate(assistant, held.conversation, FIRST, at=3)
    held.worker.ask(1, "What is the time?", ())
    assert sampler.reached.wait(20)
    held.worker.ask(2, "And now?", ())
    held.worker.cancel(2, 0)
    sampler.may_go_on.set()
    held.done()
    assert held.ends() == [(1, "stop"), (2, "cancelled")]
    assert held.text(2) == ""
    assert held.told[-1] == Cut(2, "")
    assert [turn.text for turn in held.conversation.history] == ["What is the time?", FIRST, "And now?", ""]


def test_cancelled_while_it_is_computed(held, assistant):
    sampler = gate(assistant, held.conversation, FIRST, at=8)
    held.worker.ask(1, "What is the time?", ())
    assert sampler.reached.wait(20)
    held.worker.cancel(1, 0)
    sampler.may_go_on.set()
    held.done()
    assert held.ends() == [(1, "cancelled")]
    assert sampler.picked == 9  # it goes no further than the token it was at
    assert isinstance(held.told[-1], Cut)
    assert held.told[-1].text == held.conversation.history[-1].text == ""


def test_cancelled_after_it_was_computed(held):
    held.worker.ask(1, "What is the time?", ())
    held.done()
    made = sum(
        len(told.event.samples) for told in held.told if isinstance(told, Made) and isinstance(told.event, AudioChunk)
    )
    held.worker.cancel(1, made // 3)  # the first of three pieces
    held.done()
    assert held.told[-1] == Cut(1, "Hello there,")
    assert held.conversation.history[-1].text == "Hello there,"


def test_withdrawn_while_it_is_prepared(held, assistant):
    sampler = gate(assistant, held.conversation, FIRST, at=4)
    hear(held.worker)
    held.worker.prepare(1, ())
    assert sampler.reached.wait(20)
    held.worker.withdraw(1)
    sampler.may_go_on.set()
    held.done()
    assert held.told == [Ended(1, "cancelled")]
    assert sampler.picked == 5
    assert held.conversation.history == ()


def test_cancelling_what_was_not_meant_for_us_cuts_nothing(held, assistant):
    """A cancel that crosses the end of such a reply must not tell of the reply before it."""
    held.worker.ask(1, "What is the time?", ())
    held.done()
    held.conversation._text_sampler = scripted(assistant, "☟")._text_sampler
    held.worker.ask(2, "Not you", ())
    held.done()
    assert held.ends()[-1] == (2, "not_addressed")
    held.worker.cancel(2, 0)
    held.done()
    assert [told for told in held.told if isinstance(told, Cut)] == []
    assert [turn.text for turn in held.conversation.history] == ["What is the time?", FIRST]


def test_a_reply_that_fails_ends_with_its_error(held, tmp_path):
    held.worker.ask(1, "What is this?", [tmp_path / "missing.png"])
    held.worker.ask(2, "And what is the time?", ())
    held.done()
    assert [ended[0] for ended in held.ends()] == [1, 2]
    failed = next(told for told in held.told if isinstance(told, Ended))
    assert isinstance(failed.error, InputError)
    assert "missing.png" in str(failed.error)
    assert held.text(2) == FIRST


def test_what_fails_while_preparing_is_told_when_the_turn_is_over(held, tmp_path):
    hear(held.worker)
    held.worker.prepare(1, [tmp_path / "missing.png"])
    assert held.done() == []
    held.worker.end_of_speech(1, [tmp_path / "missing.png"])
    held.done()
    assert [(told.epoch, type(told.error)) for told in held.told] == [(1, InputError)]
    hear(held.worker)
    held.worker.end_of_speech(2, ())
    held.done()
    assert held.text(2) == FIRST


def test_sound_that_cannot_be_taken_is_told(held):
    held.worker.hear(np.zeros((2, 2, 2), np.float32))
    held.done()
    assert [type(told) for told in held.told] == [Trouble]


def test_no_sooner_are_two_pictures_shown_than_each_once(held, tmp_path):
    """Those shown with a prepared reply that was withdrawn are there already, in whatever order they come again."""
    files = [tmp_path / f"{color}.png" for color in ("red", "blue")]
    for file in files:
        Image.new("RGB", (56, 56), file.stem).save(file)
    hear(held.worker)
    held.worker.prepare(1, files[:1])
    held.done()
    held.worker.withdraw(1)
    held.worker.prepare(2, [files[1], files[0]])
    held.done()
    held.worker.withdraw(2)
    held.worker.end_of_speech(3, files)
    held.done()
    assert [str(image) for image in held.conversation.question.images] == [str(file) for file in files]


def test_pictures_of_a_discarded_turn_are_shown_with_the_next(held, tmp_path):
    Image.new("RGB", (56, 56), "red").save(tmp_path / "red.png")
    hear(held.worker)
    held.worker.prepare(1, [tmp_path / "red.png"])
    held.worker.withdraw(1)
    held.worker.discard()
    hear(held.worker)
    held.worker.end_of_speech(2, [tmp_path / "red.png"])
    held.done()
    assert len(held.conversation.question.images) == 1
    assert held.conversation.history[0].tiles >= 1


@pytest.mark.parametrize("at", [0, 5, None])
def test_closing_drops_what_waits(assistant, at):
    """In the middle of a reply, or at once: the reply after it is not computed, and the thread ends."""
    before = set(threading.enumerate())
    one = Held(scripted(assistant, FIRST, SECOND))
    sampler = gate(assistant, one.conversation, FIRST + " " + SECOND, at=-1 if at is None else at)
    one.worker.ask(1, "What is the time?", ())
    one.worker.ask(2, "And now?", ())
    if at is not None:
        assert sampler.reached.wait(20)
    closing = threading.Thread(target=one.worker.close)
    closing.start()
    while not one.worker._closing:
        time.sleep(0.001)
    sampler.may_go_on.set()
    closing.join(20)
    assert set(threading.enumerate()) <= before
    if at is not None:
        assert sampler.picked == at + 1


def test_an_unexpected_failure_still_ends_the_reply(held):
    class Broken(ScriptedSampler):
        def pick(self, logits: np.ndarray, used: Sequence[int] = (), banned: Sequence[int] = ()) -> int:
            raise ZeroDivisionError("by accident")

    held.conversation._text_sampler = Broken([])
    held.worker.ask(1, "What is the time?", ())
    held.done()
    assert [(told.epoch, told.reason) for told in held.told] == [(1, "error")]
    assert "ZeroDivisionError: by accident" in str(held.told[0].error)


def test_the_last_event_of_a_reply_is_its_end(held):
    hear(held.worker)
    held.worker.prepare(1, ())
    held.worker.end_of_speech(1, ())
    held.done()
    made = [told.event for told in held.told if isinstance(told, Made)]
    assert [isinstance(event, ReplyDone) for event in made].index(True) == len(made) - 1
    assert isinstance(held.told[-1], Ended)
