"""Small random audio encoders as graphs, in a model whose tables and tokenizer are the tiny bundle's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sottovoce.export.config import AdapterConfig, AudioEncoderConfig
from sottovoce.export.graphs.audio_encoder import export_audio_encoder, subsampling_steps
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.modules.audio_encoder import AudioEncoder
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.features.audio_file import Waveform
from sottovoce.runtime.features.fbank import mel_filterbank
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.model import Model

MEL_BINS, WIDTH = 80, 128
"""Of the tiny bundle."""
MAX_SECONDS = 6.0
SUBSAMPLING = AdapterConfig("subsampling", 32, WIDTH, kernel_size=5, norm="layer", activation="gelu")
BATCH_NORM = AdapterConfig("subsampling", 32, WIDTH, kernel_size=4, norm="batch", activation="relu")
WIDENS_FIRST = AdapterConfig("subsampling", 16, WIDTH, kernel_size=3)
CNN = AdapterConfig("cnn", 32, WIDTH, kernel_size=5)
LINEAR = AdapterConfig("linear", 32, WIDTH)


def encoder_config(adapter: AdapterConfig, chunk: int, left: int, prompts: int = 0) -> AudioEncoderConfig:
    size = adapter.encoder_size
    return AudioEncoderConfig(
        mel_bins=MEL_BINS, subsampling_size=24, attention_size=size, num_heads=4, linear_units=56, num_blocks=2,
        adapter=adapter, chunk_size=chunk, left_chunks=left, prompt_tokens=prompts,
    )  # fmt: skip


CHUNKED = {
    "chunks of 1": encoder_config(SUBSAMPLING, 1, 6),
    "chunks of 4, prompts": encoder_config(BATCH_NORM, 4, 2, prompts=2),
    "chunks of 3, all to the left": encoder_config(WIDENS_FIRST, 3, -1),
    "chunks of 4, cnn": encoder_config(CNN, 4, 1),
    "chunks of 1, linear, prompts": encoder_config(LINEAR, 1, 3, prompts=3),
    "chunks of 2, nothing to the left": encoder_config(CNN, 2, 0),
}
WHOLE = encoder_config(SUBSAMPLING, -1, -1, prompts=1)


def random_encoder(config: AudioEncoderConfig) -> AudioEncoder:
    """Every tensor differs from its initial value, statistics too; the energies of sound come out near 1."""
    torch.manual_seed(7)
    encoder = AudioEncoder(config).eval()
    for name, tensor in encoder.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif name.endswith("cmvn.mean"):
            tensor.fill_(10.0)
        elif name.endswith("istd"):
            tensor.fill_(0.3)
        elif tensor.is_floating_point():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return encoder


def encoder_model(tiny_bundle: Path, config: AudioEncoderConfig, folder: Path) -> Model:
    """The tiny model with this encoder, and a limit of `MAX_SECONDS` a turn."""
    (folder / "graphs").mkdir(parents=True)
    spec = export_audio_encoder(random_encoder(config), config, StageFiles("audio_encoder", folder, "fp32"))
    bundle = Bundle.open(tiny_bundle, verify_hashes=False)
    manifest = bundle.manifest
    front_end = replace(
        manifest.audio,
        max_seconds=MAX_SECONDS,
        subsampling=subsampling_steps(config),
        prompt_tokens=config.prompt_tokens,
    )
    changed = replace(manifest, audio=front_end, graphs={**manifest.graphs, "audio_encoder": spec})

    def open_stage(stage: StageName) -> Session:
        assert stage == "audio_encoder"
        return OnnxRuntimeSession(stage, spec, folder / spec.file, threads=1)

    return Model(Bundle(bundle.path, changed), open_stage=open_stage)


def speech(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """Noise whose loudness rises and falls, with silence in it."""
    time = np.arange(int(seconds * rate)) / rate
    loudness = 0.1 * np.maximum(np.sin(2 * np.pi * 1.7 * time), 0)
    return (loudness * np.random.default_rng(seed).normal(size=len(time))).astype(np.float32)


def unstreamed(model: Model, samples: np.ndarray, rate: int = 16000) -> np.ndarray:
    """The embeddings of the whole recording in one call."""
    return model.audio_encoder(mel_filterbank(Waveform(samples, rate), model.manifest.audio))
