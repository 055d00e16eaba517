"""A conversation held again from its recording: the same turns, and the same replies to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from held_session import HeldSession, small_model

from sottovoce.runtime.duplex.actions import Action, Ask, CancelReply, Discard, Prepare, Withdraw
from sottovoce.runtime.duplex.events import DeviceLost
from sottovoce.runtime.model import Model
from sottovoce.runtime.recording.comparing import ReplyComparison, compare, first_difference
from sottovoce.runtime.recording.conversation_replay import ConversationReplay
from sottovoce.runtime.recording.reading import Recording
from sottovoce.runtime.recording.turn_taking import replay_turn_taking

Script = Callable[[HeldSession], None]


def replayed(folder: Path, model: Model) -> list[ReplyComparison]:
    recording = Recording.open(folder)
    recording.check_sounds()
    assert replay_turn_taking(recording).difference is None
    replay = ConversationReplay(recording, model)
    found = [compare(recording, held) for held in replay.replies()]
    assert replay.troubles == []
    assert [reply.now.epoch for reply in found] == list(recording.replies)
    return found


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


def different(replies: list[ReplyComparison]) -> dict[int, tuple[str, ...]]:
    return {reply.now.epoch: reply.differs for reply in replies if reply.differs or reply.then is None}


@pytest.mark.parametrize(
    "options", [{"greedy": True}, {"seed": 7, "temperature": 1.0}, {"greedy": True, "speech": False}]
)
def test_everything_is_the_same_again(record, everything: Script, options):
    speech = options.get("speech", True)

    def script(session: HeldSession) -> None:
        if speech:
            everything(session)
        else:
            session.say(14)
            session.pause(16)
            session.give()
            session.type("Hello.")
            session.give(3)
            session.say(20)
            session.pause(16)
            session.give()

    recorded = record(script, **options)
    done = kinds(recorded.session.actions)
    replies = replayed(recorded.folder, recorded.model)
    assert different(replies) == {}
    assert all(reply.now.samples > 0 for reply in replies if reply.now.reason == "length" and speech)
    if speech:
        assert {"Withdraw", "CancelReply", "Discard", "Ask", "ReplyOver", "Close"} <= set(done)
        assert done.index("Prepare") < done.index("Withdraw") < done.index("EndOfSpeech")
        reasons = [reply.now.reason for reply in replies]
        assert reasons == ["length", "cancelled", "length", "cancelled", "cancelled"]
        played = [action.played_samples for action in recorded.session.actions if isinstance(action, CancelReply)]
        assert played == [700, 1000, 0, 0]


def test_the_replays_tell_a_different_history(record, everything: Script, model: Model):
    """What was heard of a cut reply is part of what comes after: with more of it kept, the next reply is another."""
    recorded = record(everything, greedy=True)
    file = recorded.folder / "events.jsonl"
    text = file.read_text(encoding="utf-8")
    assert text.count('"played_samples":700') == 1
    file.write_text(text.replace('"played_samples":700', '"played_samples":null'), encoding="utf-8")
    recording = Recording.open(recorded.folder)
    again = [compare(recording, held) for held in ConversationReplay(recording, model).replies()]
    cut = next(i for i, reply in enumerate(again) if reply.now.reason == "cancelled")
    assert different(again[:cut]) == {}
    assert again[cut].differs == ("kept",)
    assert {"text", "tokens"} <= set(again[cut + 1].differs)


@pytest.mark.parametrize("tokens", range(1, 10))
def test_a_reply_that_was_interrupted_while_it_was_computed_is_cut_at_the_same_token(record, model, tokens):
    def script(session: HeldSession) -> None:
        session.tell(DeviceLost(0.0, "speaker"))  # what is given out is what is kept
        session.press_key_at(tokens)
        session.type("What?")
        session.give()
        session.type("And?")
        session.give()

    recorded = record(script, greedy=True, speech=False)
    first, second = replayed(recorded.folder, model)
    assert len(first.now.tokens) == tokens
    assert (first.now.reason, first.differs, second.differs) == ("cancelled", (), ())


def test_what_was_not_meant_for_us_leaves_no_trace(record, tiny_bundle: Path, model: Model):
    def script(session: HeldSession) -> None:
        session.type("Hello.")
        session.give()
        session.play()
        session.say(12)
        session.pause(16)
        session.give()
        session.play()

    plain = record(script, greedy=True)
    first = Recording.open(plain.folder).replies[1].text
    deaf = small_model(tiny_bundle, not_addressed=first[:2])
    plain.folder.rename(plain.folder.with_name("plain"))
    recorded = record(script, by=deaf, greedy=True)
    replies = replayed(recorded.folder, deaf)
    assert (replies[0].now.reason, replies[0].now.kept) == ("not_addressed", "")
    assert len(replies) == 2
    assert different(replies) == {}


def test_pictures_are_found_in_the_recording(record, picture: Path, model: Model):
    def script(session: HeldSession) -> None:
        session.show("red", picture)
        session.type("What is in the picture?")
        session.give()

    recorded = record(script, greedy=True)
    picture.unlink()
    assert different(replayed(recorded.folder, model)) == {}
    copy = next(recorded.folder.glob("picture-*"))
    copy.write_bytes((Path(__file__).parents[2] / "golden" / "picture.png").read_bytes())
    assert different(replayed(recorded.folder, model)).keys() == {1}


def test_what_the_microphone_heard_matters(record, model: Model):
    def script(session: HeldSession) -> None:
        session.say(14)
        session.pause(16)
        session.give()

    recorded = record(script, greedy=True)
    with (recorded.folder / "microphone.wav").open("r+b") as file:
        file.seek(58 + 4 * 2000)
        file.write(np.zeros(2000, "<f4").tobytes())
    (reply,) = replayed(recorded.folder, model)
    assert {"text", "tokens", "samples"} <= set(reply.differs)
    assert reply.first_token is not None
    assert reply.first_sample is not None


def test_another_model_shows_what_changed(record, everything: Script, tiny_half_bundle: Path):
    recorded = record(everything, greedy=True)
    half = small_model(tiny_half_bundle)
    recording = Recording.open(recorded.folder)
    assert replay_turn_taking(recording).difference is None
    replies = [compare(recording, held) for held in ConversationReplay(recording, half).replies()]
    assert [reply.now.epoch for reply in replies] == list(recording.replies)
    changed = [reply for reply in replies if reply.differs]
    assert changed
    for reply in changed:
        assert (reply.first_token is None) == ("tokens" not in reply.differs)
        assert (reply.first_sample is None) == ("samples" not in reply.differs)
        json.dumps(reply.as_json())
    assert {"first_token", "first_audio", "total"} == set(replies[0].ratios)


def test_other_turn_taking_is_named(record, everything: Script):
    recorded = record(everything, greedy=True)
    recording = Recording.open(recorded.folder)
    session = replace(recording.session, duplex=replace(recording.session.duplex, end_ms=700))
    found = replay_turn_taking(replace(recording, session=session))
    assert found.difference is not None
    assert found.difference.event == "VoiceWindow"
    assert type(found.difference.then).__name__ == "EndOfSpeech"
    assert found.difference.now is None
    assert 0 < found.events < replay_turn_taking(recording).events


@pytest.mark.parametrize("kind", [Prepare, Withdraw, Ask, Discard])
def test_an_action_that_was_not_recorded_is_named(record, everything: Script, kind):
    recorded = record(everything, greedy=True)
    file = recorded.folder / "events.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    named = [i for i, line in enumerate(lines) if any(one["action"] == kind.__name__ for one in line["actions"])]
    lines[named[0]]["actions"] = [one for one in lines[named[0]]["actions"] if one["action"] != kind.__name__]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = replay_turn_taking(Recording.open(recorded.folder)).difference
    assert found is not None
    assert found.line == named[0] + 1
    assert isinstance(found.now, kind)


def test_events_that_contradict_each_other_are_refused(record):
    recorded = record(lambda session: session.say(3), greedy=True)
    file = recorded.folder / "events.jsonl"
    first, second, third = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([first, third, second, ""]), encoding="utf-8")
    found = replay_turn_taking(Recording.open(recorded.folder)).difference
    assert found is not None
    assert found.line == 2
    assert "after sample 512" in str(found)


@pytest.mark.parametrize(
    ("then", "now", "place"),
    [
        ((), (), None),
        ((1, 2), (1, 2), None),
        ((1, 2), (1, 3), 1),
        ((1,), (1, 2), 1),
        ((1, 2), (1,), 1),
        ((1,), (2, 1), 0),
    ],
)
def test_where_two_sequences_part(then, now, place):
    assert first_difference(then, now) == place
