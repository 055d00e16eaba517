"""A chat that is captured: turns as they were held, replies as far as they were heard, and nothing unless asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from espeak import spoken
from scripted import scripted

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.chat.worker import ConversationWorker, Uncaptured
from sottovoce.runtime.conversation_set.capture_folder import CaptureFolder
from sottovoce.runtime.conversation_set.captured_conversation import CapturedConversation
from sottovoce.runtime.conversation_set.item import EvaluationItem, parse_item
from sottovoce.runtime.conversation_set.question_files import CaptureLimits
from sottovoce.runtime.features.audio_file import read_audio

FIRST, SECOND = "Hello there, my friend. It is seven.", "Yes, that is so."


def items(folder: Path) -> list[EvaluationItem]:
    return [parse_item(line, "set.jsonl") for line in (folder / "set.jsonl").read_bytes().splitlines()]


@contextmanager
def captured(
    assistant: Assistant, folder: CaptureFolder, *replies: str, speech: bool = False
) -> Iterator[ConversationWorker]:
    conversation = scripted(assistant, *replies, speech=speech)
    worker = ConversationWorker(conversation, CapturedConversation(folder, conversation.options))
    try:
        yield worker
    finally:
        worker.close()


def test_the_next_turn_follows_what_was_heard(assistant: Assistant, tmp_path: Path) -> None:
    folder = CaptureFolder.open(tmp_path / "captured", assistant.bundle)
    with captured(assistant, folder, FIRST, SECOND, speech=True) as worker:
        speech = spoken("What is seven plus five")
        worker.hear(speech)
        worker.end_of_speech(1, ())
        assert worker.wait(30)
        [first] = items(folder.path)
        assert first.reply == FIRST
        assert read_audio(folder.path / first.audio).seconds == pytest.approx(len(speech) / 16_000, abs=0.1)
        worker.cancel(1, 0)  # computed whole, and stopped before anything of it was heard
        worker.ask(2, "And now?", ())
        assert worker.wait(30)
        assert not [one for one in worker.messages() if isinstance(one, Uncaptured)]
    [second] = items(folder.path)
    assert (second.reply, second.text) == (SECOND, "And now?")
    assert [turn.text for turn in second.history] == ["", ""]


def test_what_cannot_be_captured_is_told_once(assistant: Assistant, tmp_path: Path) -> None:
    folder = CaptureFolder.open(tmp_path / "captured", assistant.bundle, CaptureLimits(conversations=1))
    with captured(assistant, folder, FIRST) as first:
        first.ask(1, "Hello?", ())
        assert first.wait(30)
    with captured(assistant, folder, FIRST, SECOND) as worker:
        worker.ask(1, "Hello?", ())
        worker.ask(2, "And now?", ())
        assert worker.wait(30)
        reasons = [one.reason for one in worker.messages() if isinstance(one, Uncaptured)]
    assert len(reasons) == len(set(reasons)) >= 1
    assert len(items(folder.path)) == 1


def chat(bundle: Path, *flags: object, typed: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sottovoce.runtime", "chat", str(bundle), "--typed-only", "--silent", "--greedy"]
    command += ["--max-new-tokens", "4", *map(str, flags)]
    return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=120, check=False)


def test_chat_says_that_it_captures_and_writes_a_set(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "captured"
    done = chat(tiny_bundle, "--capture", folder, "--json", typed="How are you?\nAnd you?\n")
    assert done.returncode == 0, done.stderr
    assert "capture   on" in done.stderr
    assert json.loads(done.stdout)["capture"] == str(folder)
    [item] = items(folder)
    assert (item.text, len(item.history)) == ("And you?", 2)
    assert item.reply == json.loads(done.stdout)["turns"][1]["reply"].strip()


def test_chat_captures_nothing_unasked_and_refuses_a_bound_without_a_folder(tiny_bundle: Path, tmp_path: Path) -> None:
    done = chat(tiny_bundle, "--json", typed="How are you?\n")
    assert (done.returncode, json.loads(done.stdout)["capture"]) == (0, None)
    assert not list(tmp_path.iterdir())
    refused = chat(tiny_bundle, "--capture-max", 3, typed="")
    assert refused.returncode == 2
    assert "--capture DIR" in refused.stderr
