"""`sottovoce verify BUNDLE2 --against BUNDLE`: what passes, what is refused, and what is printed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from changed_bundle import change_bundle
from spoilt_bundle import multiplied, quantized

from sottovoce.calibration.divergence.same_model import require_same_model
from sottovoce.export.verify_command import parse_tolerance
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cli import main
from sottovoce.runtime.errors import BundleError, SottovoceError
from sottovoce.runtime.manifest import STAGES, BundleManifest


def test_a_good_bundle_passes(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = quantized(tiny_bundle, "int8-weights", tmp_path / "small.bundle")
    assert main(["verify", str(small), "--against", str(tiny_bundle), "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["ok"] is True
    assert found["first_divergence"] is None
    assert [stage["stage"] for stage in found["stages"]] == list(STAGES)
    for stage in found["stages"]:
        assert stage["ok"]
        # Where attention is one operator, a decoder has no values inside it to compare.
        assert stage["values"] > (70 if stage["stage"] == "language_model" else 90)
        assert 0 < stage["largest_error"] < stage["allowed"] == 0.1
        assert 20 < stage["signal_to_noise_db"] < 60
        assert 0.995 < stage["cosine"] < 1
        assert (stage["tokens"] is None) == (stage["stage"] not in ("language_model", "speech_codes"))
    assert "every stage is within its tolerance" in printed.err


def test_what_is_wrong_is_said_with_numbers_and_what_to_do(
    weights_bundle: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = "layers.0.mlp.down_proj.weight"
    change = multiplied(f"{weight}.scale", 50)
    spoilt = change_bundle(weights_bundle, tmp_path / "spoilt.bundle", {"language_model": change})
    arguments = ["verify", str(spoilt), "--against", str(tiny_bundle), "--steps", "3", "--json"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    first = found["first_divergence"]
    assert found["ok"] is False
    assert [stage["ok"] for stage in found["stages"]] == [True, True, False, True, True, True]
    assert (first["stage"], first["tensor"]) == ("language_model", "layers.0.mlp.down_proj.projected")
    assert (first["blame"], first["at"]) == ("scale", weight)
    assert first["error"] > 10 > first["allowed"]
    assert first["advice"] in printed.err
    assert first["reason"] in printed.err
    assert main([*arguments[:-1], "--tolerance", "language_model=1000000"]) == 0


def test_a_stage_that_was_not_changed_is_not_computed(
    weights_bundle: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(weights_bundle), "--against", str(tiny_bundle), "--steps", "2", "--json"]) == 0
    stages = {stage["stage"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert [name for name, stage in stages.items() if not stage["is_same_file"]] == ["language_model", "codec"]
    assert stages["audio_encoder"]["values"] == 0


def test_a_set_of_conversations_feeds_the_stages(
    weights_bundle: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stages that the set does not use are fed all the same; a set that is not there is an error."""
    item = {"task": "typed_question", "text": "Hello.", "reply": "", "captured": {"greedy": True, "max_new_tokens": 3}}
    (tmp_path / "set.jsonl").write_text(json.dumps(item) + "\n")
    arguments = ["verify", str(weights_bundle), "--against", str(tiny_bundle), "--json", "--data"]
    assert main([*arguments, str(tmp_path)]) == 0
    stages = {stage["stage"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert stages["language_model"]["tokens"]["tokens"] == 3
    assert stages["codec"]["values"] > 90
    assert main([*arguments, str(tmp_path / "nothing")]) == 1
    assert "set.jsonl" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_half_precision_is_compared_too(
    tiny_half_bundle: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle that was exported anew has no record of what it was made from: the checkpoint's hash speaks for it."""
    assert main(["verify", str(tiny_half_bundle), "--against", str(tiny_bundle), "--steps", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(stage["precision"] == "fp16" for stage in found["stages"])
    assert all(0 < stage["largest_error"] < 0.01 for stage in found["stages"])


Changed = Callable[[BundleManifest], BundleManifest]


def other_source(manifest: BundleManifest) -> BundleManifest:
    assert manifest.quantization is not None
    return replace(manifest, quantization=replace(manifest.quantization, source_sha256="5" * 64))


def other_tokenizer(manifest: BundleManifest) -> BundleManifest:
    record = replace(manifest.files[manifest.tokenizer], sha256="5" * 64)
    return replace(manifest, files={**manifest.files, manifest.tokenizer: record})


def other_shape(manifest: BundleManifest) -> BundleManifest:
    spec = manifest.graphs["codec"]
    inputs = (replace(spec.inputs[0], shape=(1, "codes", 3)),)
    return replace(manifest, graphs={**manifest.graphs, "codec": replace(spec, inputs=inputs)})


def other_table(manifest: BundleManifest) -> BundleManifest:
    return replace(manifest, token_embeddings=replace(manifest.token_embeddings, rows=7))


def other_checkpoint(manifest: BundleManifest) -> BundleManifest:
    provenance = replace(manifest.provenance, checkpoint_sha256="5" * 64)
    return replace(manifest, provenance=provenance, quantization=None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_source, "made from the bundle whose bundle.json has the SHA-256 5555"),
        (other_tokenizer, "tokenizer's SHA-256 is 5555"),
        (other_shape, r"inputs of 'codec' is codes \(1, 'codes', 3\), expected codes"),
        (other_table, "'token_embeddings' is 7 ×"),
        (other_checkpoint, "checkpoint's SHA-256 is 5555"),
        (lambda manifest: replace(manifest, model_family="vita-2"), "model_family is vita-2, expected vita-1.5"),
    ],
)
def test_bundles_of_other_models_are_refused(
    change: Changed, says: str, weights_bundle: Path, tiny_bundle: Path
) -> None:
    found, reference = Bundle.open(weights_bundle), Bundle.open(tiny_bundle)
    require_same_model(found, reference)
    with pytest.raises(BundleError, match=says) as refused:
        require_same_model(Bundle(found.path, change(found.manifest)), reference)
    assert refused.value.file == str(found.path / "bundle.json")
    assert refused.value.fix
    assert "force" not in refused.value.fix


def test_a_quantized_reference_is_refused(
    weights_bundle: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tiny_bundle), "--against", str(weights_bundle)]) == 1
    said = capsys.readouterr().err
    assert "'language_model' of the bundle to compare with is int8-weights, expected fp32 or fp16" in said


def test_the_command_refuses_a_bundle_that_was_made_from_another(
    weights_bundle: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same graphs, exported once more: another bundle all the same."""
    again = tmp_path / "again.bundle"
    shutil.copytree(tiny_bundle, again)
    text = (again / "bundle.json").read_text(encoding="utf-8")
    (again / "bundle.json").write_text(text + "\n", encoding="utf-8")
    assert main(["verify", str(weights_bundle), "--against", str(again)]) == 1
    said = capsys.readouterr().err
    assert Bundle.open(tiny_bundle).sha256 in said
    assert Bundle.open(again).sha256 in said
    assert "quantize this one anew" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give --checkpoint or --against"),
        (["--checkpoint", "checkpoint", "--against", "other"], "give --checkpoint or --against"),
        (["--checkpoint", "checkpoint", "--data", "folder"], "for --against"),
        (["--checkpoint", "checkpoint", "--tolerance", "0.1"], "for --against"),
        (["--against", "other", "--ignore-config-key", "key"], "for --checkpoint"),
    ],
)
def test_one_thing_to_compare_with(
    arguments: list[str], says: str, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tiny_bundle), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_tolerances_are_read_or_refused() -> None:
    assert parse_tolerance(None) is None
    assert parse_tolerance("0.25") == 0.25
    assert parse_tolerance("codec=0.1, language_model=0.2") == {"codec": 0.1, "language_model": 0.2}
    for text in ("zero", "0", "-1", "inf", "nan", "codec=", "codec=0.1,0.2"):
        with pytest.raises(SottovoceError) as refused:
            parse_tolerance(text)
        assert refused.value.fix
    with pytest.raises(SottovoceError, match="unknown stage 'ears'") as unknown:
        parse_tolerance("ears=0.1")
    assert "audio_encoder" in str(unknown.value.fix)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed: every import of it fails
from sottovoce.runtime.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_torch(*arguments: object) -> Any:
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_works_without_torch(weights_bundle: Path, tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    ran = without_torch("verify", weights_bundle, "--against", tiny_bundle, "--steps", "2", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["ok"]
    ran = without_torch("verify", tiny_bundle, "--checkpoint", tiny_checkpoint)
    assert ran.returncode == 1
    assert "pip install 'sottovoce[export]'" in ran.stderr
