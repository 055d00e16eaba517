"""The tables of names and shapes against the PyTorch stages: two descriptions of one layout, written apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint_factory import CheckpointRecipe, small_config, static_chunks_config, write_checkpoint

from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.config import AudioEncoderConfig, VitaConfig
from sottovoce.export.modules.audio_encoder import AudioEncoder
from sottovoce.export.modules.codec import CodecDecoder
from sottovoce.export.modules.language_model import LanguageModel
from sottovoce.export.modules.speech_decoder import SpeechDecoder
from sottovoce.export.modules.vision_encoder import VisionEncoder

small, static = small_config(), static_chunks_config()


def with_audio(**changes: object) -> VitaConfig:
    """The small configuration with another adapter or with prompts."""
    audio: AudioEncoderConfig = small.audio
    prompts = changes.pop("prompt_tokens", 0)
    adapter = replace(audio.adapter, **changes)  # type: ignore[arg-type]
    size = adapter.encoder_size
    return replace(small, audio=replace(audio, adapter=adapter, attention_size=size, prompt_tokens=prompts))  # type: ignore[arg-type]


CONFIGS = {
    "small": small,
    "static chunks": static,
    "cnn": with_audio(kind="cnn"),
    "linear": with_audio(kind="linear"),
    "batch norm": with_audio(norm="batch"),
    "narrow encoder": with_audio(encoder_size=18),
    "prompts": with_audio(prompt_tokens=5),
    "tied": replace(small, language_model=replace(small.language_model, tie_word_embeddings=True)),
    "no qkv bias": replace(small, vision=replace(small.vision, qkv_bias=False)),
    "codebooks": replace(small, codec=replace(small.codec, code_groups=2, residual_layers=4)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_every_stage_loads_its_component_whole(config: VitaConfig, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(write_checkpoint(tmp_path, CheckpointRecipe(config)))
    state, config = checkpoint.component_state, checkpoint.config
    LanguageModel(config.language_model).load_state_dict(state("language_model"))
    VisionEncoder(config.vision).load_state_dict(state("vision"))
    AudioEncoder(config.audio).load_state_dict(state("audio"))
    SpeechDecoder(config.speech_decoder).load_state_dict(state("speech_decoder"))
    CodecDecoder(config.codec).load_released_state(state("codec"))
