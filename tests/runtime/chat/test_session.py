"""Spoken conversations from the microphone's samples to the speaker's, over a clock that stands still while computing.

The model's words are scripted; its voice is that of random weights, 35 codes a piece. espeak-ng speaks to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import pytest
from espeak import spoken
from PIL import Image
from scripted import script, scripted
from spoken_chat import SpokenChat, sound_of, spoken_chat

from sottovoce.runtime.devices import CAPTURE_RATE
from sottovoce.runtime.duplex.events import InterruptKey, Quit, TypedLine
from sottovoce.runtime.duplex.settings import DuplexSettings

QUESTION, OTHER = "What is seven plus five", "And what is the capital of France"
SHORT = "Seven plus five is twelve."
LONG = "One fine day, two good friends, three old houses, four tall trees, five red boats, six lakes."
PIECE = 35 * 600
"""Samples of one piece of a reply: what is between two commas."""

Chatting = Callable[..., AbstractContextManager[SpokenChat]]


@pytest.fixture
def chatting(assistant, tmp_path) -> Iterator[Chatting]:
    before = set(threading.enumerate())

    def begin(*replies: str, settings: DuplexSettings | None = None) -> AbstractContextManager[SpokenChat]:
        conversation = scripted(assistant, *replies)
        return spoken_chat(conversation, assistant.sample_rate, tmp_path / "played.wav", settings)

    yield begin
    assert set(threading.enumerate()) <= before


def texts(chat: SpokenChat) -> list[str]:
    return [turn.text for turn in chat.conversation.history]


def test_turn_after_turn(chatting, tmp_path):
    with chatting(SHORT, LONG) as chat:
        first = chat.ask(spoken(QUESTION))
        second = chat.ask(spoken(OTHER))
        assert texts(chat) == ["", SHORT, "", LONG]
        assert [turn.reason for turn in chat.shown.over] == ["stop", "stop"]
        assert 0.1 < first.seconds - len(spoken(QUESTION)) / CAPTURE_RATE < 0.5  # and what is before and behind it
        assert first.played_seconds == first.made_seconds
        assert second.played_seconds == 6 * PIECE / 24_000
        assert chat.speaker.counts.own_underruns == 0
        assert chat.speaker.counts.ends == 2
    played, rate = sound_of(tmp_path / "played.wav")
    loud = np.flatnonzero(np.abs(played) > 1e-4)
    for epoch, turn in ((1, first), (2, second)):
        begin = round(chat.speaker.written[epoch] * rate)
        assert len(loud[(loud >= begin) & (loud < begin + round(turn.made_seconds * rate) + 480)]) > 0.5 * PIECE


def test_a_question_spoken_over_the_reply_stops_it_and_is_answered(chatting, tmp_path):
    with chatting(LONG, SHORT) as chat:
        chat.microphone.say(spoken(QUESTION))
        chat.until(lambda: chat.state == "speaking")
        chat.step(1.2)
        begun = chat.clock()
        chat.microphone.say(spoken(OTHER))
        chat.until(lambda: 1 in chat.speaker.stops)
        assert 0.45 < chat.clock() - begun < 0.9
        chat.until(lambda: len(chat.shown.over) == 2 and chat.state == "idle")
        cut, answer = chat.shown.over
        pieces = cut.played_seconds * 24_000 / PIECE
        assert 1 < pieces < 3
        assert (cut.reason, answer.reason) == ("cancelled", "stop")
        kept = texts(chat)[1]
        assert LONG.startswith(kept)
        assert kept.count(",") == int(pieces)
        assert cut.text == kept
        assert texts(chat)[2:] == ["", SHORT]
        assert chat.conversation.question.audio is not None
        heard = len(chat.conversation.question.audio.samples)
        assert heard > len(spoken(OTHER))  # from its first word on, though it was spoken over the reply
    played, rate = sound_of(tmp_path / "played.wav")
    stop, answered = chat.speaker.stops[1], chat.speaker.written[2]
    assert np.abs(played[round((stop + 0.021) * rate) : round(answered * rate)]).max() == 0


def test_what_is_played_while_nobody_looks_is_in_the_history(chatting, tmp_path):
    with chatting(LONG, SHORT) as chat:
        chat.microphone.say(spoken(QUESTION))
        chat.until(lambda: chat.state == "speaking")
        chat.step(0.2)
        chat.microphone.say(spoken(OTHER))
        chat.clock.advance(1.5)  # the machine did something else
        begun = chat.clock()
        chat.until(lambda: len(chat.shown.over) == 2 and chat.state == "idle")
        cut = chat.shown.over[0]
        assert chat.speaker.stops[1] - begun < 0.02
        assert cut.played_seconds == pytest.approx(1.7, abs=0.05)
        assert cut.text == "One fine day, two good friends,"  # nearly two pieces
    played, rate = sound_of(tmp_path / "played.wav")
    loud = np.flatnonzero(np.abs(played[: round((chat.speaker.written[2] - 0.05) * rate)]) > 0)
    sounded = (loud[-1] + 1) / rate - chat.speaker.written[1]
    assert sounded == pytest.approx(cut.played_seconds, abs=0.03)


def test_a_cough_or_a_yes_only_softens_it(chatting, tmp_path):
    with chatting(LONG) as chat:
        chat.microphone.say(spoken(QUESTION))
        chat.until(lambda: chat.state == "speaking")
        chat.step(1.0)
        chat.microphone.say(spoken("yes"))
        softened = []
        while not chat.shown.over:
            chat.step()
            softened.append(chat.session.duplex.view.is_ducked)
        assert any(softened)
        assert not softened[-1]
        assert texts(chat) == ["", LONG]


def test_what_is_not_meant_for_it_is_forgotten(chatting):
    with chatting("☟", SHORT) as chat:
        chat.microphone.say(spoken(QUESTION))
        chat.until(lambda: bool(chat.shown.over))
        assert chat.shown.over[0].reason == "not_addressed"
        assert chat.shown.over[0].text == ""
        assert texts(chat) == []
        assert chat.conversation.context_used == 0
        script_again(chat, SHORT)  # what followed ☟ was never asked for
        chat.ask(spoken(OTHER))
        assert texts(chat) == ["", SHORT]
        assert 1 not in chat.speaker.written


def test_a_line_typed_over_a_reply_stops_it(chatting):
    with chatting(LONG, SHORT) as chat:
        chat.microphone.say(spoken(QUESTION))
        chat.until(lambda: chat.state == "speaking")
        chat.step(0.93)
        chat.session.tell(TypedLine(chat.session.now, "What is the time?"))
        chat.until(lambda: len(chat.shown.over) == 2 and chat.state == "idle")
        assert texts(chat)[2:] == ["What is the time?", SHORT]
        assert texts(chat)[1] == "One fine day,"
        assert chat.shown.over[0].played_seconds == pytest.approx(0.93, abs=0.05)


def test_escape_ends_the_reply_and_nothing_else(chatting):
    with chatting(LONG, SHORT) as chat:
        chat.microphone.say(spoken(QUESTION))
        chat.until(lambda: chat.state == "speaking")
        chat.step(0.5)
        chat.session.tell(InterruptKey(chat.session.now))
        chat.until(lambda: chat.state == "idle" and bool(chat.shown.over))
        assert texts(chat)[0] == ""
        assert LONG.startswith(texts(chat)[1])
        assert len(texts(chat)[1]) < len("One fine day,")
        chat.ask(spoken(OTHER))
        assert texts(chat)[2:] == ["", SHORT]


@pytest.mark.parametrize("shown_at", ["before", "while spoken", "in the pause", "over the reply"])
def test_a_picture_goes_with_the_turn(chatting, tmp_path, shown_at):
    Image.new("RGB", (56, 56), "red").save(tmp_path / "red.png")
    with chatting(LONG, SHORT, SHORT) as chat:
        if shown_at == "before":
            chat.session.show(tmp_path / "red.png")
        chat.microphone.say(spoken(QUESTION))
        if shown_at == "while spoken":
            chat.until(lambda: chat.state == "listening")
            chat.session.show(tmp_path / "red.png")
        if shown_at == "in the pause":
            chat.until(lambda: chat.state == "pausing" and chat.session.duplex.view.epoch is not None)
            script_again(chat, LONG, SHORT)
            chat.session.show(tmp_path / "red.png")
        chat.until(lambda: chat.state == "speaking")
        if shown_at == "over the reply":
            chat.session.show(tmp_path / "red.png")
        chat.until(lambda: chat.state == "idle")
        chat.ask(spoken(OTHER))
        asked = [turn.tiles > 0 for turn in chat.conversation.history if turn.role == "user"]
        assert asked == ([False, True] if shown_at == "over the reply" else [True, False])
        assert [turn.pictures for turn in chat.shown.over] == [int(shown) for shown in asked]
        assert [turn.reason for turn in chat.shown.over] == ["stop", "stop"]


def script_again(chat: SpokenChat, *replies: str) -> None:
    """A reply is taken back with the words that were used for it: these are for the next."""
    sampler = chat.conversation._text_sampler
    model = chat.conversation._model
    ids = []
    for reply in replies:
        ids += [*model.tokenizer.encode_plain(reply), *model.manifest.generation.stop_ids[:1]]
    sampler._ids = iter(ids)


def test_of_a_camera_only_the_newest_picture_is_shown(chatting, tmp_path):
    """Speech that was not meant for us leaves its picture for the next turn, which has a newer one."""
    for name in ("old", "new"):
        Image.new("RGB", (56, 56), "red").save(tmp_path / f"{name}.png")
    with chatting("☟", SHORT) as chat:
        chat.session.show(tmp_path / "old.png", from_camera=True)
        chat.microphone.say(spoken(QUESTION))
        chat.until(lambda: bool(chat.shown.over) and chat.state == "idle")
        chat.session.show(tmp_path / "new.png", from_camera=True)
        chat.ask(spoken(OTHER))
        assert [str(image) for image in chat.conversation.question.images] == [str(tmp_path / "new.png")]


def test_a_picture_that_cannot_be_read_is_told_and_the_next_turn_is_answered(chatting, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more of it")
    with chatting(SHORT) as chat:
        chat.session.show(tmp_path / "broken.png")
        chat.microphone.say(spoken(QUESTION))
        chat.until(lambda: bool(chat.shown.over) and chat.state == "idle")
        assert chat.shown.over[0].reason == "error"
        assert any("broken.png" in line for line in chat.shown.lines if line.startswith("error"))
        chat.ask(spoken(OTHER))
        assert texts(chat) == ["", SHORT]


def test_a_microphone_that_is_lost_in_a_turn_ends_it_and_returns(chatting):
    with chatting(SHORT, LONG) as chat:
        chat.microphone.say(spoken(OTHER))
        chat.until(lambda: chat.state == "listening")
        chat.step(0.8)
        chat.microphone.lose()
        chat.until(lambda: len(chat.shown.over) == 1)
        assert texts(chat) == ["", SHORT]
        assert chat.session.duplex.view.lost_devices == ("microphone",)
        chat.step(3.0)
        chat.microphone.come_back()
        chat.step(0.5)
        assert chat.session.duplex.view.lost_devices == ()
        chat.ask(spoken(QUESTION))
        assert texts(chat)[2:] == ["", LONG]
        assert sum("vanished" in line for line in chat.shown.lines) == 1


def test_a_monologue_is_cut_and_said_so(chatting):
    speech = spoken("Let me tell you about the boats and the trees and the houses of my town by the sea " * 2)
    with chatting(SHORT, SHORT, settings=DuplexSettings(max_turn_ms=4000)) as chat:
        chat.ask(speech)
        chat.step(5.0)
        cut = chat.shown.over[0]
        assert cut.seconds == pytest.approx(4.0, abs=0.1)
        assert "notice: the turn was cut after 4 s" in chat.shown.lines
        assert chat.session._captured.end - chat.session._captured.start < CAPTURE_RATE


def test_minutes_of_silence_leave_nothing_behind(chatting):
    with chatting(SHORT) as chat:
        chat.waits = False
        chat.step(120.0)
        assert chat.session._captured.end == pytest.approx(120 * CAPTURE_RATE, abs=400)
        assert chat.session._captured.end - chat.session._captured.start < 0.5 * CAPTURE_RATE
        assert chat.session.turns == {}
        assert chat.conversation.context_used == 0
        chat.waits = True
        chat.ask(spoken(QUESTION))
        assert texts(chat) == ["", SHORT]


def test_clipped_speech_is_still_a_turn(chatting):
    with chatting(SHORT) as chat:
        chat.ask(40 * spoken(QUESTION))
        assert texts(chat) == ["", SHORT]
        assert np.abs(chat.conversation.question.audio.samples).max() <= 1.0


def test_a_reply_longer_than_the_speaker_holds_does_not_stop_hearing(chatting, monkeypatch):
    """What is far ahead of playback waits outside of the speaker; a question over it is heard at once."""
    monkeypatch.setattr("sottovoce.runtime.chat.reply_sound.AHEAD_SECONDS", 1.0)
    with chatting(LONG, SHORT) as chat:
        chat.microphone.say(spoken(QUESTION))
        chat.until(lambda: chat.state == "speaking")
        most = 0
        for _ in range(150):
            chat.step()
            most = max(most, chat.speaker.ahead)
        assert 12_000 < most < 1.9 * 24_000
        assert chat.session.turns[1].made_seconds > 5
        chat.microphone.say(spoken(OTHER))
        chat.until(lambda: 1 in chat.speaker.stops, within=1.0)
        chat.until(lambda: len(chat.shown.over) == 2 and chat.state == "idle")
        assert texts(chat)[2:] == ["", SHORT]
        assert chat.speaker.counts.own_underruns == 0


def test_all_of_a_long_reply_is_played(chatting, monkeypatch):
    monkeypatch.setattr("sottovoce.runtime.chat.reply_sound.AHEAD_SECONDS", 0.5)
    with chatting(LONG) as chat:
        turn = chat.ask(spoken(QUESTION))
        assert turn.played_seconds == turn.made_seconds == 6 * PIECE / 24_000
        assert chat.speaker.counts.own_underruns == 0


def test_quitting_in_a_reply_keeps_what_was_heard(chatting):
    with chatting(LONG) as chat:
        chat.microphone.say(spoken(QUESTION))
        chat.until(lambda: chat.state == "speaking")
        chat.step(0.93)
        chat.session.tell(Quit(chat.session.now))
        chat.until(lambda: chat.session.closed, within=1.0)
        chat.session.end()
        assert chat.session.turns[1].text == texts(chat)[1] == "One fine day,"
        assert chat.session.turns[1].reason == "cancelled"
        assert chat.session.turns[1].is_over


def test_latency_is_what_was_really_waited(chatting):
    """The clock stands still while a reply is computed; that does not make it come at once."""
    with chatting(SHORT) as chat:
        chat.session.tell(TypedLine(0.0, "What is the time?"))
        chat.until(lambda: bool(chat.shown.over))
        turn = chat.shown.over[0]
        assert turn.latency_ms > 0.5 * turn.timings["first_audio"]
        assert turn.latency_ms < turn.timings["total"] + 50


def test_what_becomes_of_a_session_does_not_depend_on_how_often_it_is_stepped(chatting, assistant):
    """A program that was held up for a second takes all that was captured meanwhile."""
    with chatting(SHORT) as chat:
        chat.microphone.say(spoken(QUESTION))
        for _ in range(6):
            chat.session.step()
            chat.worker.wait()
            chat.clock.advance(1.0)
        chat.until(lambda: chat.state == "idle" and bool(chat.shown.over))
        assert texts(chat) == ["", SHORT]
        assert len(chat.conversation.question.audio.samples) > len(spoken(QUESTION))
        script(assistant, chat.conversation, LONG)
        chat.ask(spoken(OTHER))
        assert texts(chat)[2:] == ["", LONG]
