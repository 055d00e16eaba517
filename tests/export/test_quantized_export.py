"""Export to integers in one command, and what it refuses before any work is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.export.quantized_export import split_plan
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cli import main


def test_floats_are_exported_and_integers_quantized() -> None:
    exported, left = split_plan(parse_plan("fp16,language_model=int4-weights,kv_cache=int8"))
    assert exported == dict.fromkeys(
        ("audio_encoder", "vision_encoder", "speech_text", "speech_codes", "codec"), "fp16"
    )
    assert {stage: str(plan) for stage, plan in left.stages.items()} == {"language_model": "int4-weights:32"}
    assert left.kv_cache == "int8"
    assert not split_plan(parse_plan("fp16"))[1].changes_something


def test_activations_need_conversations(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(tiny_checkpoint), "-o", str(tmp_path / "small.bundle"), "--precision", "int8"]
    assert main(arguments) == 1
    assert "--data DIR" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_whole_way_in_one_command(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    line = {"task": "typed_question", "text": "Hello.", "reply": "", "captured": {"greedy": True, "max_new_tokens": 2}}
    (data / "set.jsonl").write_text(json.dumps(line) + "\n")
    plan = "language_model=int8,speech_codes=int4-weights"
    arguments = ["export", str(tiny_checkpoint), "-o", str(tmp_path / "small.bundle"), "--precision", plan]
    assert main([*arguments, "--data", str(data), "--allow-little-data", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["quality"]["items"] == 1
    bundle = Bundle.open(tmp_path / "small.bundle")
    assert bundle.graph("language_model").precision == "int8"
    assert bundle.graph("codec").precision == "fp32"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "small.bundle"]
