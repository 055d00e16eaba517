"""`sottovoce replay`: what it shows and how it exits, and every recording that is not one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from held_session import HeldSession, about

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.cli import main
from sottovoce.runtime.model import Model
from sottovoce.runtime.recording.recorder import Recorder

Damage = Callable[[Path], object]


def two_turns(session: HeldSession) -> None:
    session.type("What is the time?")
    session.give()
    session.say(12)
    session.pause(16)
    session.give()
    session.quit()


@pytest.fixture(scope="module")
def recorded(model: Model, voice: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of text alone, so that the bundle's endless speech is not computed; what is said of sound is added."""
    folder = tmp_path_factory.mktemp("recorded") / "recording"
    conversation = Assistant(model).conversation(greedy=True, speech=False, max_new_tokens=6)
    with Recorder(folder, about(conversation, model)) as recorder:
        two_turns(HeldSession(conversation, recorder, voice))
    return folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "recording"))


def replay(capsys: Any, *arguments: object) -> tuple[int, dict[str, Any]]:
    code = main(["replay", *map(str, arguments), "--json"])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return code, json.loads(printed.out)


def changed(path: Path, change: Callable[[dict[str, Any]], object], line: int = 0) -> None:
    """Change the object of one line of a file, or of a whole JSON file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    data = json.loads(lines[line])
    change(data)
    lines[line] = json.dumps(data)
    path.write_text("".join(one + "\n" for one in lines), encoding="utf-8")


def test_the_same_again(folder: Path, tiny_bundle: Path, capsys):
    code, found = replay(capsys, folder, "--bundle", tiny_bundle)
    assert (code, found["same"], found["replies_same"], found["remarks"]) == (0, True, True, [])
    assert found["same_conditions"]
    assert found["turn_taking"]["first_difference"] is None
    assert [reply["asked"] for reply in found["replies"]] == ["typed", "spoken 0.5 s"]
    assert found["replies"][1]["now"]["tokens"] == found["replies"][1]["then"]["tokens"]


def test_an_engine_of_no_bundle_cannot_be_required(folder: Path, capsys):
    code, found = replay(capsys, folder, "--require-engine")
    assert code == 2
    assert "give --bundle BUNDLE" in found["error"]["message"]


def test_an_engine_may_be_required(folder: Path, tiny_bundle: Path, capsys):
    code, found = replay(capsys, folder, "--bundle", tiny_bundle, "--require-engine")
    assert code == 1
    assert "no engine that can be used, and one is required" in found["error"]["message"]


def test_people_see_an_aligned_table(folder: Path, tiny_bundle: Path, capsys):
    assert main(["replay", str(folder), "--bundle", str(tiny_bundle)]) == 0
    shown = capsys.readouterr().out
    assert "turn taking is the same" in shown
    assert "all 2 replies are the same, to the bit" in shown
    header, *rows = (line for line in shown.splitlines() if line.startswith(("reply", "    ")))
    assert [row.index("same") for row in rows] == [rows[0].index("same")] * 2
    assert "first token" in header


def test_without_a_bundle_turn_taking_alone_is_replayed(folder: Path, capsys):
    code, found = replay(capsys, folder)
    assert (code, found["same"], found["replies"], found["replies_same"]) == (0, True, None, None)


def test_a_reply_that_differs_is_shown(folder: Path, tiny_bundle: Path, capsys):
    def say_other(reply: dict[str, Any]) -> None:
        reply["tokens"][3] = 1
        reply["text"] = "something else"

    changed(folder / "replies.jsonl", say_other)
    code, found = replay(capsys, folder, "--bundle", tiny_bundle)
    assert (code, found["same"]) == (1, False)
    assert [reply["differs"] for reply in found["replies"]] == [["text", "tokens"], []]
    assert found["replies"][0]["first_token"] == 3
    assert main(["replay", str(folder), "--bundle", str(tiny_bundle)]) == 1
    assert "reply 1 then  something else" in capsys.readouterr().out


@pytest.mark.parametrize("expect_same", [False, True])
def test_another_bundle_may_differ(folder: Path, tiny_bundle: Path, tiny_half_bundle: Path, capsys, expect_same):
    """Half the precision: another bundle, whose replies may or may not be the same; one is changed to be sure."""
    changed(folder / "replies.jsonl", lambda reply: reply["tokens"].append(1))
    flags = ["--expect-same"] if expect_same else []
    code, found = replay(capsys, folder, "--bundle", tiny_half_bundle, *flags)
    assert (code, found["same_conditions"], found["same"]) == (int(expect_same), False, False)
    assert found["remarks"][0].startswith("recorded with another bundle: tiny.bundle (")


def test_another_backend_may_differ(folder: Path, tiny_bundle: Path, capsys):
    changed(folder / "recording.json", lambda session: session.update(backend="tensorrt"))
    changed(folder / "replies.jsonl", lambda reply: reply["tokens"].append(1))
    code, found = replay(capsys, folder, "--bundle", tiny_bundle)
    assert (code, found["same"]) == (0, False)
    assert found["remarks"] == ["recorded with another backend: tensorrt, now onnxruntime"]


def test_another_number_of_threads_may_differ(folder: Path, tiny_bundle: Path, capsys):
    changed(folder / "replies.jsonl", lambda reply: reply["tokens"].append(1))
    code, found = replay(capsys, folder, "--bundle", tiny_bundle, "--threads", 2)
    assert (code, found["same"]) == (0, False)
    assert found["remarks"] == ["recorded with 1 threads, now 2: sums are rounded otherwise"]
    assert replay(capsys, folder, "--bundle", tiny_bundle)[0] == 1


def test_turn_taking_counts_whatever_the_bundle(folder: Path, capsys):
    changed(folder / "recording.json", lambda session: session["duplex"].update(end_ms=700))
    code, found = replay(capsys, folder)
    assert (code, found["same"]) == (1, False)
    assert found["turn_taking"]["first_difference"]["then"]["action"] == "EndOfSpeech"


def test_without_greedy_or_seed_turn_taking_alone_is_compared(folder: Path, tiny_bundle: Path, capsys):
    def drawn(session: dict[str, Any]) -> None:
        session["conversation"]["text_sampling"].update(greedy=False, temperature=1.0)

    changed(folder / "recording.json", drawn)
    code, found = replay(capsys, folder, "--bundle", tiny_bundle)
    assert (code, found["replies"], found["replies_same"]) == (0, None, None)
    assert "turn taking alone is compared" in found["remarks"][0]
    changed(folder / "recording.json", lambda session: session["conversation"].update(seed=3))
    assert replay(capsys, folder, "--bundle", tiny_bundle)[1]["replies"] is not None


def cut(name: str, count: int) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-count])

    return damage


@pytest.mark.parametrize("name", ["events.jsonl", "replies.jsonl", "notes.jsonl"])
def test_a_last_line_that_was_cut_is_left_out(folder: Path, tiny_bundle: Path, capsys, name: str):
    cut(name, 5)(folder)
    code, found = replay(capsys, folder, "--bundle", tiny_bundle)
    assert code == 0, found
    assert any(f"the last line of {name} was cut off" in remark for remark in found["remarks"])
    missing = [reply["same"] for reply in found["replies"]]
    assert missing == ([True, None] if name == "replies.jsonl" else [True, True])


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def edit(name: str, change: Callable[[dict[str, Any]], object], line: int = 0) -> Damage:
    return lambda folder: changed(folder / name, change, line)


def sound(rate: int, channels: int = 1) -> Damage:
    def damage(folder: Path) -> None:
        soundfile.write(folder / "microphone.wav", np.zeros((40_000, channels), np.float32), rate, "FLOAT")

    return damage


def spoken(content: Callable[[Path], object]) -> Damage:
    """A reply that says it has sound, and a file that is something else."""

    def damage(folder: Path) -> None:
        changed(folder / "replies.jsonl", lambda reply: reply.update(samples=100))
        content(folder / "reply-0001.wav")

    return damage


def linked(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return damage


def shown(file: str) -> Damage:
    """The typed line came with a picture, kept under such a name."""

    def damage(folder: Path) -> None:
        path = folder / "events.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        lines.insert(0, json.dumps({"event": {"event": "Picture", "at": 0.0, "name": "x"}, "actions": []}))
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        changed(path, lambda step: step["actions"][0].update(pictures=["x"]), 1)
        note = {"note": "PictureFile", "name": "x", "events": 0, "file": file, "reason": None}
        (folder / "notes.jsonl").write_text(json.dumps(note) + "\n", encoding="utf-8")

    return damage


DAMAGES: dict[str, tuple[Damage, list[str]]] = {
    "no folder": (shutil.rmtree, ["there is no such folder"]),
    "no recording.json": (remove("recording.json"), ["holds no recording.json"]),
    "no events": (remove("events.jsonl"), ["'events.jsonl'", "missing"]),
    "no replies": (remove("replies.jsonl"), ["'replies.jsonl'", "missing"]),
    "no notes": (remove("notes.jsonl"), ["'notes.jsonl'", "missing"]),
    "no microphone": (remove("microphone.wav"), ["'microphone.wav'", "missing"]),
    "session no JSON": (write("recording.json", b"{"), ["recording.json", "not JSON"]),
    "session too large": (write("recording.json", b" " * (1 << 20) + b"{}"), ["bytes, at most"]),
    "session a list": (write("recording.json", b"[]"), ["format_version is None"]),
    "version": (edit("recording.json", lambda one: one.update(format_version=2)), ["format_version is 2"]),
    "session key": (edit("recording.json", lambda one: one.update(duplexes=1)), ["'duplexes'", "'duplex'"]),
    "setting": (edit("recording.json", lambda one: one["duplex"].update(end_ms="x")), ["duplex.end_ms", "int"]),
    "range": (edit("recording.json", lambda one: one["duplex"].update(end_ms=1)), ["end_ms is 1", "recording.json"]),
    "option": (edit("recording.json", lambda one: one["conversation"].pop("seed")), ["conversation.seed"]),
    "sampling": (
        edit("recording.json", lambda one: one["conversation"]["text_sampling"].update(top_p=0)),
        ["top_p", "recording.json"],
    ),
    "threads": (edit("recording.json", lambda one: one.update(threads=0)), ["threads is 0"]),
    "rate": (edit("recording.json", lambda one: one.update(reply_rate=0)), ["reply_rate is 0"]),
    "event no JSON": (write("events.jsonl", b'{"event": \n'), ["events.jsonl", "line 1"]),
    "event not UTF-8": (write("events.jsonl", b"\xff\n"), ["line 1", "UTF-8"]),
    "event NaN": (write("events.jsonl", b'{"event": NaN, "actions": []}\n'), ["line 1", "NaN is no number"]),
    "event deep": (write("events.jsonl", b"[" * 200_000 + b"\n"), ["line 1", "not JSON"]),
    "event long": (write("events.jsonl", b" " * (1 << 20) + b"\n"), ["line 1 has more than"]),
    "event list": (write("events.jsonl", b"[]\n"), ["line 1 is list"]),
    "event key": (edit("events.jsonl", lambda one: one.update(when=1), 3), ["line 4", "'when'"]),
    "event kind": (edit("events.jsonl", lambda one: one["event"].update(event="Nod"), 2), ["line 3.event.event"]),
    "event time": (edit("events.jsonl", lambda one: one["event"].update(at=-1), 1), ["line 2.event", "at is -1"]),
    "action kind": (
        edit("events.jsonl", lambda one: one["actions"][0].update(action="Dance")),
        ["line 1.actions[0].action", "Dance"],
    ),
    "action value": (
        edit("events.jsonl", lambda one: one["actions"][0].update(epoch=None)),
        ["line 1.actions[0].epoch", "expected int"],
    ),
    "actions": (edit("events.jsonl", lambda one: one.update(actions={})), ["line 1.actions is dict"]),
    "reply key": (edit("replies.jsonl", lambda one: one.pop("tokens")), ["line 1.tokens"]),
    "reply value": (edit("replies.jsonl", lambda one: one.update(events=-1)), ["line 1.events is -1"]),
    "reply twice": (edit("replies.jsonl", lambda one: one.update(epoch=1), 1), ["line 2", "second reply", "1"]),
    "note kind": (edit("notes.jsonl", lambda one: one.update(note="Song")), ["line 1.note is 'Song'"]),
    "rate of the WAV": (sound(44_100), ["44100 samples a second", "expected 16000"]),
    "stereo": (sound(16_000, 2), ["in 2 channels"]),
    "no WAV": (write("microphone.wav", b"RIFF" * 100), ["microphone.wav", "not a recording that can be read"]),
    "short WAV": (cut("microphone.wav", 40_000), ["are wanted, the file holds"]),
    "no sound of a reply": (spoken(lambda file: None), ["'reply-0001.wav'", "missing"]),
    "another sound": (
        spoken(lambda file: soundfile.write(file, np.zeros(100, np.float32), 24_000, "FLOAT")),
        ["reply-0001.wav", "are not the 100"],
    ),
    "linked events": (linked("events.jsonl"), ["'events.jsonl' leaves"]),
    "linked session": (linked("recording.json"), ["'recording.json' leaves"]),
    "linked microphone": (linked("microphone.wav"), ["'microphone.wav' leaves"]),
    "picture above": (shown("../picture.png"), ["'../picture.png' leaves"]),
    "picture elsewhere": (shown("/etc/hostname"), ["'/etc/hostname' leaves"]),
    "picture missing": (shown("picture-0001.png"), ["'picture-0001.png'", "missing"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(folder: Path, tiny_bundle: Path, capsys, damage: str):
    make, words = DAMAGES[damage]
    make(folder)
    code, found = replay(capsys, folder, "--bundle", tiny_bundle)
    assert code == 1
    assert set(found) == {"error"}, found
    for word in words:
        assert word in f"{found['error']['file']}: {found['error']['message']}", found


def test_a_file_is_no_recording(folder: Path, capsys):
    code, found = replay(capsys, folder / "events.jsonl")
    assert code == 1
    assert "not a recording" in found["error"]["message"]
