"""Speech that is answered while it is spoken: pauses that were none, pictures in between, a context that fills up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from scripted import ScriptedSampler, done_of, samples_of, script, scripted, text_of
from short_bundle import shortened

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.errors import BackendError, InputError
from sottovoce.runtime.model import Model
from sottovoce.runtime.reply import AudioChunk, ReplyDone, ReplyEvent
from sottovoce.runtime.tensor_dump import TensorDump

FIRST, SECOND = "Hello there, my friend. It is seven.", "Yes, that is so."
BLOCK = 800


@pytest.fixture(scope="module")
def speech(golden_dir: Path) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(golden_dir / "speech.wav", dtype="float32")
    return samples, rate


@pytest.fixture
def red() -> Image.Image:
    return Image.new("RGB", (64, 64), "red")


def hear(conversation: Conversation, speech: tuple[np.ndarray, int], start: float = 0.0, end: float = 1.0) -> None:
    samples, rate = speech
    for begin in range(int(start * len(samples)), int(end * len(samples)), BLOCK):
        conversation.accept_waveform(samples[begin : min(begin + BLOCK, int(end * len(samples)))], rate)


def first_logits(conversation: Conversation, ask: Callable[[], Iterable[ReplyEvent]]) -> tuple[list, np.ndarray]:
    """The events, and the logits (V,) that the reply begins with."""
    conversation._options = replace(conversation._options, dump=TensorDump())
    events = list(ask())
    logits = conversation._options.dump.tensors()["llm.step_logits"][0]
    conversation._options = replace(conversation._options, dump=None)
    return events, logits


def reply_tokens(assistant: Assistant, ask) -> tuple[int, ...]:
    conversation = assistant.conversation(greedy=True, max_new_tokens=8, speech=False)
    return done_of(list(ask(conversation))).tokens


def test_a_prepared_reply_is_the_reply(assistant, speech):
    expected = reply_tokens(assistant, lambda whole: whole.ask(audio=speech))

    def ask(live: Conversation):
        hear(live, speech)
        assert live.prepare()
        assert live.prepare()  # once is enough
        return live.end_of_speech()

    assert reply_tokens(assistant, ask) == expected


def test_the_events_of_a_prepared_reply_wait_for_the_end_of_speech(assistant, speech):
    conversation = scripted(assistant, FIRST)
    hear(conversation, speech)
    assert conversation.prepare()
    events = list(conversation.end_of_speech())
    assert text_of(events) == done_of(events).text == FIRST
    assert samples_of(events) == 3 * 35 * 600
    assert done_of(events).timings["prepared"] >= 0


@pytest.mark.parametrize("reply", [FIRST, "☟" + FIRST, ""])
@pytest.mark.parametrize("said", [True, False])
def test_a_pause_that_was_none_leaves_no_trace(assistant, speech, reply, said):
    def answer(pauses: bool) -> tuple[np.ndarray, set[int], int]:
        conversation = scripted(assistant, reply, speech=said)
        hear(conversation, speech, end=0.5)
        if pauses:
            assert conversation.prepare()
        hear(conversation, speech, start=0.5)
        assert conversation.history == ()
        used = conversation.context_used
        script(assistant, conversation, FIRST)
        events, logits = first_logits(conversation, conversation.end_of_speech)
        assert conversation.history[-1].text == FIRST
        return logits, {event.epoch for event in events if isinstance(event, AudioChunk)}, used

    (expected, epochs, used), (logits, same_epochs, same_used) = answer(pauses=False), answer(pauses=True)
    np.testing.assert_array_equal(logits, expected)
    assert (same_epochs, same_used) == (epochs, used)


def test_a_withdrawn_reply_draws_the_same_numbers_again(assistant, speech):
    def reply(pauses: bool) -> tuple:
        conversation = assistant.conversation(seed=5, temperature=1.0, max_new_tokens=6)
        hear(conversation, speech, end=0.4)
        if pauses:
            conversation.prepare()
        hear(conversation, speech, start=0.4)
        events = list(conversation.end_of_speech())
        sound = [event.samples for event in events if isinstance(event, AudioChunk)]
        return done_of(events).tokens, np.concatenate(sound) if sound else np.zeros(0)

    (tokens, sound), (again, sound_again) = reply(pauses=False), reply(pauses=True)
    assert tokens == again
    np.testing.assert_array_equal(sound, sound_again)


def test_too_little_is_not_prepared(assistant):
    conversation = assistant.conversation()
    assert not conversation.prepare()
    conversation.accept_waveform(np.zeros(100, np.float32), 16000)
    assert not conversation.prepare()


def test_a_picture_shown_while_speaking_stands_before_the_speech(assistant, speech, red):
    expected = reply_tokens(assistant, lambda whole: whole.ask(audio=speech, images=[red]))

    def ask(live: Conversation):
        hear(live, speech, end=0.6)
        live.show([red])
        hear(live, speech, start=0.6)
        return live.end_of_speech()

    assert reply_tokens(assistant, ask) == expected


def test_a_picture_shown_before_goes_with_the_next_turn(assistant, speech, red):
    expected = reply_tokens(assistant, lambda whole: whole.ask("What is this?", images=[red]))

    def ask(live: Conversation):
        live.show([red])
        return live.ask("What is this?")

    assert reply_tokens(assistant, ask) == expected
    conversation = scripted(assistant, FIRST, SECOND, speech=False)
    conversation.show([red])
    list(conversation.ask("What is this?"))
    list(conversation.ask("And now?"))
    assert [turn.tiles for turn in conversation.history if turn.role == "user"] == [1, 0]


def test_a_picture_that_cannot_be_read_leaves_what_was_heard(assistant, speech, tmp_path):
    conversation = scripted(assistant, FIRST, speech=False)
    hear(conversation, speech)
    with pytest.raises(InputError, match=r"missing\.png"):
        conversation.show([tmp_path / "missing.png"])
    assert done_of(list(conversation.end_of_speech())).text == FIRST


def test_speech_during_a_reply_is_the_next_turn(assistant, speech):
    conversation = scripted(assistant, FIRST, SECOND)
    for event in conversation.ask("What is the time?"):
        if isinstance(event, AudioChunk):
            hear(conversation, speech, end=0.5)
            conversation.cancel(played_samples=0)
    hear(conversation, speech, start=0.5)
    script(assistant, conversation, SECOND)
    assert done_of(list(conversation.end_of_speech())).text == SECOND
    assert [turn.role for turn in conversation.history] == ["user", "assistant"] * 2
    assert conversation.question.audio is not None


def test_speech_heard_behind_a_reply_that_is_cut_afterwards(assistant, speech):
    """The reply is computed, the next turn is heard, and only then it turns out how much of the reply was played."""
    one = scripted(assistant, FIRST, speech=True)
    list(one.ask("What is the time?"))
    hear(one, speech)
    one.cancel(played_samples=35 * 600)
    script(assistant, one, SECOND)
    list(one.end_of_speech())
    other = scripted(assistant, FIRST, speech=True)
    list(other.ask("What is the time?"))
    other.cancel(played_samples=35 * 600)
    hear(other, speech)
    script(assistant, other, SECOND)
    list(other.end_of_speech())
    assert one.history == other.history
    assert one.context_used == other.context_used


def test_a_reply_that_cannot_be_prepared_leaves_the_turn_as_it_was(assistant, speech):
    class Failing(ScriptedSampler):
        def pick(self, logits, used=(), banned=()):
            raise BackendError("no more memory")

    conversation = scripted(assistant, FIRST, speech=False)
    conversation._text_sampler = Failing([])
    hear(conversation, speech, end=0.5)
    with pytest.raises(BackendError):
        conversation.prepare()
    assert conversation.history == ()
    hear(conversation, speech, start=0.5)
    script(assistant, conversation, FIRST)
    assert done_of(list(conversation.end_of_speech())).text == FIRST
    assert len(conversation.question.audio.samples) == pytest.approx(len(speech[0]), abs=2 * BLOCK)


def test_discarded_speech_was_never_there(assistant, speech):
    conversation = scripted(assistant, FIRST, speech=False)
    hear(conversation, speech)
    conversation.prepare()
    conversation.discard_speech()
    assert (conversation.context_used, conversation.history) == (0, ())
    with pytest.raises(InputError, match="nothing was captured"):
        conversation.end_of_speech()


def test_typing_while_speaking_comes_first(assistant, speech):
    conversation = scripted(assistant, FIRST, SECOND, speech=False)
    hear(conversation, speech)
    list(conversation.ask("What is the time?"))
    list(conversation.end_of_speech())
    assert [turn.audio for turn in conversation.history if turn.role == "user"] == [False, True]


@pytest.fixture(scope="module")
def small(tiny_bundle):
    with Assistant(Model(shortened(Bundle.open(tiny_bundle), context_length=160), threads=1)) as ready:
        yield ready


def fresh_logits(assistant: Assistant, conversation: Conversation) -> np.ndarray:
    """What the last reply began with, the history filled from nothing, forgotten turns left out."""
    model = assistant._model
    ids = model.prompt.system("You are a helpful assistant.")
    for turn in conversation.history[2 * conversation.forgotten_turns : -1]:
        ids += model.tokenizer.encode(f"<|im_start|>{turn.role}\n{turn.text}<|im_end|>\n")
    ids += model.tokenizer.encode("<|im_start|>assistant\n")
    return model.language_model.prefill(model.token_embeddings.rows(ids), model.language_model.create_cache())


@pytest.mark.parametrize("tidy", [True, False])
def test_old_turns_are_forgotten_when_the_context_is_nearly_full(small, tidy):
    conversation, used = scripted(small, speech=False), []
    for turn in range(25):
        script(small, conversation, FIRST)
        assert done_of(list(conversation.ask(f"What is the time now, {turn}?"))).text == FIRST
        if tidy:
            conversation.make_room()
        used.append(conversation.context_used)
    assert max(used) <= 160
    assert 0 < conversation.forgotten_turns < 25
    assert len(conversation.history) == 50
    script(small, conversation, SECOND)
    _, logits = first_logits(conversation, lambda: conversation.ask("So?"))
    np.testing.assert_allclose(logits, fresh_logits(small, conversation), atol=1e-4)


def test_a_reply_cut_after_old_turns_were_forgotten(small):
    conversation = scripted(small)
    for turn in range(30):
        script(small, conversation, FIRST)
        list(conversation.ask(f"What is the time now, {turn}?"))
        forgot = conversation.make_room()
        conversation.cancel(played_samples=35 * 600)
        assert conversation.history[-1].text == "Hello there,"
        if forgot:
            break
    assert conversation.forgotten_turns
    assert conversation.context_used < 160
    script(small, conversation, SECOND)
    assert done_of(list(conversation.ask("So?"))).text == SECOND


def test_a_reply_that_fills_the_context_goes_on_without_the_oldest_turns(small):
    conversation = scripted(small, speech=False)
    for _ in range(3):
        script(small, conversation, SECOND)
        list(conversation.ask("What is the time?"))
    script(small, conversation, FIRST * 3)
    assert done_of(list(conversation.ask("What is the time?"))).text == FIRST * 3
    assert conversation.forgotten_turns


def test_overlapped_speech_is_the_same_speech(assistant):
    def sound(overlap: bool) -> tuple[str, np.ndarray]:
        conversation = scripted(assistant, FIRST)
        conversation._options = replace(conversation._options, overlap=overlap)
        events = list(conversation.ask("What is the time?"))
        assert isinstance(events[-1], ReplyDone)
        samples = [event.samples for event in events if isinstance(event, AudioChunk)]
        return text_of(events), np.concatenate(samples)

    (text, samples), (same, same_samples) = sound(overlap=False), sound(overlap=True)
    assert text == same == FIRST
    np.testing.assert_array_equal(samples, same_samples)


def test_overlapped_speech_ends_with_its_reply(assistant):
    conversation = scripted(assistant, FIRST)
    conversation._options = replace(conversation._options, overlap=True)
    events = conversation.ask("What is the time?")
    next(events)
    conversation.cancel(played_samples=0)
    *_, done = events
    assert (done.reason, done.text) == ("cancelled", "")
    script(assistant, conversation, SECOND)
    left = conversation.ask("Really?")
    next(left)
    left.close()
    assert conversation.history[-1].role == "assistant"
