"""The reference's exact values, through the commands a user types: checkpoint → bundle → `run`, `say`, `verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from sottovoce.runtime.cli import main

SYSTEM = "You are a helpful assistant."
QUESTIONS = {
    "text": ["--text", "What is the time?"],
    "audio": ["--audio", "speech.wav"],
    "image_audio": ["--audio", "speech.wav", "--image", "picture.png"],
}


def run(bundle: Path, question: str, golden_dir: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    asked = [str(golden_dir / word) if word.endswith((".wav", ".png")) else word for word in QUESTIONS[question]]
    options = ["--system", SYSTEM, "--greedy", "--max-new-tokens", "24", "--no-speech", "--json"]
    code = main(["run", str(bundle), *asked, *options, "--dump-tensors", str(out / "tensors.npz")])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return json.loads(printed.out)


def clear_steps(margins: list[float], least: float) -> int:
    """Steps before the first near-tie: from there on the history may differ for good reason."""
    return next((step for step, margin in enumerate(margins) if margin <= least), len(margins))


@pytest.mark.parametrize("question", QUESTIONS)
def test_run_gives_the_reference_ids_and_logits(
    tiny_bundle: Path, golden_dir: Path, tmp_path: Path, capsys: Any, golden: Any, golden_json: Any, question: str
) -> None:
    answer = run(tiny_bundle, question, golden_dir, tmp_path, capsys)
    expected = golden_json["llm"][question]
    assert clear_steps(expected["margin"], 1e-3) == 24
    assert answer["tokens"] == expected["greedy"]
    with np.load(tmp_path / "tensors.npz") as found:
        assert found["llm.ids"].tolist() == expected["ids"]
        for tensor in ("embeddings", "step_logits"):
            np.testing.assert_allclose(found[f"llm.{tensor}"], golden[f"llm.{question}.{tensor}"], atol=1e-4)
        if "audio" in question:
            for tensor in ("audio.fbank", "audio.embeddings"):
                np.testing.assert_allclose(found[tensor], golden[tensor], atol=1e-4)
        if "image" in question:
            for tensor in ("image.pixels", "image.embeddings"):
                np.testing.assert_allclose(found[tensor], golden[tensor], atol=1e-4)


@pytest.mark.parametrize("question", QUESTIONS)
def test_half_precision_gives_the_reference_ids(
    tiny_half_bundle: Path, golden_dir: Path, tmp_path: Path, capsys: Any, golden: Any, golden_json: Any, question: str
) -> None:
    answer = run(tiny_half_bundle, question, golden_dir, tmp_path, capsys)
    expected = golden_json["llm"][question]
    steps = clear_steps(expected["margin"], 0.05)
    assert answer["tokens"][:steps] == expected["greedy"][:steps]
    with np.load(tmp_path / "tensors.npz") as found:
        same = found["llm.step_logits"][:steps].ravel(), golden[f"llm.{question}.step_logits"][:steps].ravel()
        assert cosine(*same) > 0.9999
        if "audio" in question:
            assert cosine(found["audio.embeddings"].ravel(), golden["audio.embeddings"].ravel()) > 0.9999
        if "image" in question:
            assert cosine(found["image.embeddings"].ravel(), golden["image.embeddings"].ravel()) > 0.9999


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_say_gives_the_reference_codes(
    tiny_bundle: Path, tmp_path: Path, capsys: Any, golden: Any, golden_json: Any
) -> None:
    text = golden_json["speech"]["text"]
    wav, dump = tmp_path / "said.wav", tmp_path / "said.npz"
    assert main(["say", str(tiny_bundle), text, "-o", str(wav), "--greedy", "--json", "--dump-tensors", str(dump)]) == 0
    printed = json.loads(capsys.readouterr().out)
    with np.load(dump) as found:
        np.testing.assert_allclose(found["speech.text_frames"], golden["speech.text_frames"], atol=1e-6)
        np.testing.assert_allclose(found["speech.nar"], golden["speech.nar"], atol=1e-4)
        np.testing.assert_allclose(found["speech.step_logits"][:64], golden["speech.step_logits"], atol=1e-4)
        assert found["speech.codes"][:64].tolist() == golden_json["speech"]["greedy_codes"]
        whole, codes = found["codec.waveform"], found["speech.codes"]
    samples, rate = soundfile.read(wav, dtype="float32")
    assert (rate, len(samples)) == (24000, 600 * len(codes))
    assert printed["audio"]["seconds"] == pytest.approx(len(samples) / 24000, abs=1e-3)
    # Streamed piece by piece, and yet the same sound: 16-bit rounding is all that differs.
    np.testing.assert_allclose(samples, whole, atol=2e-5 + 1 / 32768)


def test_a_clip_is_looked_at_a_frame_a_second(tiny_bundle: Path, golden_dir: Path, tmp_path: Path, capsys: Any) -> None:
    av = pytest.importorskip("av", reason="reading videos needs PyAV: pip install 'sottovoce[video]'")
    with av.open(str(tmp_path / "clip.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for index in range(30):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 48), (8 * index, 0, 0)))))
        container.mux(stream.encode())
    command = [
        "run",
        str(tiny_bundle),
        "--video",
        str(tmp_path / "clip.avi"),
        "--audio",
        str(golden_dir / "speech.wav"),
    ]
    dump = tmp_path / "tensors.npz"
    limits = ["--greedy", "--max-new-tokens", "3", "--no-speech", "--json", "--dump-tensors", str(dump)]
    assert main([*command, *limits]) == 0
    assert len(json.loads(capsys.readouterr().out)["tokens"]) == 3
    with np.load(dump) as found:
        assert found["image.pixels"].shape == (6, 3, 224, 224)  # six seconds
        assert (np.diff(found["image.pixels"][:, 0, 0, 0]) > 0).all()  # in their order
        assert found["llm.ids"].tolist().count(-200) == 6
        assert found["llm.ids"].tolist().count(-500) == 1


def test_verify_is_green_and_says_so(tiny_bundle: Path, tiny_checkpoint: Path, capsys: Any) -> None:
    assert main(["verify", str(tiny_bundle), "--checkpoint", str(tiny_checkpoint), "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["ok"] is True
    assert report["first_divergence"] is None
    assert [stage["stage"] for stage in report["stages"]] == [
        "audio_encoder",
        "vision_encoder",
        "language_model",
        "speech_text",
        "speech_codes",
        "codec",
    ]
    assert "every stage equals PyTorch" in printed.err


def test_verify_names_the_first_place_that_differs(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    """One weight of the checkpoint is changed behind the bundle's back."""
    import shutil

    from safetensors.torch import load_file, save_file

    changed = tmp_path / "changed"
    shutil.copytree(tiny_checkpoint, changed)
    shard = changed / "model-00001-of-00002.safetensors"
    tensors = load_file(shard)
    tensors["model.layers.1.mlp.down_proj.weight"][0, 0] += 0.05
    save_file(tensors, shard, metadata={"format": "pt"})
    assert main(["verify", str(tiny_bundle), "--checkpoint", str(changed), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first_divergence"] == "llm.step_logits"


def test_inspect_shows_what_runs_how(tiny_half_bundle: Path, capsys: Any) -> None:
    assert main(["inspect", str(tiny_half_bundle)]) == 0
    shown = capsys.readouterr().out
    assert "widened: no fp16 kernels here" in shown
    assert "language_model" in shown
    assert main(["inspect", str(tiny_half_bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["graphs"]["codec"]["precision"] == "fp16"
    assert set(found["runs_as"].values()) <= {"fp32", "fp16"}
