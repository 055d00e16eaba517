"""Conversations as they are captured: sounds and pictures as the model met them, turns as they followed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from scripted import done_of, script, scripted

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.conversation_set.capture_folder import CaptureFolder
from sottovoce.runtime.conversation_set.captured_conversation import CapturedConversation, task_of
from sottovoce.runtime.conversation_set.item import CapturedReply, EvaluationItem, format_item, parse_item
from sottovoce.runtime.conversation_set.question_files import CaptureLimits
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.features.audio_file import Waveform, read_audio
from sottovoce.runtime.features.images import read_image
from sottovoce.runtime.question import Question
from sottovoce.runtime.reply import ReplyDone

DONE = ReplyDone("stop", {}, "Yes.", "☞", (1,))
NOT_ADDRESSED = ReplyDone("not_addressed", {}, "", "☟", (1,))
GPS = 0x8825


@pytest.fixture
def folder(assistant: Assistant, tmp_path: Path) -> CaptureFolder:
    return CaptureFolder.open(tmp_path / "captured", assistant.bundle)


@pytest.fixture
def capture(assistant: Assistant, folder: CaptureFolder) -> CapturedConversation:
    return CapturedConversation(folder, assistant.conversation(greedy=True).options)


def items(folder: CaptureFolder) -> list[EvaluationItem]:
    return [parse_item(line, "set.jsonl") for line in (folder.path / "set.jsonl").read_bytes().splitlines()]


def history(item: EvaluationItem) -> list[tuple]:
    return [(turn.role, turn.text, turn.audio, turn.images) for turn in item.history]


def ask(conversation: Conversation, capture: CapturedConversation, *question, cancel: bool = False) -> str | None:
    events = conversation.ask(*question)
    taken = [next(events)]
    if cancel:
        conversation.cancel()
    return capture.add(conversation.question, done_of([*taken, *events]))


def test_a_conversation_is_one_line_that_grows(assistant: Assistant, folder: CaptureFolder, golden_dir: Path) -> None:
    conversation = scripted(assistant, "☞Good morning.", "☜ Seven. ", "☞Yes.", speech=False, max_new_tokens=30)
    capture = CapturedConversation(folder, conversation.options)
    assert ask(conversation, capture, None, golden_dir / "speech.wav", [golden_dir / "picture.png"]) is None
    [first] = items(folder)
    assert (first.task, first.reply, first.state) == ("spoken_picture_question", "Good morning.", "☞")
    assert first.captured == CapturedReply(greedy=True, max_new_tokens=30)

    assert ask(conversation, capture, "What is the time?") is None
    [second] = items(folder)
    assert (second.task, second.reply, second.state, second.text) == ("follow_up", "Seven.", "☜", "What is the time?")
    assert second.system == "You are a helpful assistant."
    asked = ("user", "", first.audio, first.images)
    assert history(second) == [asked, ("assistant", "Good morning.", None, ())]

    conversation.accept_waveform(np.full(8000, 0.1, dtype=np.float32), 8000)
    assert capture.add(conversation.question, DONE) is None  # the last one, typed: nothing new was asked yet
    assert capture.add(*spoken(conversation)) is None
    [third] = items(folder)
    assert len(third.history) == 6
    assert read_audio(folder.path / third.audio).seconds == 1.0


def spoken(conversation: Conversation) -> tuple[Question, ReplyDone]:
    done = done_of(list(conversation.end_of_speech()))
    return conversation.question, done


def test_nothing_was_asked_yet(assistant: Assistant) -> None:
    with pytest.raises(InputError, match="nothing was asked yet"):
        _ = assistant.conversation().question


def test_a_cancelled_reply_is_no_measure_but_its_question_is_history(
    assistant: Assistant, folder: CaptureFolder, golden_dir: Path
) -> None:
    conversation = scripted(assistant, "One two three four.", speech=False)
    capture = CapturedConversation(folder, conversation.options)
    assert "cancelled" in ask(conversation, capture, None, golden_dir / "speech.wav", cancel=True)
    assert not (folder.path / "set.jsonl").exists()
    assert folder.usage().bytes < 1000  # nor a recording
    script(assistant, conversation, "Yes.")
    assert ask(conversation, capture, "And now?") is None
    [item] = items(folder)
    assert (item.reply, item.history[0].audio is not None) == ("Yes.", True)
    assert item.history[1].text == conversation.history[1].text
    assert (folder.path / item.history[0].audio).is_file()


def test_what_was_not_meant_for_it_is_a_line_of_its_own(capture: CapturedConversation, folder: CaptureFolder) -> None:
    for text, done in (("One?", DONE), ("Hm.", NOT_ADDRESSED), ("Two?", DONE)):
        assert capture.add(Question(text), done) is None
    aside, conversation = items(folder)
    assert (aside.task, aside.reply, aside.state, len(aside.history)) == ("not_addressed", "", "☟", 2)
    assert [turn.text for turn in conversation.history] == ["One?", "Yes."]
    assert conversation.text == "Two?"


def test_behind_a_turn_that_is_missing_nothing_is_captured(assistant: Assistant, tmp_path: Path) -> None:
    folder = CaptureFolder.open(tmp_path / "small", assistant.bundle, CaptureLimits(picture_pixels=10))
    capture = CapturedConversation(folder, assistant.conversation(greedy=True).options)
    assert capture.add(Question("One?"), DONE) is None
    large = Question("And this?", images=[Image.new("RGB", (4, 4))])
    assert "16 pixels" in capture.add(large, NOT_ADDRESSED)  # no part of the conversation: that goes on
    assert capture.add(Question("Two?"), DONE) is None
    reason = capture.add(large, DONE)
    assert capture.add(Question("Three?"), DONE) == reason
    assert [item.text for item in items(folder)] == ["Two?"]


@pytest.mark.parametrize(
    ("question", "done", "follow_up", "task"),
    [
        (Question("x"), DONE, False, "typed_question"),
        (Question(audio="a.wav"), DONE, False, "spoken_question"),
        (Question("x", "a.wav"), DONE, True, "follow_up"),
        (Question(images=["p.png"]), DONE, False, "picture_caption"),
        (Question("x", images=["p.png"]), DONE, True, "picture_question"),
        (Question("x", "a.wav", ["p.png"]), DONE, False, "spoken_picture_question"),
        (Question("x", "a.wav", video="c.mp4"), DONE, False, "clip_question"),
        (Question(audio="a.wav"), NOT_ADDRESSED, True, "not_addressed"),
    ],
)
def test_the_task_is_chosen_by_content(question: Question, done: ReplyDone, follow_up: bool, task: str) -> None:
    assert task_of(question, done, is_follow_up=follow_up) == task


@pytest.mark.parametrize(
    ("options", "repeatable"),
    [
        ({"greedy": True}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 0.7}, False),
        ({"greedy": True, "repetition_penalty": 1.2}, False),
    ],
)
def test_it_is_noted_whether_the_reply_will_come_again(
    assistant: Assistant, folder: CaptureFolder, options: dict, repeatable: bool
) -> None:
    capture = CapturedConversation(folder, assistant.conversation(**options).options)
    capture.add(Question("x"), DONE)
    assert items(folder)[0].captured.greedy is capture.is_repeatable is repeatable


def test_sixteen_bits_at_the_models_rate_keep_their_very_samples(
    capture: CapturedConversation, folder: CaptureFolder
) -> None:
    every = np.arange(-32768, 32768, dtype=np.int16)
    capture.add(Question(audio=(every, 16000)), DONE)
    found = folder.path / items(folder)[0].audio
    assert soundfile.info(found).subtype == "PCM_16"
    assert np.array_equal(soundfile.read(found, dtype="int16")[0], every)


def test_other_sounds_come_to_the_models_rate_and_are_not_wrapped_around(
    capture: CapturedConversation, folder: CaptureFolder
) -> None:
    loud = 1.2 * np.sin(2 * np.pi * 200 * np.arange(44100) / 44100).astype(np.float32)
    capture.add(Question(audio=Waveform(loud, 44100)), DONE)
    samples, rate = soundfile.read(folder.path / items(folder)[0].audio, dtype="float32")
    expected = np.clip(Waveform(loud, 44100).at_rate(16000).samples, -1, 1)
    assert rate == 16000
    np.testing.assert_allclose(samples, expected, atol=1 / 32768)


def test_pictures_keep_their_pixels_and_lose_their_place(
    capture: CapturedConversation, folder: CaptureFolder, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    tags = Image.Exif()
    tags[GPS] = {1: "N", 2: (52.0, 31.0, 12.0)}
    Image.fromarray(pixels).save(tmp_path / "at my home.jpg", exif=tags, icc_profile=b"a profile", comment=b"secret")
    sources = [tmp_path / "at my home.jpg", pixels]
    capture.add(Question(images=sources), DONE)
    [item] = items(folder)
    for name, source in zip(item.images, sources, strict=True):
        with Image.open(folder.path / name) as found:
            assert (found.format, dict(found.info), dict(found.getexif())) == ("PNG", {}, {})
            assert np.array_equal(np.asarray(found), np.asarray(read_image(source)))


@pytest.mark.parametrize(("name", "suffix"), [("my secret.MP4", ".mp4"), ("a.name of mine", ""), ("none", "")])
def test_a_clip_is_copied_under_a_name_of_ours(
    capture: CapturedConversation, folder: CaptureFolder, tmp_path: Path, name: str, suffix: str
) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 5000)
    capture.add(Question(video=tmp_path / name), DONE)
    [item] = items(folder)
    assert (folder.path / item.video).read_bytes() == bytes(range(256)) * 5000
    assert Path(item.video).suffix == suffix
    assert not set(name.split()) & set((folder.path / "set.jsonl").read_text().split())


def test_a_line_is_what_was_written_and_no_more() -> None:
    item = EvaluationItem("typed_question", "Yes. 是\u2028\n", text="x", captured=CapturedReply(True, 5))
    line = format_item(item)
    assert line.count(b"\n") == 1
    assert b"history" not in line
    assert parse_item(line, "set.jsonl") == item
