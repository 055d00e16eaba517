"""What conversations do to the tiny bundle, measured once for all tests of calibration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sottovoce.calibration.ranges.calibrate import calibrate
from sottovoce.calibration.ranges.range_file import Ranges, read_ranges
from sottovoce.runtime.bundle import Bundle


@pytest.fixture(scope="session")
def tiny_ranges(tiny_bundle: Path, golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Ranges:
    """A spoken question about a picture and a typed one, each with a reply of a few tokens."""
    folder = tmp_path_factory.mktemp("conversations")
    for name in ("speech.wav", "picture.png"):
        (folder / name).write_bytes((golden_dir / name).read_bytes())
    short = {"reply": "", "captured": {"greedy": True, "max_new_tokens": 2}}
    items = [
        {"task": "spoken_picture_question", "audio": "speech.wav", "images": ["picture.png"], **short},
        {"task": "typed_question", "text": "Hello.", **short},
    ]
    (folder / "set.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    calibrate(Bundle.open(tiny_bundle), folder, folder / "ranges", allow_little_data=True)
    return read_ranges(folder / "ranges")
