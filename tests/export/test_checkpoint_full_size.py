"""The full-size release, as far as its configuration goes: keys as published, parameter counts as measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from sottovoce.export.checkpoint.configuration import read_config
from sottovoce.export.checkpoint.names import expected_tensors
from sottovoce.export.config import VitaConfig

AUDIO_FOLDER = "audio-encoder-Qwen2-7B-1107-weight-base-11wh-tunning"

CONFIG = {
    "_name_or_path": "VITA-MLLM/VITA-1.5", "architectures": ["VITAQwen2ForCausalLM"], "attention_dropout": 0.0,
    "audio_prompt_finetune": False, "audio_prompt_num": None, "audio_state_predictor_tuning": False,
    "bos_token_id": 151643, "eos_token_id": 151645, "freeze_audio_encoder": True,
    "freeze_audio_encoder_adapter": False, "freeze_mm_mlp_adapter": False, "hidden_act": "silu", "hidden_size": 3584,
    "image_aspect_ratio": "square", "initializer_range": 0.02, "intermediate_size": 18944,
    "max_position_embeddings": 32768, "max_window_layers": 28, "mm_audio_encoder": AUDIO_FOLDER,
    "mm_hidden_size": 4096, "mm_projector_lr": None, "mm_projector_type": "mlp2x_gelu",
    "mm_vision_tower": "OpenGVLab/InternViT-300M-448px", "model_type": "vita-Qwen2", "num_attention_heads": 28,
    "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "sliding_window": None, "tie_word_embeddings": False, "tokenizer_model_max_length": 6200,
    "tokenizer_padding_side": "right", "torch_dtype": "float16", "transformers_version": "4.44.2",
    "tune_audio_mlp_adapter": False, "tune_mm_mlp_adapter": False, "unfreeze_vision_tower": False, "use_cache": False,
    "use_mm_proj": True, "use_s2": False, "use_sliding_window": False, "vocab_size": 152064,
}  # fmt: skip

VISION = {
    "architectures": ["InternVisionModel"],
    "auto_map": {"AutoConfig": "configuration_intern_vit.InternVisionConfig"}, "attention_dropout": 0.0,
    "drop_path_rate": 0.1, "dropout": 0.0, "hidden_act": "gelu", "hidden_size": 1024, "image_size": 448,
    "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 4096, "layer_norm_eps": 1e-06,
    "model_type": "intern_vit_6b", "norm_type": "layer_norm", "num_attention_heads": 16, "num_channels": 3,
    "num_hidden_layers": 24, "patch_size": 14, "qk_normalization": False, "qkv_bias": True, "torch_dtype": "bfloat16",
    "transformers_version": "4.37.2", "use_flash_attn": True,
}  # fmt: skip


def change_sizes(tiny: Path, folder: Path) -> None:
    """The tiny checkpoint's configuration files with the full sizes in them."""
    train = yaml.safe_load((tiny / AUDIO_FOLDER / "train.yaml").read_text())
    transformer = train["encoder_conf"]["para_conf"]["transformer"]
    for key in ("attention-dim", "input-dim", "output-dim"):
        transformer[f"transformer-{key}"] = 1024
    transformer |= {"transformer-linear-units": 4096, "transformer-num-blocks": 24, "transformer-attention-heads": 16}
    train["encoder_conf"]["para_conf"]["subsampling"]["subsampling-output-dim"] = 1024
    train["encoder_conf"]["overview_conf"]["encoder-output-dim"] = 1024
    train["model_conf"] |= {"enc_out_dim": 1024, "llm_embed_dim": 3584}
    decoder = json.loads((tiny / "vita_tts_ckpt" / "decoder" / "model.json").read_text())
    width = {"idim": 896, "odim": 1024, "encoder_input_dim": 896, "encoder_output_dim": 896}
    decoder = [896, 1024, decoder[2] | width | {"transformer_attention_dim": 896, "transformer_attention_heads": 14}]
    codec = json.loads((tiny / "vita_tts_ckpt" / "codec" / "model.json").read_text()) | {"n_codes": 1024}
    pixels = json.loads((tiny / "InternViT-300M-448px" / "preprocessor_config.json").read_text())
    files = {
        "config.json": CONFIG,
        "InternViT-300M-448px/config.json": VISION,
        "InternViT-300M-448px/preprocessor_config.json": pixels | {"crop_size": 448, "size": 448},
        "vita_tts_ckpt/decoder/model.json": decoder,
        "vita_tts_ckpt/codec/model.json": codec,
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    (folder / AUDIO_FOLDER).mkdir()
    (folder / AUDIO_FOLDER / "train.yaml").write_text(yaml.safe_dump(train))


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path) -> VitaConfig:
    change_sizes(tiny_checkpoint, tmp_path)
    return read_config(tmp_path)


def parameters(config: VitaConfig, component: str, below: str = "") -> int:
    shapes = expected_tensors(config, component)  # type: ignore[arg-type]
    return sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(below) and "cmvn" not in name)


def test_full_size_configuration(config: VitaConfig) -> None:
    assert config.language_model.head_size == 128
    assert config.vision.tokens_per_tile == 256
    assert config.codec.samples_per_code == 600
    assert config.stop_ids == (151645,)
    assert not config.audio.adapter.widens_first


def test_full_size_parameter_counts(config: VitaConfig) -> None:
    """Against Qwen2.5-7B's model card, and what the release prints of its two encoders (in units of 1024²)."""
    assert parameters(config, "language_model") == 7_615_616_512
    assert parameters(config, "vision", "vision_tower.") / 1024**2 == pytest.approx(289.9, abs=0.05)
    assert parameters(config, "audio", "encoder.") / 1024**2 == pytest.approx(341.4, abs=0.05)
