"""A whole bundle with a chunked audio encoder: it streams in every precision, and all that looks into bundles can."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoint_factory import CheckpointRecipe, static_chunks_config, write_checkpoint

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.divergence.compare import compare_bundles
from sottovoce.calibration.divergence.stage_calls import StageInputs
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.quantize import QuantizeJob, quantize
from sottovoce.calibration.ranges.calibrate import calibrate
from sottovoce.calibration.ranges.range_file import Ranges, read_ranges
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.export import export
from sottovoce.export.reference import Reference
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.features.audio_file import Waveform, read_audio
from sottovoce.runtime.features.fbank import mel_filterbank
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.progress import SilentProgress
from sottovoce.runtime.speech_in.hearing import Hearing

PORTION = 511


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("chunks") / "checkpoint", CheckpointRecipe(static_chunks_config()))


@pytest.fixture(scope="module")
def chunked_bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("bundle") / "chunked.bundle"
    export(checkpoint, bundle)
    return bundle


@pytest.fixture(scope="module")
def chunked_ranges(chunked_bundle: Path, golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Ranges:
    folder = tmp_path_factory.mktemp("conversations")
    (folder / "speech.wav").write_bytes((golden_dir / "speech.wav").read_bytes())
    item = {"task": "spoken_question", "audio": "speech.wav", "reply": ""}
    item["captured"] = {"greedy": True, "max_new_tokens": 2}
    (folder / "set.jsonl").write_text(json.dumps(item) + "\n")
    calibrate(Bundle.open(chunked_bundle), folder, folder / "ranges", allow_little_data=True)
    return read_ranges(folder / "ranges")


def streamed(model: Model, recording: Waveform) -> np.ndarray:
    listener = Hearing(model, Stopwatch())
    starts = range(0, len(recording.samples), PORTION)
    pieces = [listener.append(recording.samples[at : at + PORTION], recording.sample_rate) for at in starts]
    assert sum(1 for piece in pieces if len(piece)) > 1
    return np.concatenate([*pieces, listener.finish()])


def test_streamed_speech_equals_the_reference(checkpoint: Path, chunked_bundle: Path, golden_dir: Path) -> None:
    recording, bundle = read_audio(golden_dir / "speech.wav"), Bundle.open(chunked_bundle)
    features = mel_filterbank(recording, bundle.manifest.audio)
    expected = Reference(Checkpoint.open(checkpoint)).audio_embeddings(features)
    model = Model(bundle, threads=1)
    np.testing.assert_allclose(streamed(model, recording), expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(model.audio_encoder(features), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp16", "int8-weights", "int4-weights:32", "int8"])
def test_a_smaller_encoder_streams_too(
    precision: str, chunked_bundle: Path, chunked_ranges: Ranges, golden_dir: Path, tmp_path: Path
) -> None:
    source = Bundle.open(chunked_bundle)
    plan = parse_plan(f"audio_encoder={precision}")
    quantize(QuantizeJob(source, plan, chunked_ranges), BundleWriter(tmp_path / "small.bundle", force=False))
    small = Bundle.open(tmp_path / "small.bundle")
    graph = small.graph("audio_encoder")
    assert graph.precision == precision.partition(":")[0]
    assert graph.stream == source.graph("audio_encoder").stream
    assert graph.inputs == source.graph("audio_encoder").inputs, "a state stays in floating point"
    assert graph.outputs == source.graph("audio_encoder").outputs
    recording, model = read_audio(golden_dir / "speech.wav"), Model(small, threads=1)
    whole = model.audio_encoder(mel_filterbank(recording, small.manifest.audio))
    error = np.abs(streamed(model, recording) - whole).max() / np.abs(whole).max()
    assert error < (1e-2 if "int" in precision else 2e-3)  # a sum on the border of two integers may fall on either side


def test_a_smaller_encoder_is_held_against_its_source(
    chunked_bundle: Path, chunked_ranges: Ranges, golden_dir: Path, tmp_path: Path
) -> None:
    source = Bundle.open(chunked_bundle)
    job = QuantizeJob(source, parse_plan("audio_encoder=int8"), chunked_ranges)
    quantize(job, BundleWriter(tmp_path / "small.bundle", force=False))
    inputs = StageInputs(audio=golden_dir / "speech.wav", steps=2)
    report = compare_bundles(Bundle.open(tmp_path / "small.bundle"), source, inputs, None, SilentProgress())
    [encoder] = [stage for stage in report.stages if stage.stage == "audio_encoder"]
    assert encoder.ok
    assert encoder.values > 100
    assert 0 < encoder.largest_error < 0.3
