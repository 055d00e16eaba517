"""`sottovoce.json`: read when it is there, refused when it is wrong, and carried into the bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sottovoce.export import manifest_settings
from sottovoce.export.checkpoint.extras import CheckpointExtras, read_extras
from sottovoce.runtime.errors import SottovoceError

PROMPTS = {"plain": "You are small.", "image": "You see.", "video": "You watch."}


def test_without_the_file_the_released_habits_are_taken(tmp_path: Path) -> None:
    assert read_extras(tmp_path) == CheckpointExtras()
    assert "VITA" in manifest_settings.prompt(CheckpointExtras()).system_plain


def test_a_trainers_prompts_go_into_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "sottovoce.json").write_text(json.dumps({"system_prompts": PROMPTS, "max_tiles": 1}))
    extras = read_extras(tmp_path)
    assert extras.max_tiles == 1
    spec = manifest_settings.prompt(extras)
    assert (spec.system_plain, spec.system_image, spec.system_video) == tuple(PROMPTS.values())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"max_tile": 1}', "did you mean 'max_tiles'"),
        ('{"max_tiles": 0}', "expected 1 to 64"),
        ('{"system_prompts": {"plain": "x"}}', "system_prompts.image"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "sottovoce.json").write_text(content)
    with pytest.raises(SottovoceError, match=says) as refused:
        read_extras(tmp_path)
    assert refused.value.file == str(tmp_path / "sottovoce.json")
