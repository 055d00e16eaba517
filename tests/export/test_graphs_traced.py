"""The traced graphs against the reference, and against PyTorch on other sizes, switches and lengths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from checkpoint_factory import CheckpointRecipe, small_config, static_chunks_config, write_checkpoint
from graph_runner import cosine, run_graph

from sottovoce.calibration.bundles.graph_contract import check_graph
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.config import VitaConfig
from sottovoce.export.dialects import DIALECTS
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.modules.audio_encoder import AudioEncoder
from sottovoce.export.modules.codec import CodecDecoder
from sottovoce.export.modules.speech_decoder import SpeechDecoder
from sottovoce.export.modules.vision_encoder import VisionEncoder
from sottovoce.export.stage_exports import StageExporter
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import GraphSpec, StageName
from sottovoce.runtime.progress import SilentProgress

ACTIVATION_BAR, WAVEFORM_BAR, COSINE_BAR = 1e-4, 2e-5, 0.9999
GOLDEN: dict[StageName, tuple[str, str, bool]] = {
    "audio_encoder": ("audio.fbank", "audio.embeddings", True),
    "vision_encoder": ("image.pixels", "image.embeddings", False),
    "speech_text": ("speech.text_frames", "speech.nar", True),
    "codec": ("codec.codes", "codec.waveform", True),
}
"""Input, output, and whether the graph's batch axis is missing in the reference values."""


def run_golden(bundle: Path, stage: StageName, golden: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    source, result, add_batch = GOLDEN[stage]
    values = golden[source][None] if add_batch else golden[source]
    found = run_graph(bundle, Bundle.open(bundle).graph(stage), values)
    return (found[0] if add_batch else found), golden[result]


@pytest.mark.parametrize("stage", GOLDEN)
def test_fp32_graph_equals_the_reference(stage: StageName, tiny_bundle: Path, golden: dict[str, np.ndarray]) -> None:
    found, expected = run_golden(tiny_bundle, stage, golden)
    bar = WAVEFORM_BAR if stage == "codec" else ACTIVATION_BAR
    np.testing.assert_allclose(found, expected, rtol=0, atol=bar)


@pytest.mark.parametrize("stage", GOLDEN)
def test_fp16_graph_keeps_direction(stage: StageName, tiny_half_bundle: Path, golden: dict[str, np.ndarray]) -> None:
    found, expected = run_golden(tiny_half_bundle, stage, golden)
    assert found.shape == expected.shape
    assert cosine(found, expected) > COSINE_BAR


def export_stage(checkpoint: Checkpoint, stage: StageName, folder: Path) -> GraphSpec:
    (folder / "graphs").mkdir(exist_ok=True)
    exporter = StageExporter(checkpoint, DIALECTS["portable-23"], 256, SilentProgress())
    spec = exporter.export(StageFiles(stage, folder, "fp32"))
    check_graph(folder, spec)
    return spec


def open_random(config: VitaConfig, folder: Path) -> Checkpoint:
    return Checkpoint.open(write_checkpoint(folder / "checkpoint", CheckpointRecipe(config, seed=5, shards=6)))


@torch.no_grad()
def check_audio(config: VitaConfig, folder: Path) -> None:
    """Graph against PyTorch from the shortest recording to several chunks."""
    checkpoint = open_random(config, folder)
    spec = export_stage(checkpoint, "audio_encoder", folder)
    encoder = AudioEncoder(checkpoint.config.audio).eval()
    encoder.load_state_dict(dict(checkpoint.component_state("audio")))
    for frames in (7, 8, 10, 11, 64, 173, 402):
        features = 3 * np.random.default_rng(frames).normal(size=(1, frames, config.audio.mel_bins)).astype(np.float32)
        expected = encoder(torch.from_numpy(features))[0].numpy()
        np.testing.assert_allclose(run_graph(folder, spec, features), expected, rtol=0, atol=ACTIVATION_BAR)


@torch.no_grad()
def check_codec(config: VitaConfig, folder: Path) -> None:
    """Graph against PyTorch, from one code on."""
    checkpoint = open_random(config, folder)
    spec = export_stage(checkpoint, "codec", folder)
    decoder = CodecDecoder(checkpoint.config.codec).eval()
    decoder.load_released_state(checkpoint.component_state("codec"))
    books = config.codec.code_groups * config.codec.residual_layers
    for count in (1, 2, 57):
        shape = (1, count) if books == 1 else (1, count, books)
        codes = np.random.default_rng(count).integers(config.codec.num_codes, size=shape)
        expected = decoder(torch.from_numpy(codes)).numpy()
        np.testing.assert_allclose(run_graph(folder, spec, codes), expected, rtol=0, atol=WAVEFORM_BAR)
        assert expected.shape == (1, count * config.codec.samples_per_code)


def with_adapter(kind: str, prompts: int) -> VitaConfig:
    small = small_config()
    adapter = replace(small.audio.adapter, kind=kind)  # type: ignore[arg-type]
    return replace(small, audio=replace(small.audio, adapter=adapter, prompt_tokens=prompts))


def test_audio_in_static_chunks(tmp_path: Path) -> None:
    check_audio(static_chunks_config(), tmp_path)


def test_codec_with_residual_blocks_of_type_2(tmp_path: Path) -> None:
    check_codec(static_chunks_config(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "prompts"), [("cnn", 0), ("linear", 3), ("subsampling", 2)])
def test_audio_adapters_and_prompts(kind: str, prompts: int, tmp_path: Path) -> None:
    check_audio(with_adapter(kind, prompts), tmp_path)


@pytest.mark.slow
def test_codec_with_several_codebooks(tmp_path: Path) -> None:
    small = small_config()
    check_codec(replace(small, codec=replace(small.codec, code_groups=2, residual_layers=2)), tmp_path)


@pytest.mark.slow
@torch.no_grad()
def test_pictures_of_another_size(tmp_path: Path) -> None:
    checkpoint = open_random(static_chunks_config(), tmp_path)
    spec = export_stage(checkpoint, "vision_encoder", tmp_path)
    encoder = VisionEncoder(checkpoint.config.vision).eval()
    encoder.load_state_dict(dict(checkpoint.component_state("vision")))
    for tiles in (1, 2, 5):
        pixels = torch.randn(tiles, 3, 224, 224, generator=torch.Generator().manual_seed(tiles))
        found = run_graph(tmp_path, spec, pixels.numpy())
        np.testing.assert_allclose(found, encoder(pixels).numpy(), rtol=0, atol=ACTIVATION_BAR)


@pytest.mark.slow
@torch.no_grad()
def test_text_frames_of_another_size(tmp_path: Path) -> None:
    checkpoint = open_random(static_chunks_config(), tmp_path)
    spec = export_stage(checkpoint, "speech_text", tmp_path)
    decoder = SpeechDecoder(checkpoint.config.speech_decoder).eval()
    decoder.load_state_dict(dict(checkpoint.component_state("speech_decoder")))
    for count in (1, 2, 301):
        frames = torch.randn(1, count, checkpoint.config.speech_decoder.hidden_size)
        found = run_graph(tmp_path, spec, frames.numpy())
        np.testing.assert_allclose(found, decoder.condition(frames).numpy(), rtol=0, atol=ACTIVATION_BAR)


def test_graphs_tell_nothing_of_the_machine_they_were_made_on(tiny_bundle: Path) -> None:
    here = str(Path(torch.__file__).parent.parent).encode()
    for graph in sorted((tiny_bundle / "graphs").glob("*.onnx")):
        content = graph.read_bytes()
        assert here not in content
        assert b"site-packages" not in content
        assert b".py" not in content


def test_the_codec_has_convolutions_only_that_engines_have_in_int8(tiny_bundle: Path) -> None:
    model = onnx.load(str(tiny_bundle / "graphs" / "codec.onnx"), load_external_data=False)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Conv") > 0
    assert "ConvTranspose" not in kinds
