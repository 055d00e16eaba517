"""Turns, events, cancelling, limits: what a conversation keeps and what it forgets."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from scripted import done_of, samples_of, script, scripted, text_of
from short_bundle import shortened

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import BackendError, InputError
from sottovoce.runtime.model import Model
from sottovoce.runtime.reply import AudioChunk, ReplyDone, TextDelta
from sottovoce.runtime.tensor_dump import TensorDump

FIRST, SECOND = "Hello there, my friend. It is seven.", "Yes, that is so."
ACTIVATION_BAR = 1e-4


def history_of(conversation) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in conversation.history]


def fresh_logits(assistant: Assistant, *embeddings: np.ndarray) -> np.ndarray:
    """Logits of the language model over all of it, from an empty cache."""
    model = assistant._model.language_model
    return model.prefill(np.concatenate(embeddings), model.create_cache())


def rows(assistant: Assistant, text: str) -> np.ndarray:
    """Embeddings of trusted text, control tokens included."""
    model = assistant._model
    return model.token_embeddings.rows(model.tokenizer.encode(text))


def next_logits(assistant: Assistant, conversation, question: str) -> np.ndarray:
    """Ask, and return the logits that the reply begins with."""
    dump = TensorDump()
    conversation._options = replace(conversation._options, dump=dump)
    script(assistant, conversation, "Well.")
    list(conversation.ask(question))
    return dump.tensors()["llm.step_logits"][0]


def framed(*turns: tuple[str, str]) -> str:
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    said = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return system + said + "<|im_start|>assistant\n"


def test_text_and_speech_come_interleaved_and_the_end_comes_last(assistant):
    events = list(scripted(assistant, FIRST).ask("What is the time?"))
    done = done_of(events)
    assert (done.reason, done.text, done.state) == ("stop", FIRST, None)
    assert text_of(events) == FIRST
    kinds = [type(event) for event in events]
    first_audio = kinds.index(AudioChunk)
    assert text_of(events[:first_audio]).startswith("Hello there,")
    assert len(text_of(events[:first_audio])) < len(FIRST) - 10
    assert samples_of(events) == 3 * 35 * 600
    assert {"first_token", "first_audio", "prefill", "decode", "speech_codes", "codec", "total"} <= done.timings.keys()
    assert done.timings["first_token"] < done.timings["first_audio"] <= done.timings["total"]


def test_text_alone(assistant):
    events = list(scripted(assistant, FIRST, speech=False).ask("What is the time?"))
    assert {type(event) for event in events} == {TextDelta, ReplyDone}
    assert "speech_codes" not in done_of(events).timings


@pytest.mark.parametrize("state", ["☞", "☜"])
def test_the_state_token_is_read_and_taken_off(assistant, state):
    conversation = scripted(assistant, state + SECOND)
    events = list(conversation.ask("Is it so?"))
    assert text_of(events) == done_of(events).text == SECOND
    assert done_of(events).state == state
    assert history_of(conversation) == [("user", "Is it so?"), ("assistant", SECOND)]


def test_what_was_not_meant_for_it_is_forgotten(assistant):
    conversation = scripted(assistant, "Good.", "☟never mind", "Fine.")
    list(conversation.ask("How are you?"))
    used, history = conversation.context_used, conversation.history
    events = list(conversation.ask("Pass me the salt, John."))
    assert len(events) == 1
    assert (done_of(events).reason, done_of(events).text, done_of(events).state) == ("not_addressed", "", "☟")
    assert (conversation.context_used, conversation.history) == (used, history)
    expected = fresh_logits(
        assistant, rows(assistant, framed(("user", "How are you?"), ("assistant", "Good."), ("user", "And now?")))
    )
    np.testing.assert_allclose(next_logits(assistant, conversation, "And now?"), expected, atol=ACTIVATION_BAR)


def test_a_first_turn_not_meant_for_it_leaves_nothing(assistant):
    conversation = scripted(assistant, "☟")
    list(conversation.ask("Pass me the salt, John."))
    assert (conversation.context_used, conversation.history) == (0, ())


def test_a_later_turn_appends_to_the_cache_and_equals_the_whole(assistant):
    conversation = scripted(assistant, FIRST, speech=False)
    list(conversation.ask("What is the time?"))
    used = conversation.context_used
    expected = fresh_logits(
        assistant, rows(assistant, framed(("user", "What is the time?"), ("assistant", FIRST), ("user", "Really?")))
    )
    np.testing.assert_allclose(next_logits(assistant, conversation, "Really?"), expected, atol=ACTIVATION_BAR)
    new_turn = conversation._options.dump.tensors()["llm.embeddings"]
    assert len(new_turn) < 20 < used
    assert history_of(conversation)[:3] == [("user", "What is the time?"), ("assistant", FIRST), ("user", "Really?")]


def test_a_reply_cut_by_its_limit_is_whole_for_the_next_turn(assistant):
    conversation = scripted(assistant, FIRST, speech=False, max_new_tokens=7)
    done = done_of(list(conversation.ask("What is the time?")))
    assert done.reason == "length"
    assert len(done.tokens) == 7
    assert 0 < len(done.text) < len(FIRST)
    said = assistant._model.tokenizer.decode(done.tokens)
    expected = fresh_logits(
        assistant, rows(assistant, framed(("user", "What is the time?"), ("assistant", said), ("user", "Go on.")))
    )
    np.testing.assert_allclose(next_logits(assistant, conversation, "Go on."), expected, atol=ACTIVATION_BAR)


def cancelled_after(assistant, conversation, chunks: int, played: int | None) -> list:
    events = []
    for event in conversation.ask("What is the time?"):
        events.append(event)
        if sum(isinstance(event, AudioChunk) for event in events) == chunks and isinstance(event, AudioChunk):
            conversation.cancel(played)
    return events


def test_cancel_keeps_what_was_heard(assistant):
    conversation = scripted(assistant, FIRST)
    events = cancelled_after(assistant, conversation, chunks=2, played=35 * 600)
    assert done_of(events).reason == "cancelled"
    assert done_of(events).text == "Hello there,"
    assert isinstance(events[-2], AudioChunk)
    assert history_of(conversation) == [("user", "What is the time?"), ("assistant", "Hello there,")]
    turns = [("user", "What is the time?"), ("assistant", "Hello there,"), ("user", "Stop.")]
    expected = fresh_logits(assistant, rows(assistant, framed(*turns)))
    np.testing.assert_allclose(next_logits(assistant, conversation, "Stop."), expected, atol=ACTIVATION_BAR)


def test_cancel_after_the_end_cuts_what_was_not_played_yet(assistant):
    conversation = scripted(assistant, FIRST)
    list(conversation.ask("What is the time?"))
    used = conversation.context_used
    conversation.cancel(played_samples=36 * 600)
    assert history_of(conversation)[-1] == ("assistant", "Hello there,")
    assert conversation.context_used < used


def test_cancel_before_anything_was_played_keeps_an_empty_reply(assistant):
    conversation = scripted(assistant, FIRST)
    events = cancelled_after(assistant, conversation, chunks=1, played=0)
    assert done_of(events).text == ""
    assert history_of(conversation)[-1] == ("assistant", "")


def test_cancel_from_another_thread_ends_the_sound_at_once(assistant):
    """Between two events: not one sample follows."""
    conversation = scripted(assistant, FIRST)
    events = conversation.ask("What is the time?")
    chunks = 0
    for event in events:
        chunks += isinstance(event, AudioChunk)
        if chunks == 2:
            break
    worker = threading.Thread(target=lambda: conversation.cancel(played_samples=0))
    worker.start()
    worker.join()
    (done,) = events
    assert (done.reason, done.text) == ("cancelled", "")


def test_cancel_before_the_first_event_is_not_lost(assistant):
    conversation = scripted(assistant, FIRST, SECOND)
    events = conversation.ask("What is the time?")
    conversation.cancel()
    (done,) = events
    assert (done.reason, done.text, done.tokens) == ("cancelled", "", ())
    assert history_of(conversation) == [("user", "What is the time?"), ("assistant", "")]
    script(assistant, conversation, SECOND)
    assert done_of(list(conversation.ask("Really?"))).text == SECOND


def test_events_that_nobody_takes_ask_nothing(assistant):
    conversation = scripted(assistant, FIRST)
    conversation.ask("What is the time?")
    conversation.cancel()
    assert done_of(list(conversation.ask("What is the time?"))).text == FIRST
    assert len(conversation.history) == 2


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_the_cache_is_the_history(assistant, seed):
    """Turns that end in every way, in any order; then the cache answers as one filled with the history at once."""
    random = np.random.default_rng(seed)
    conversation, states = scripted(assistant), []
    for _ in range(int(random.integers(1, 5))):
        reply = str(random.choice([FIRST, "☞" + SECOND, SECOND, "☟" + SECOND]))
        script(assistant, conversation, reply)
        played = int(random.integers(0, 70 * 600))
        cancel_at = int(random.integers(0, 12))
        for count, event in enumerate(conversation.ask("What is the time?")):
            if count == cancel_at:
                conversation.cancel(played)
            last = event
        assert isinstance(last, ReplyDone)
        if last.reason != "not_addressed":
            states.append(last.state or "")
        if random.random() < 0.3:
            conversation.cancel(played // 2)
    left = iter(states)
    said = [(role, next(left) + text if role == "assistant" else text) for role, text in history_of(conversation)]
    assert len(said) == 2 * len(states)
    expected = fresh_logits(assistant, rows(assistant, framed(*said, ("user", "And now?"))))
    np.testing.assert_allclose(next_logits(assistant, conversation, "And now?"), expected, atol=ACTIVATION_BAR)


def test_cancel_without_a_reply_does_nothing(assistant):
    conversation = scripted(assistant, FIRST)
    conversation.cancel(0)
    assert done_of(list(conversation.ask("What is the time?"))).reason == "stop"


def test_a_reply_that_is_left_counts_as_cancelled(assistant):
    conversation = scripted(assistant, FIRST, speech=False)
    for event in conversation.ask("What is the time?"):
        if isinstance(event, TextDelta):
            break
    script(assistant, conversation, SECOND)
    events = list(conversation.ask("Really?"))
    assert done_of(events).text == SECOND
    (_, asked), (_, heard), *_ = history_of(conversation)
    assert asked == "What is the time?"
    assert FIRST.startswith(heard)
    assert 0 < len(heard) < len(FIRST)


def test_each_reply_has_its_epoch(assistant):
    conversation = scripted(assistant, "Good.", "Fine.")
    epochs = [{event.epoch for event in conversation.ask("So?") if isinstance(event, AudioChunk)} for _ in range(2)]
    assert epochs == [{1}, {2}]


def test_a_failed_question_leaves_the_conversation_as_it_was(assistant, tmp_path):
    conversation = scripted(assistant, "Good.", speech=False)
    list(conversation.ask("How are you?"))
    used, history = conversation.context_used, conversation.history
    with pytest.raises(InputError, match="no such recording"):
        list(conversation.ask(audio=tmp_path / "missing.wav"))
    assert (conversation.context_used, conversation.history) == (used, history)


def test_a_prompt_longer_than_the_context_is_refused_with_counts(assistant):
    conversation = assistant.conversation(greedy=True, speech=False)
    limit = assistant._model.context_length
    with pytest.raises(InputError, match=rf"fills \d+ positions; the model's context holds {limit}"):
        list(conversation.ask("seven " * limit))
    assert conversation.context_used == 0


def test_the_context_filling_up_ends_the_reply(tiny_bundle):
    limit = 48
    with Assistant(Model(shortened(Bundle.open(tiny_bundle), context_length=limit), threads=1)) as small:
        conversation = scripted(small, FIRST * 5, stop=False, speech=False)
        done = done_of(list(conversation.ask("What is the time?")))
        assert done.reason == "length"
        assert conversation.context_used == limit
        with pytest.raises(InputError, match=f"after {limit} of the conversation"):
            list(conversation.ask("And now?"))
        assert history_of(conversation)[-1][0] == "assistant"


def test_nothing_asked(assistant):
    with pytest.raises(InputError, match="nothing was asked"):
        assistant.conversation().ask("")


def test_pictures_and_a_video_do_not_go_together(assistant, golden_dir):
    with pytest.raises(InputError, match="pictures and a video"):
        assistant.conversation().ask(images=[golden_dir / "picture.png"], video="clip.mp4")


def test_one_picture_must_still_be_in_a_list(assistant, golden_dir):
    with pytest.raises(InputError, match="expected a list"):
        assistant.conversation().ask("What is this?", images=golden_dir / "picture.png")


def test_a_seed_repeats_text_and_speech(assistant):
    def reply(seed: int) -> tuple:
        conversation = assistant.conversation(seed=seed, temperature=1.0, max_new_tokens=6)
        events = list(conversation.ask("What is the time?"))
        sound = [event.samples for event in events if isinstance(event, AudioChunk)]
        return done_of(events).tokens, np.concatenate(sound) if sound else np.zeros(0)

    (first, first_sound), (second, second_sound), (other, _) = reply(7), reply(7), reply(8)
    assert first == second
    np.testing.assert_array_equal(first_sound, second_sound)
    assert other != first


def test_live_speech_is_answered_like_a_recording(assistant, golden_dir):
    samples, rate = soundfile.read(golden_dir / "speech.wav", dtype="float32")
    live = assistant.conversation(greedy=True, max_new_tokens=8, speech=False)
    for start in range(0, len(samples), 800):
        live.accept_waveform(samples[start : start + 800], rate)
    whole = assistant.conversation(greedy=True, max_new_tokens=8, speech=False)
    expected = done_of(list(whole.ask(audio=golden_dir / "speech.wav")))
    assert done_of(list(live.end_of_speech())).tokens == expected.tokens
    assert live.history[0].audio
    with pytest.raises(InputError, match="nothing was captured"):
        live.end_of_speech()


def test_live_speech_is_bounded(assistant):
    conversation = assistant.conversation()
    seconds = assistant.bundle.manifest.audio.max_seconds
    with pytest.raises(InputError, match=f"longer than the {seconds:.0f} s"):
        for _ in range(int(seconds) + 2):
            conversation.accept_waveform(np.zeros(8000, dtype=np.float32), 8000)


def test_live_speech_keeps_its_rate(assistant):
    conversation = assistant.conversation()
    conversation.accept_waveform(np.zeros(160, dtype=np.int16), 16000)
    with pytest.raises(InputError, match="8000 samples a second after 16000"):
        conversation.accept_waveform(np.zeros(160, dtype=np.int16), 8000)


def test_a_closed_assistant_says_so(tiny_bundle):
    with Assistant.open(tiny_bundle, threads=1) as closed:
        conversation = closed.conversation()
    with pytest.raises(BackendError, match="closed"):
        list(conversation.ask("Still there?"))


def test_an_unknown_backend(tiny_bundle):
    with pytest.raises(BackendError, match="unknown backend 'abacus'"):
        Assistant.open(tiny_bundle, backend="abacus")


@pytest.mark.parametrize("text", ["", "  ", "...", "☞"])
def test_nothing_to_say(assistant, text):
    with pytest.raises(InputError, match="nothing in this text can be spoken"):
        assistant.say(text)


def test_long_text_is_said_part_after_part(assistant):
    """More text than the speech decoder's context holds, and no mark to cut it at."""
    *chunks, _ = assistant.say("seven " * 600, greedy=True)
    assert sum(len(chunk.samples) for chunk in chunks) > 35 * 600
