"""Every kind of input that is not one, on the command line: named, explained, exit code 1, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from sottovoce.runtime.cli import main

Make = Callable[[Path], Path]
REPLY = ["--greedy", "--max-new-tokens", "3", "--no-speech", "--json"]


def wav(seconds: float, rate: int = 16000, channels: int = 1, subtype: str = "PCM_16", level: float = 0.3) -> Make:
    def make(folder: Path) -> Path:
        time_axis = np.arange(int(seconds * rate)) / rate
        samples = np.repeat(level * np.sin(2 * np.pi * 300 * time_axis)[:, None], channels, axis=1)
        soundfile.write(folder / "question.wav", samples, rate, subtype)
        return folder / "question.wav"

    return make


def content(name: str, data: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def picture(width: int, height: int) -> Make:
    def make(folder: Path) -> Path:
        Image.new("RGB", (width, height), "navy").save(folder / "picture.png")
        return folder / "picture.png"

    return make


def refused(arguments: list[str], capsys: Any, *words: str) -> dict[str, Any]:
    """Run a command that must fail with code 1, without a traceback; returns the JSON error."""
    assert main([*arguments, "--json"] if "--json" not in arguments else arguments) == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    error = json.loads(printed.out)["error"]
    assert set(error) == {"message", "file", "fix"}
    for word in words:
        assert word in f"{error['file']} {error['message']} {error['fix']}", error
    return error


@pytest.mark.parametrize(
    ("flag", "make", "words"),
    [
        ("--audio", content("empty.wav", b""), ["empty"]),
        ("--audio", content("text.wav", b"this is no sound" * 100), ["not a recording"]),
        ("--audio", wav(0.0), ["no samples"]),
        ("--audio", wav(0.02), ["too short", "20 ms", "85 ms"]),
        ("--audio", wav(600.0, rate=8000), ["600.0 s", "limit"]),
        ("--image", content("text.png", b"this is no picture" * 100), ["not a picture"]),
        ("--video", content("text.mp4", b"this is no video" * 100), ["text.mp4"]),
    ],
    ids=["empty", "not-audio", "no-samples", "20ms", "10min", "not-image", "not-video"],
)
def test_input_that_cannot_be_taken(
    tiny_bundle: Path, tmp_path: Path, capsys: Any, flag: str, make: Make, words: list[str]
) -> None:
    file = make(tmp_path)
    error = refused(["run", str(tiny_bundle), flag, str(file), "-o", str(tmp_path / "reply.wav")], capsys, *words)
    assert error["file"] == str(file)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]  # no reply, no part of one


@pytest.mark.parametrize(
    ("flag", "make"),
    [
        ("--audio", wav(0.5, level=0.0)),
        ("--audio", wav(0.5, subtype="PCM_U8")),
        ("--audio", wav(0.5, channels=2)),
        ("--audio", wav(0.5, rate=44100)),
        ("--image", picture(1, 1)),
        ("--image", picture(20000, 300)),
    ],
    ids=["silent", "8-bit", "stereo", "44.1kHz", "1x1", "20000x300"],
)
def test_odd_input_that_is_fine(tiny_bundle: Path, tmp_path: Path, capsys: Any, flag: str, make: Make) -> None:
    assert main(["run", str(tiny_bundle), flag, str(make(tmp_path)), *REPLY]) == 0
    assert len(json.loads(capsys.readouterr().out)["tokens"]) == 3


def test_a_prompt_longer_than_the_context(tiny_bundle: Path, capsys: Any) -> None:
    refused(["run", str(tiny_bundle), "--text", "long " * 40000, "--no-speech"], capsys, "32768", "context")


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    change(manifest)
    (bundle / "bundle.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(format_version=99), ["version", "99"]),
        (lambda m: m.update(surprise=1), ["surprise"]),
        (lambda m: m.update(tokenizer="../../etc/passwd"), ["../../etc/passwd"]),
        (lambda m: m["graphs"].pop("codec"), ["codec"]),
    ],
    ids=["version", "unknown-key", "path-leaves", "graph-missing"],
)
def test_a_manifest_that_cannot_be_believed(
    tiny_bundle: Path, tmp_path: Path, capsys: Any, change: Any, words: list[str]
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "copy.bundle")
    change_manifest(bundle, change)
    refused(["inspect", str(bundle)], capsys, "bundle.json", *words)


def test_a_hash_that_does_not_match(tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "copy.bundle")
    weights = bundle / "graphs" / "codec.onnx.data"
    data = bytearray(weights.read_bytes())
    data[1000] ^= 1
    weights.write_bytes(data)
    refused(["run", str(bundle), "--text", "hello"], capsys, "codec.onnx.data", "SHA-256")


def test_a_missing_or_broken_bundle(tmp_path: Path, capsys: Any) -> None:
    refused(["run", str(tmp_path / "none.bundle"), "--text", "hello"], capsys, "none.bundle")
    (tmp_path / "bundle.json").write_text("{not json")
    refused(["inspect", str(tmp_path)], capsys, "bundle.json")


def test_an_existing_output_is_refused_before_anything_is_read(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    existing = tmp_path / "mine.bundle"
    existing.mkdir()
    (existing / "precious.txt").write_text("mine")
    refused(["export", str(tiny_checkpoint), "-o", str(existing)], capsys, "mine.bundle", "--force")
    assert (existing / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: (c / "model-00002-of-00002.safetensors").unlink(), ["model-00002-of-00002.safetensors"]),
        (lambda c: os.truncate(c / "model-00001-of-00002.safetensors", 100_000), ["model-00001-of-00002.safetensors"]),
        (
            lambda c: shutil.copy(c / "model-00001-of-00002.safetensors", c / "model-00003-of-00003.safetensors"),
            ["00003"],
        ),
        (lambda c: (c / "config.json").write_text('{"model_type": "llama"}'), ["config.json", "llama"]),
        (lambda c: (c / "tokenizer.json").unlink(), ["tokenizer.json"]),
    ],
    ids=["missing-shard", "truncated-shard", "extra-shard", "model-type", "tokenizer"],
)
def test_a_checkpoint_that_is_not_whole(
    tiny_checkpoint: Path, tmp_path: Path, capsys: Any, damage: Any, words: list[str]
) -> None:
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    damage(checkpoint)
    refused(["export", str(checkpoint), "-o", str(tmp_path / "out.bundle")], capsys, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_unknown_words_on_the_command_line(tiny_bundle: Path, capsys: Any) -> None:
    for arguments in (
        ["run"],
        ["run", str(tiny_bundle)],
        ["run", str(tiny_bundle), "--text", "x", "--colour", "red"],
        ["dance"],
        ["run", str(tiny_bundle), "--text", "x", "--no-speech", "-o", "reply.wav"],
    ):
        assert main(arguments) == 2
        assert "Traceback" not in capsys.readouterr().err
    refused(["run", str(tiny_bundle), "--text", "hello", "--backend", "abacus"], capsys, "abacus")
    refused(["export", "x", "-o", "y", "--precision", "codec=fp17"], capsys, "fp17", "fp16")
    refused(["export", "x", "-o", "y", "--precision", "codek=fp16"], capsys, "codek", "codec")


def test_a_place_that_cannot_be_written(tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    nowhere = str(tmp_path / "nowhere" / "reply.wav")
    refused(["run", str(tiny_bundle), "--text", "hello", "-o", nowhere], capsys, "nowhere")
    refused(["say", str(tiny_bundle), "hello there", "-o", nowhere], capsys, "nowhere")


@pytest.mark.parametrize("later_seconds", [0.0, 3.0])
def test_ctrl_c_while_exporting_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path, later_seconds: float) -> None:
    command = [sys.executable, "-m", "sottovoce.runtime", "export", tiny_checkpoint, "-o", tmp_path / "out.bundle"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.iterdir()):  # the folder that is being written
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        time.sleep(later_seconds)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert said.splitlines()[-1] == "error: interrupted", said
    assert process.returncode == 130
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
