"""The configuration files of the miniature's checkpoint, as the layout spells them."""

from __future__ import annotations

from typing import Any

from sottovoce.demos.miniature.lessons import IMAGE_MEAN, IMAGE_STD
from sottovoce.demos.miniature.prompts import SYSTEM
from sottovoce.export.config import AudioEncoderConfig, LanguageModelConfig, VisionEncoderConfig

VISION_FOLDER = "InternViT-miniature-112px"
AUDIO_FOLDER = "audio-encoder-miniature"
FRAME_STATISTICS = 1_000_000
"""So many frames the CMVN file says it has counted: sums are written from the means in the weights."""


def main_config(
    llm: LanguageModelConfig, vision: VisionEncoderConfig, padding: int, end_of_turn: int
) -> dict[str, Any]:
    """`config.json`."""
    return {
        "architectures": ["VITAQwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "audio_prompt_finetune": False,
        "audio_prompt_num": None,
        "bos_token_id": padding,
        "eos_token_id": end_of_turn,
        "freeze_audio_encoder": True,
        "hidden_act": "silu",
        "hidden_size": llm.hidden_size,
        "image_aspect_ratio": "square",
        "initializer_range": 0.02,
        "intermediate_size": llm.intermediate_size,
        "max_position_embeddings": llm.max_positions,
        "max_window_layers": llm.num_layers,
        "mm_audio_encoder": AUDIO_FOLDER,
        "mm_hidden_size": vision.projector_input_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": VISION_FOLDER,
        "model_type": "vita-Qwen2",
        "num_attention_heads": llm.num_heads,
        "num_hidden_layers": llm.num_layers,
        "num_key_value_heads": llm.num_kv_heads,
        "rms_norm_eps": llm.rms_norm_eps,
        "rope_theta": llm.rope_theta,
        "tie_word_embeddings": llm.tie_word_embeddings,
        "torch_dtype": "float16",
        "use_cache": True,
        "use_mm_proj": True,
        "use_sliding_window": False,
        "vocab_size": llm.vocab_size,
    }


def generation_config(padding: int, end_of_turn: int) -> dict[str, Any]:
    """`generation_config.json`: a reply ends with its turn."""
    return {"bos_token_id": padding, "eos_token_id": [end_of_turn, padding], "pad_token_id": padding}


def prompt_config() -> dict[str, Any]:
    """`sottovoce.json`: what the layout has no place for: the one system text that is known, one tile a picture."""
    return {"system_prompts": {"plain": SYSTEM, "image": SYSTEM, "video": SYSTEM}, "max_tiles": 1}


def vision_config(vision: VisionEncoderConfig) -> dict[str, Any]:
    """InternViT's `config.json`."""
    return {
        "architectures": ["InternVisionModel"],
        "attention_dropout": 0.0,
        "drop_path_rate": 0.0,
        "dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_size": vision.hidden_size,
        "image_size": vision.image_size,
        "intermediate_size": vision.intermediate_size,
        "layer_norm_eps": vision.layer_norm_eps,
        "model_type": "intern_vit_6b",
        "norm_type": "layer_norm",
        "num_attention_heads": vision.num_heads,
        "num_channels": vision.num_channels,
        "num_hidden_layers": vision.num_layers,
        "patch_size": vision.patch_size,
        "qk_normalization": False,
        "qkv_bias": vision.qkv_bias,
        "torch_dtype": "float16",
    }


def pixel_config(vision: VisionEncoderConfig) -> dict[str, Any]:
    """`preprocessor_config.json`: CLIP's way."""
    return {
        "crop_size": vision.image_size,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "resample": 3,
        "size": vision.image_size,
    }


def audio_config(audio: AudioEncoderConfig) -> dict[str, Any]:
    """The audio encoder's `train.yaml`."""
    transformer = {
        "attention-dim": audio.attention_size,
        "attention-dropout-rate": audio.attention_dropout,
        "attention-heads": audio.num_heads,
        "chunk_size": audio.chunk_size,
        "concat-after": False,
        "dropout-rate": audio.dropout,
        "dynamic-chunks": False,
        "input-dim": audio.subsampling_size,
        "input-layer": "linear",
        "left_chunks": audio.left_chunks,
        "linear-units": audio.linear_units,
        "normalize-before": True,
        "num-blocks": audio.num_blocks,
        "output-dim": audio.attention_size,
        "pos-enc-class": "rel-enc",
        "positional-dropout-rate": audio.positional_dropout,
        "positionwise-layer-type": "linear",
    }
    subsampling = {
        "dropout-rate": audio.subsampling_dropout,
        "input-dim": audio.mel_bins,
        "output-dim": audio.subsampling_size,
        "rate": 4,
    }
    adapter = audio.adapter
    return {
        "dataset_conf": {
            "fbank_conf": {"dither": 0.0, "frame_length": 25, "frame_shift": 10, "num_mel_bins": audio.mel_bins},
            "resample_conf": {"resample_rate": 16000},
        },
        "encoder_conf": {
            "overview_conf": {
                "encoder-input-dim": audio.mel_bins,
                "encoder-layer-config": "subsampling-transformer",
                "encoder-output-dim": audio.attention_size,
            },
            "para_conf": {
                "subsampling": {f"subsampling-{key}": value for key, value in subsampling.items()},
                "transformer": {f"transformer-{key}": value for key, value in transformer.items()},
            },
        },
        "input_dim": audio.mel_bins,
        "is_json_cmvn": True,
        "model_conf": {
            "activation_func": adapter.activation,
            "add_audio_bos_eos": False,
            "adpter_type": adapter.kind,
            "enc_out_dim": adapter.encoder_size,
            "kernel_size": adapter.kernel_size,
            "llm_embed_dim": adapter.llm_hidden_size,
            "norm": adapter.norm,
        },
    }


def cmvn_statistics(mean: list[float], istd: list[float]) -> dict[str, Any]:
    """`global_cmvn` as JSON, from the mean and the inverse deviation in the weights."""
    squares = [(1.0 / scale**2 + value**2) * FRAME_STATISTICS for value, scale in zip(mean, istd, strict=True)]
    return {
        "mean_stat": [value * FRAME_STATISTICS for value in mean],
        "var_stat": squares,
        "frame_num": FRAME_STATISTICS,
    }
