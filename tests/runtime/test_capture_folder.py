"""Folders of captured conversations: whose they are, when they are full, and that they stay whole."""

from __future__ import annotations

import json
import resource
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundle_factory import write_bundle
from PIL import Image

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.conversation_options import ConversationOptions
from sottovoce.runtime.conversation_set import writing
from sottovoce.runtime.conversation_set.capture_folder import LOCK_FILE, CaptureFolder
from sottovoce.runtime.conversation_set.capture_record import CaptureRecord, read_capture_record
from sottovoce.runtime.conversation_set.captured_conversation import CapturedConversation
from sottovoce.runtime.conversation_set.item import parse_item
from sottovoce.runtime.conversation_set.question_files import CaptureLimits
from sottovoce.runtime.errors import InputError, SottovoceError
from sottovoce.runtime.question import Question
from sottovoce.runtime.reply import ReplyDone
from sottovoce.runtime.sampling import SamplingOptions

OPTIONS = ConversationOptions(None, SamplingOptions(greedy=True), SamplingOptions(greedy=True), None, 20)
DONE = ReplyDone("stop", {}, " It is noon. ", "☞", (1, 2))
SECOND_OF_SOUND = (np.full(16000, 0.25), 16000)


def bundle_at(folder: Path, **audio) -> Bundle:
    return Bundle.open(write_bundle(folder, (lambda record: record["audio"].update(audio)) if audio else None))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return bundle_at(tmp_path / "a.bundle")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "captured"


def add(folder: CaptureFolder, question: Question) -> str | None:
    return CapturedConversation(folder, OPTIONS).add(question, DONE)


def items(place: Path) -> list:
    lines = (place / "set.jsonl").read_bytes().splitlines()
    found = [parse_item(line, "set.jsonl") for line in lines]
    for item in found:
        assert all((place / name).is_file() for name in item.files)
    return found


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_a_new_folder_is_its_owners_alone_and_says_whose_replies_it_holds(bundle: Bundle, place: Path) -> None:
    folder = CaptureFolder.open(place / "new", bundle)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert read_capture_record(folder.path, bundle.manifest) == CaptureRecord(1, "vita-1.5", bundle.sha256, 16000)
    assert (folder.usage().conversations, names(folder.path)) == (0, [LOCK_FILE, "capture.json"])


def test_captures_of_another_sample_rate_are_refused(bundle: Bundle, place: Path, tmp_path: Path) -> None:
    other = bundle_at(tmp_path / "b.bundle", sample_rate=8000)
    CaptureFolder.open(place, other)
    for use in (CaptureFolder.open, lambda path, bundle: read_capture_record(path, bundle.manifest)):
        with pytest.raises(
            InputError, match="captured at 8000 samples a second; this bundle's model hears 16000"
        ) as no:
            use(place, bundle)
        assert no.value.file == str(place / "capture.json")
        assert no.value.fix


def test_another_bundle_may_read_what_it_may_not_add_to(bundle: Bundle, place: Path, tmp_path: Path) -> None:
    other = bundle_at(tmp_path / "b.bundle", max_seconds=30.0)
    CaptureFolder.open(place, other)
    with pytest.raises(InputError, match=f"{bundle.sha256}.*captured was with {other.sha256}"):
        CaptureFolder.open(place, bundle)
    assert read_capture_record(place, bundle.manifest) == CaptureRecord.of(other)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"format_version": 2, "surprise": 1}, "format_version is 2; this sottovoce reads version 1"),
        ({"model_family": "vita-2"}, "'vita-2'; this bundle's is 'vita-1.5'"),
        ({"audio_sample_rate": "16000"}, "audio_sample_rate is str"),
    ],
)
def test_a_record_that_cannot_be_believed(bundle: Bundle, place: Path, change: dict, says: str) -> None:
    CaptureFolder.open(place, bundle)
    record = json.loads((place / "capture.json").read_text())
    (place / "capture.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(SottovoceError, match=says) as no:
        CaptureFolder.open(place, bundle)
    assert no.value.file == str(place / "capture.json")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{broken", "not JSON"),
        (b"\xff", "not JSON in UTF-8"),
        (b"[1]", "format_version is None"),
        (b" " * 100_000, "more than 65536 bytes"),
    ],
    ids=["broken", "not-utf-8", "list", "huge"],
)
def test_a_record_that_is_none(bundle: Bundle, place: Path, content: bytes, says: str) -> None:
    CaptureFolder.open(place, bundle)
    (place / "capture.json").write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_capture_record(place, bundle.manifest)


def test_a_set_that_was_made_has_no_record_and_nothing_is_added_to_it(bundle: Bundle, place: Path) -> None:
    place.mkdir()
    (place / "set.jsonl").write_text('{"task": "typed_question", "text": "x", "reply": "y"}\n')
    assert read_capture_record(place, bundle.manifest) is None
    with pytest.raises(InputError, match=r"1 others are, such as 'set.jsonl'; expected none"):
        CaptureFolder.open(place, bundle)
    assert names(place) == ["set.jsonl"]


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/captured"])
def test_a_folder_that_cannot_be(bundle: Bundle, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SottovoceError) as no:
        CaptureFolder.open(tmp_path / where, bundle)
    assert no.value.file.startswith(str(tmp_path / where).removesuffix("/below"))
    assert no.value.fix


def test_the_bound_on_conversations(bundle: Bundle, place: Path) -> None:
    folder = CaptureFolder.open(place, bundle, CaptureLimits(conversations=2))
    question = Question("Hello.", SECOND_OF_SOUND)
    conversation = CapturedConversation(folder, OPTIONS)
    assert [conversation.add(question, DONE), add(folder, question)] == [None, None]
    before = names(place)
    assert "full: it holds 2 conversations" in add(folder, question)
    assert names(place) == before
    assert "full" in add(folder, Question(audio=place / "gone.wav"))  # said before any file is read
    # A conversation that is in the set may go on: it stays one.
    assert conversation.add(Question("And now?"), DONE) is None
    assert sorted(len(item.history) for item in items(place)) == [0, 2]


def test_the_bound_on_bytes_counts_what_is_there(bundle: Bundle, place: Path) -> None:
    folder = CaptureFolder.open(place, bundle, CaptureLimits(total_bytes=70_000))
    assert add(folder, Question(audio=SECOND_OF_SOUND)) is None
    assert 32_000 < folder.usage().bytes < 33_000
    assert add(folder, Question(audio=SECOND_OF_SOUND)) is None
    before = names(place)
    assert "and 70,000 may be" in add(folder, Question(audio=SECOND_OF_SOUND))
    assert names(place) == before
    assert len(items(place)) == 2


@pytest.mark.parametrize("kind", ["picture", "clip"])
def test_what_is_too_large_is_left_out_with_all_of_its_turn(bundle: Bundle, place: Path, tmp_path: Path, kind) -> None:
    folder = CaptureFolder.open(place, bundle, CaptureLimits(picture_pixels=5000, clip_bytes=1 << 20))
    (tmp_path / "clip.mp4").write_bytes(bytes((1 << 20) + 1))
    small, large = (Image.new("RGB", (width, 50)) for width in (100, 101))
    questions = {
        "picture": Question("Look.", SECOND_OF_SOUND, [small, large]),
        "clip": Question("Look.", SECOND_OF_SOUND, video=tmp_path / "clip.mp4"),
    }
    assert kind in add(folder, questions[kind])
    assert names(place) == [LOCK_FILE, "capture.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the disk that is always full")
def test_a_full_disk_is_named_and_leaves_the_set_as_it_was(bundle: Bundle, place: Path) -> None:
    folder = CaptureFolder.open(place, bundle)
    add(folder, Question("Hello.", SECOND_OF_SOUND))
    before = names(place)
    (place / ".set.jsonl.partial").symlink_to("/dev/full")
    conversation = CapturedConversation(folder, OPTIONS)
    with pytest.raises(SottovoceError, match="the disk became full") as no:
        conversation.add(Question("Hello.", SECOND_OF_SOUND), DONE)
    assert no.value.file == str(place / "set.jsonl")
    assert "room" in no.value.fix
    assert names(place) == before
    assert len(items(place)) == 1
    # There is room again, but what was lost would be missing in the history of what comes now.
    assert "earlier turn" in conversation.add(Question("And now?"), DONE)
    assert add(folder, Question("Hello.")) is None


def test_a_recording_that_does_not_fit_is_named(bundle: Bundle, place: Path) -> None:
    folder = CaptureFolder.open(place, bundle)
    before, unlimited = names(place), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, unlimited[1]))  # as on a disk with 20 kB left
    try:
        with pytest.raises(SottovoceError, match="cannot be captured") as no:
            add(folder, Question("Hello.", SECOND_OF_SOUND))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert no.value.file.endswith("-1-audio.wav")
    assert names(place) == before


def test_a_file_that_is_gone_is_named(bundle: Bundle, place: Path, tmp_path: Path) -> None:
    folder = CaptureFolder.open(place, bundle)
    for question in (Question(audio=tmp_path / "gone.wav"), Question(video=tmp_path / "gone.mp4")):
        with pytest.raises(SottovoceError) as no:
            add(folder, question)
        assert "/gone." in no.value.file
    assert names(place) == [LOCK_FILE, "capture.json"]


WRITER = """
import sys
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.conversation_options import ConversationOptions
from sottovoce.runtime.conversation_set.capture_folder import CaptureFolder
from sottovoce.runtime.conversation_set.captured_conversation import CapturedConversation
from sottovoce.runtime.question import Question
from sottovoce.runtime.reply import ReplyDone
from sottovoce.runtime.sampling import SamplingOptions

greedy = SamplingOptions(greedy=True)
folder = CaptureFolder.open(sys.argv[1], Bundle.open(sys.argv[2]))
sys.stdin.readline()
for number in range(20):
    conversation = CapturedConversation(folder, ConversationOptions(None, greedy, greedy, None, 20))
    for turn in range(2):
        question = Question(f"{sys.argv[3]}-{number}-{turn}", ([0.1] * 100, 16000))
        assert conversation.add(question, ReplyDone("stop", {}, "Yes.", "☞", (1,))) is None
"""


def test_several_processes_write_into_one_folder(bundle: Bundle, place: Path) -> None:
    commands = [[sys.executable, "-c", WRITER, str(place), str(bundle.path), name] for name in "abc"]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE) for command in commands]
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    found = items(place)
    assert sorted(item.text for item in found) == sorted(f"{name}-{n}-1" for name in "abc" for n in range(20))
    assert {item.history[0].text for item in found} == {f"{name}-{n}-0" for name in "abc" for n in range(20)}
    assert len(names(place)) == len({file for item in found for file in item.files}) + 3


def test_a_process_that_hangs_with_the_lock_is_not_waited_for(bundle: Bundle, place: Path, monkeypatch) -> None:
    folder = CaptureFolder.open(place, bundle)
    monkeypatch.setattr(writing, "LOCK_SECONDS", 0.1)
    with writing.exclusive(place / LOCK_FILE), pytest.raises(InputError, match="another process") as no:
        add(folder, Question("Hello."))
    assert no.value.file == str(place / LOCK_FILE)
    assert add(folder, Question("Hello.")) is None
