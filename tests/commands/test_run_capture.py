"""`sottovoce run --capture`: what is captured is what `evaluate` finds right, and nothing is captured unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.runtime.cli import main
from sottovoce.runtime.conversation_set.question_files import CaptureLimits

QUESTIONS = {
    "typed": ["--text", "What is the time?"],
    "spoken": ["--audio", "speech.wav", "--text", "Well?"],
    "picture": ["--image", "picture.png", "--image", "picture.png"],
    "spoken-picture": ["--audio", "speech.wav", "--image", "picture.png", "--system", "Be brief."],
    "clip": ["--video", "clip.avi"],
}
REPLY = ["--greedy", "--max-new-tokens", "12", "--no-speech", "--json"]


@pytest.fixture
def desk(tmp_path: Path, golden_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the questions name."""
    desk = tmp_path / "desk"
    desk.mkdir()
    for name in ("speech.wav", "picture.png"):
        (desk / name).symlink_to(golden_dir / name)
    monkeypatch.chdir(desk)
    return desk


def film(path: Path) -> None:
    av = pytest.importorskip("av", reason="reading videos needs PyAV: pip install 'sottovoce[video]'")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for index in range(4):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48), (60 * index, 0, 0)))))
        container.mux(stream.encode())


def run(capsys: Any, bundle: Path, *flags: str) -> tuple[dict[str, Any], str]:
    """The JSON object of a run that ends well, and what was said beside it."""
    assert main(["run", str(bundle), *REPLY, *flags]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    return json.loads(printed.out), printed.err


@pytest.mark.parametrize("kind", QUESTIONS)
def test_what_is_captured_is_what_the_bundle_answers_again(
    tiny_bundle: Path, desk: Path, capsys: Any, kind: str
) -> None:
    if kind == "clip":
        film(desk / "clip.avi")
    answer, said = run(capsys, tiny_bundle, *QUESTIONS[kind], "--capture", "captured")
    assert answer["capture"] == {"folder": "captured", "written": True, "reason": None}
    assert "capture   on: what is said and shown is written to captured (0 of 1,000 conversations" in said
    [item] = read_evaluation_set(desk / "captured")
    assert item.reply == answer["text"].strip() != ""
    assert not {"speech.wav", "picture.png", "clip.avi"} & set(item.files)

    assert main(["evaluate", str(tiny_bundle), "--set", "captured", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["reply_exact"] == 1.0
    assert "not captured greedily" not in printed.err


def test_nothing_is_written_unless_asked(tiny_bundle: Path, desk: Path, capsys: Any) -> None:
    before = sorted(desk.parent.rglob("*"))
    answer, said = run(capsys, tiny_bundle, *QUESTIONS["spoken"])
    assert answer["capture"] is None
    assert "capture" not in said
    assert sorted(desk.parent.rglob("*")) == before


def test_a_full_folder_is_said_and_is_no_failure(tiny_bundle: Path, desk: Path, capsys: Any) -> None:
    flags = [*QUESTIONS["spoken"], "--capture", "captured", "--capture-max", "1"]
    assert run(capsys, tiny_bundle, *flags)[0]["capture"]["written"]
    before = {path: path.read_bytes() for path in (desk / "captured").iterdir()}
    answer, said = run(capsys, tiny_bundle, *flags)
    assert answer["capture"]["written"] is False
    assert "full: it holds 1 conversations" in answer["capture"]["reason"]
    assert f"not captured: {answer['capture']['reason']}" in said
    assert answer["text"]
    assert {path: path.read_bytes() for path in (desk / "captured").iterdir()} == before


def test_drawn_replies_are_called_so(tiny_bundle: Path, desk: Path, capsys: Any) -> None:
    drawn = ["--text", "Hello.", "--max-new-tokens", "4", "--no-speech", "--temperature", "1", "--capture", "captured"]
    assert main(["run", str(tiny_bundle), *drawn]) == 0
    assert "capture   replies are drawn" in capsys.readouterr().out
    assert main(["evaluate", str(tiny_bundle), "--set", "captured", "--json"]) == 0
    assert "1 of the replies were not captured greedily" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["/proc/captured", "speech.wav", "."])
def test_a_place_to_capture_that_is_none_is_refused_before_anything_is_computed(
    tiny_bundle: Path, desk: Path, capsys: Any, place: str
) -> None:
    before = sorted(desk.iterdir())
    flags = ["--text", "Hello.", "--capture", place, "-o", "reply.wav", "--json"]
    assert main(["run", str(tiny_bundle), *flags]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["file"] == place
    assert error["fix"]
    assert sorted(desk.iterdir()) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the disk that is always full")
def test_a_full_disk_costs_no_more_than_the_capture(tiny_bundle: Path, desk: Path, capsys: Any) -> None:
    run(capsys, tiny_bundle, "--text", "Hello.", "--capture", "captured")
    (desk / "captured" / ".set.jsonl.partial").symlink_to("/dev/full")
    assert main(["run", str(tiny_bundle), *REPLY, "--text", "Hello.", "--capture", "captured"]) == 1
    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert (error["file"], "disk became full" in error["message"]) == ("captured/set.jsonl", True)
    assert len(read_evaluation_set(desk / "captured")) == 1


def test_a_bound_without_a_folder_is_wrong_usage(tiny_bundle: Path, capsys: Any) -> None:
    assert main(["run", str(tiny_bundle), "--text", "Hello.", "--capture-max", "5"]) == 2
    assert "--capture DIR" in capsys.readouterr().err


def test_the_help_tells_the_bounds(capsys: Any) -> None:
    limits = CaptureLimits()
    main(["run", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"(and {limits.total_bytes >> 30} GB); default: {limits.conversations}." in shown
