"""Events, actions and settings as JSON: what goes out comes back, and nothing else comes in."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sottovoce.runtime.duplex.actions import Action, ReplyOver
from sottovoce.runtime.duplex.events import Event
from sottovoce.runtime.duplex.serialization import read_action, read_event, write_action, write_event
from sottovoce.runtime.duplex.settings import DuplexSettings, read_settings
from sottovoce.runtime.records import RecordError, write_record

times = st.floats(0, 1e6)
counts = st.integers(0, 1 << 40)


strategies = {
    "at": times,
    "probability": st.floats(0, 1),
    "end_sample": st.integers(512, 1 << 40),
    "played_samples": st.none() | counts,
    **dict.fromkeys(("epoch", "samples", "start", "end"), counts),
}


def some(kind: type) -> st.SearchStrategy:
    names = {field.name for field in fields(kind)}
    chosen = {name: strategy for name, strategy in strategies.items() if name in names}
    if kind is ReplyOver:
        chosen["played_samples"] = counts
    return st.builds(kind, **chosen)


@given(st.one_of([some(kind) for kind in get_args(Event)]))
def test_events_come_back(event):
    assert read_event(json.loads(json.dumps(write_event(event))), source="events.jsonl") == event


@given(st.one_of([some(kind) for kind in get_args(Action)]))
def test_actions_come_back(action):
    assert read_action(json.loads(json.dumps(write_action(action))), source="actions.jsonl") == action


def test_every_kind_has_a_name_of_its_own():
    names = [kind.__name__ for union in (Event, Action) for kind in get_args(union)]
    assert len(names) == len(set(names)) == 26


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"event": "Played", "at": 1, "epoch": 1, "sample": 3}, "'line 3.sample'; did you mean 'samples'"),
        ({"event": "Played", "at": 1, "epoch": 1}, "'line 3.samples' is missing"),
        ({"event": "Played", "at": 1, "epoch": "1", "samples": 3}, "line 3.epoch is str '1', expected int"),
        ({"event": "Played", "at": 1, "epoch": True, "samples": 3}, "line 3.epoch is bool True, expected int"),
        ({"event": "Played", "at": 1, "epoch": 1.5, "samples": 3}, "line 3.epoch is float 1.5, expected int"),
        ({"event": "Played", "at": 1, "epoch": -1, "samples": 3}, "line 3: Played.epoch is -1, expected at least 0"),
        ({"event": "Tick", "at": float("nan")}, "line 3: Tick.at is nan, expected at least 0"),
        ({"event": "Tick", "at": float("inf")}, "line 3: Tick.at is inf"),
        ({"event": "Tick", "at": 10**400}, "too large"),
        ({"event": "Tick", "at": None}, "line 3.at is NoneType None, expected float"),
        ({"event": "VoiceWindow", "at": 1, "end_sample": 512, "probability": 1.01}, "VoiceWindow.probability is 1.01"),
        ({"event": "VoiceWindow", "at": 1, "end_sample": 511, "probability": 1.0}, "VoiceWindow.end_sample is 511"),
        (
            {"event": "DeviceLost", "at": 1, "device": "camera"},
            "line 3.device is 'camera', expected one of 'microphone'",
        ),
        ({"event": "ReplyFinished", "at": 1, "epoch": 1, "reason": "bored"}, "line 3.reason is 'bored'"),
        ({"event": "Nap", "at": 1}, "line 3.event is 'Nap', expected one of VoiceWindow"),
        ({"event": ["Tick"], "at": 1}, "line 3.event is"),
        ({"at": 1}, "'line 3.event' is missing"),
        ([1], "line 3 is list, expected an object"),
        (None, "line 3 is NoneType, expected an object"),
    ],
)
def test_what_is_no_event_is_refused(data, told):
    with pytest.raises(RecordError) as problem:
        read_event(data, source="events.jsonl", path="line 3")
    assert told in str(problem.value)
    assert problem.value.file == "events.jsonl"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"action": "Hear", "start": 0, "end": 5, "rate": 1}, "unknown key 'rate'"),
        ({"action": "Hear", "start": 0, "end": -5}, "Hear.end is -5"),
        ({"action": "Ask", "epoch": 1, "text": "a", "pictures": "b"}, "pictures is str 'b', expected a list"),
        ({"action": "Ask", "epoch": 1, "text": "a", "pictures": ["b", 2]}, "pictures[1] is int 2, expected str"),
        ({"action": "CancelReply", "epoch": 1, "played_samples": "all"}, "played_samples is str 'all'"),
        ({"action": "Discard", "start": 1, "end": 2, "reason": "rude"}, "reason is 'rude'"),
    ],
)
def test_what_is_no_action_is_refused(data, told):
    with pytest.raises(RecordError) as problem:
        read_action(data, source="actions.jsonl")
    assert told in str(problem.value)


def test_settings_come_back_and_what_is_left_out_is_the_default():
    settings = DuplexSettings(end_ms=700, half_duplex=True)
    assert read_settings(json.loads(json.dumps(write_record(settings))), source="a.json") == settings
    assert read_settings({}, source="a.json") == DuplexSettings()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"treshold": 0.5}, "unknown key 'duplex.treshold'; did you mean 'threshold'"),
        ({"threshold": 1.5}, "duplex.threshold is 1.5, expected 0.01 to 0.99"),
        ({"threshold": float("nan")}, "duplex.threshold is nan"),
        ({"threshold": "high"}, "duplex.threshold is str 'high', expected float"),
        ({"threshold": 10**400}, "too large"),
        ({"end_ms": 500.5}, "duplex.end_ms is float 500.5, expected int"),
        ({"duck": 1}, "duplex.duck is int 1, expected bool"),
        ({"end_ms": 100}, "duplex.prepare_ms is 200, more than end_ms, which is 100"),
        ({"release_threshold": 0.7}, "duplex.release_threshold is 0.7, more than threshold, which is 0.6"),
        ({"interruption_ms": 100}, "duplex.onset_ms is 160, more than interruption_ms, which is 100"),
        ({"max_turn_ms": 10**9}, "duplex.max_turn_ms is 1000000000, expected 1000 to 3600000"),
        ("fast", "expected an object"),
        ({"detector_lag_ms": 150, "prepare_ms": 100}, "duplex.detector_lag_ms is 150, prepare_ms 100; expected 32 ms"),
    ],
)
def test_settings_that_make_no_sense_are_refused(data, told):
    with pytest.raises(RecordError) as problem:
        read_settings(data, source="a.json", path="duplex")
    assert told in str(problem.value)
    assert problem.value.file == "a.json"
