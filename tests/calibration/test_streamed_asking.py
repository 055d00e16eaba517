"""A set asked as `chat` is asked: heard while it is said, answered in pauses, and the same replies as when asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sottovoce.calibration.replay import replay, replay_turns
from sottovoce.calibration.streamed_asking import ask_streamed, can_be_streamed, pauses_of
from sottovoce.runtime import Assistant, read_audio, write_wav
from sottovoce.runtime.cli import main
from sottovoce.runtime.conversation_set.item import EvaluationItem, HistoryTurn
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.features.audio_file import Waveform

RECORDING = Path(__file__).resolve().parents[2] / "demos" / "miniature" / "question.wav"
LONGEST_S = 120.0


@pytest.fixture(scope="module")
def assistant(tiny_bundle: Path) -> Iterator[Assistant]:
    with Assistant.open(tiny_bundle, threads=1, verify_hashes=False) as ready:
        yield ready


@pytest.fixture(scope="module")
def paused() -> Waveform:
    """A question said twice, with a second between."""
    said = read_audio(RECORDING)
    quiet = np.zeros(said.sample_rate, np.float32)
    return Waveform(np.concatenate([said.samples, quiet, said.samples, quiet[:4000]]), said.sample_rate)


@pytest.fixture(scope="module")
def folder(golden_dir: Path, paused: Waveform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    (folder / "picture.png").write_bytes((golden_dir / "picture.png").read_bytes())
    write_wav(folder / "paused.wav", paused.samples, paused.sample_rate)
    write_wav(folder / "once.wav", read_audio(RECORDING).samples, paused.sample_rate)
    write_wav(folder / "nothing.wav", np.zeros(100, np.float32), paused.sample_rate)
    return folder


@pytest.fixture(scope="module")
def item() -> EvaluationItem:
    """What was said, shown, typed and said with a typed text."""
    history = (
        HistoryTurn("user", "", "once.wav", ("picture.png",)),
        HistoryTurn("assistant", "A door."),
        HistoryTurn("user", "And now?"),
        HistoryTurn("assistant", "Now."),
        HistoryTurn("user", "Listen:", "once.wav"),
        HistoryTurn("assistant", "Yes."),
    )
    return EvaluationItem("spoken_question", "Noon.", audio="paused.wav", history=history)


def test_a_reply_is_begun_in_each_pause(paused: Waveform) -> None:
    once = len(read_audio(RECORDING).samples) / paused.sample_rate
    in_between = [pause for pause in pauses_of(paused) if once - 0.5 < pause < once + 1]
    assert len(in_between) == 1
    assert len(pauses_of(paused)) == 2  # the second is the end
    assert pauses_of(Waveform(np.zeros(16_000, np.float32), 16_000)) == []


def test_streamed_replies_are_the_same(assistant: Assistant, folder: Path, item: EvaluationItem) -> None:
    whole = replay_turns(assistant, item, folder, speech=False)
    streamed = replay_turns(assistant, item, folder, speech=False, streamed=True)
    assert [done.tokens for done in streamed] == [done.tokens for done in whole]
    assert all(len(done.tokens) > 1 for done in whole)
    # Only what could be said to `chat` was: two recordings, not the typed turn nor the one with both.
    assert [("prepared" in done.timings) for done in streamed] == [True, False, False, True]
    assert not any("prepared" in done.timings for done in whole)


def test_the_pause_in_the_middle_is_answered_and_withdrawn(assistant: Assistant, folder: Path) -> None:
    """What the pause costs is seen; that it leaves no trace is seen above."""
    conversation, done = assistant.conversation(greedy=True, speech=False, max_new_tokens=4), []
    calls, prepare = [], conversation.prepare
    conversation.prepare = lambda: calls.append(conversation.context_used) or prepare()  # type: ignore[method-assign]
    done = list(ask_streamed(conversation, EvaluationItem("x", "", audio="paused.wav"), folder, LONGEST_S))
    assert len(calls) == 3  # in the pause, in the one that is the end, and at the end
    assert done[-1].text == conversation.history[-1].text
    assert [turn.role for turn in conversation.history] == ["user", "assistant"]


def test_what_was_seen_counts(assistant: Assistant, folder: Path, item: EvaluationItem) -> None:
    """That the tokens agree proves something: without the picture, others come."""
    shown = replace(item, history=(), images=("picture.png",))
    seen = replay(assistant, shown, folder, speech=False, streamed=True).tokens
    assert seen == replay(assistant, shown, folder, speech=False).tokens
    assert seen != replay(assistant, replace(shown, images=()), folder, speech=False, streamed=True).tokens


def test_too_little_is_refused_as_when_asked(assistant: Assistant, folder: Path) -> None:
    short = EvaluationItem("spoken_question", "", audio="nothing.wav")
    with pytest.raises(InputError) as whole:
        replay(assistant, short, folder, speech=False)
    with pytest.raises(InputError) as streamed:
        replay(assistant, short, folder, speech=False, streamed=True)
    assert whole.value.message.split(",")[0] == streamed.value.message.split(",")[0]


def test_what_can_be_streamed() -> None:
    assert can_be_streamed(HistoryTurn("user", "", "a.wav"))
    assert not can_be_streamed(HistoryTurn("user", "Hello."))
    assert not can_be_streamed(EvaluationItem("x", "", text="Hello.", audio="a.wav"))


def test_evaluate_streamed_prints_the_same(
    tiny_bundle: Path, folder: Path, item: EvaluationItem, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"task": "spoken_question", "audio": "paused.wav", "reply": "Noon."},
        {"task": "spoken_picture_question", "audio": "once.wav", "images": ["picture.png"], "reply": "A door."},
        {"task": "typed_question", "text": "Hello.", "reply": "Hi."},
    ]
    (folder / "set.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    printed = []
    for flags in ([], ["--streamed"]):
        assert main(["evaluate", str(tiny_bundle), "--set", str(folder), "--json", *flags]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert printed[0] == printed[1]
    assert len(printed[0]["misses"]) == 3
