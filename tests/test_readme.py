"""The README's Python examples, run as they stand there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
from PIL import Image

README = Path(__file__).resolve().parents[1] / "README.md"


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def desk(
    tmp_path: Path, tiny_bundle: Path, tiny_checkpoint: Path, golden_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working folder with what the examples name."""
    (tmp_path / "assistant.bundle").symlink_to(tiny_bundle)
    (tmp_path / "my-vita-checkpoint").symlink_to(tiny_checkpoint)
    shutil.copy(golden_dir / "speech.wav", tmp_path / "question.wav")
    Image.open(golden_dir / "picture.png").save(tmp_path / "door.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_conversation_example_speaks(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(examples()[0], "README.md", "exec"), {})  # noqa: S102  # our own README
    assert " after " in capsys.readouterr().out
    assert soundfile.info(desk / "reply.wav").samplerate == 24000


def test_the_live_example_hears_and_is_interrupted(desk: Path) -> None:
    said: dict[str, Any] = {}
    exec(compile(examples()[1], "README.md", "exec"), said)  # noqa: S102  # our own README
    assert [turn.role for turn in said["conversation"].history] == ["user", "assistant"]
    assert said["conversation"].history[0].audio


def test_the_export_example_writes_a_bundle(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(examples()[2], "README.md", "exec"), {})  # noqa: S102  # our own README
    assert (desk / "half.bundle" / "bundle.json").is_file()
    assert capsys.readouterr().out.endswith("MB\n")


def test_all_examples_are_run() -> None:
    assert len(examples()) == 3
