"""The chunked audio encoder's graph in several calls against PyTorch in one, and what its contract says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_factory import CheckpointRecipe, small_config, static_chunks_config, write_checkpoint

from sottovoce.calibration.bundles.graph_contract import check_graph
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.dialects import DIALECTS
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.modules.audio_encoder import AudioEncoder as TorchAudioEncoder
from sottovoce.export.stage_exports import StageExporter
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.manifest import AudioStreamSpec, GraphSpec, Precision
from sottovoce.runtime.progress import SilentProgress
from sottovoce.runtime.stages.audio_encoder import AudioEncoder

FP32_BAR, FP16_BAR = 1e-5, 2e-2
"""Of the largest embedding."""
STRIDE, OVERLAP = 4, 3
MEL_BINS = static_chunks_config().audio.mel_bins


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Chunks of 4 with 2 to the left, BatchNorm, a kernel of 3."""
    folder = tmp_path_factory.mktemp("chunks") / "checkpoint"
    return Checkpoint.open(write_checkpoint(folder, CheckpointRecipe(static_chunks_config(), seed=5)))


@pytest.fixture(scope="module")
def graph(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[GraphSpec, Path]:
    """Its encoder in float32, and the folder that it lies in."""
    folder = tmp_path_factory.mktemp("graph")
    return exported(checkpoint, folder), folder


def exported(checkpoint: Checkpoint, folder: Path, precision: Precision = "fp32") -> GraphSpec:
    (folder / "graphs").mkdir()
    exporter = StageExporter(checkpoint, DIALECTS["portable-23"], 256, SilentProgress())
    spec = exporter.export(StageFiles("audio_encoder", folder, precision))
    check_graph(folder, spec)
    return spec


def opened(spec: GraphSpec, folder: Path) -> AudioEncoder:
    return AudioEncoder(OnnxRuntimeSession("audio_encoder", spec, folder / spec.file, threads=1))


def energies(frames: int, mel_bins: int) -> np.ndarray:
    return 3 * np.random.default_rng(frames).normal(size=(frames, mel_bins)).astype(np.float32)


def in_calls(encoder: AudioEncoder, features: np.ndarray, steps: list[int]) -> np.ndarray:
    """So many encoder frames in each call, the rest in the last."""
    state, pieces = encoder.first_state, []
    for step in steps:
        start = STRIDE * state.position
        piece, state = encoder.append(features[start : start + STRIDE * step + OVERLAP], state)
        pieces.append(piece)
    pieces.append(encoder.finish(features[STRIDE * state.position :], state))
    return np.concatenate(pieces)


@torch.no_grad()
def check_calls(encoder: AudioEncoder, checkpoint: Checkpoint, bar: float) -> None:
    reference = TorchAudioEncoder(checkpoint.config.audio).eval()
    reference.load_state_dict(dict(checkpoint.component_state("audio")))
    for frames, steps in ((7, []), (23, [4]), (64, [4, 8]), (173, [4] * 9), (173, [16, 24]), (402, [8, 64, 4, 4])):
        features = energies(frames, MEL_BINS)
        expected = reference(torch.from_numpy(features)[None])[0][0].numpy()
        whole, found = encoder(features), in_calls(encoder, features, steps)
        assert found.shape == whole.shape == expected.shape
        np.testing.assert_allclose(whole, expected, rtol=0, atol=bar * np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=0, atol=bar * np.abs(expected).max())


def test_any_calls_equal_pytorch_in_one(graph: tuple[GraphSpec, Path], checkpoint: Checkpoint) -> None:
    check_calls(opened(*graph), checkpoint, FP32_BAR)


def test_any_calls_in_half_precision_come_close(checkpoint: Checkpoint, tmp_path: Path) -> None:
    check_calls(opened(exported(checkpoint, tmp_path, "fp16"), tmp_path), checkpoint, FP16_BAR)


def test_the_contract_says_how_it_streams(graph: tuple[GraphSpec, Path]) -> None:
    spec, _ = graph
    assert spec.stream == AudioStreamSpec(
        stride_frames=4, receptive_frames=7, step_frames=4, first_step_frames=4, visible_frames=8, first_tail_frames=0,
        padding_frames=2, prompt_tokens=0,
    )  # fmt: skip
    assert {tensor.dtype for tensor in (*spec.inputs, *spec.outputs)} == {"float32", "int64"}
    assert [tensor.role for tensor in spec.inputs if tensor.dtype == "int64"] == ["position"]


def test_full_attention_has_no_stream(tmp_path: Path) -> None:
    recipe = CheckpointRecipe(small_config(), seed=5)
    spec = exported(Checkpoint.open(write_checkpoint(tmp_path / "checkpoint", recipe)), tmp_path)
    assert spec.stream is None
    assert [tensor.role for tensor in (*spec.inputs, *spec.outputs)] == ["features", "embeddings"]
    encoder = opened(spec, tmp_path)
    with pytest.raises(BackendError, match="takes utterances whole"):
        _ = encoder.first_state


def test_a_call_of_no_whole_chunks_is_refused(graph: tuple[GraphSpec, Path]) -> None:
    encoder, features = opened(*graph), energies(60, MEL_BINS)
    for frames in (6 * STRIDE + OVERLAP, 4 * STRIDE + OVERLAP + 1, OVERLAP):
        with pytest.raises(ValueError, match="no whole step"):
            encoder.append(features[:frames], encoder.first_state)


def test_a_state_is_not_changed_by_what_follows(graph: tuple[GraphSpec, Path]) -> None:
    encoder, features = opened(*graph), energies(120, MEL_BINS)
    _, state = encoder.append(features[: 8 * STRIDE + OVERLAP], encoder.first_state)
    kept = {name: np.array(values) for name, values in state.tensors.items()}
    first = encoder.finish(features[8 * STRIDE :], state)
    encoder.append(features[8 * STRIDE : 16 * STRIDE + OVERLAP] + 1, state)
    for name, values in state.tensors.items():
        np.testing.assert_array_equal(values, kept[name])
    np.testing.assert_array_equal(encoder.finish(features[8 * STRIDE :], state), first)
