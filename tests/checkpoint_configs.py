"""Configurations to write checkpoints of, and the layout's own files for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sottovoce.export.config import (
    AdapterConfig,
    AudioEncoderConfig,
    CodecConfig,
    LanguageModelConfig,
    SpeechDecoderConfig,
    VisionEncoderConfig,
    VitaConfig,
)

STOP_IDS = (555, 553)
CLIP_MEAN, CLIP_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def small_config() -> VitaConfig:
    """The least of everything: LayerNorm and GELU in the adapter, full attention, residual blocks of type 1."""
    llm = LanguageModelConfig(
        hidden_size=96, intermediate_size=160, num_layers=2, num_heads=6, num_kv_heads=2, head_size=16,
        vocab_size=640, max_positions=4096,
    )  # fmt: skip
    vision = VisionEncoderConfig(
        hidden_size=48, intermediate_size=96, num_layers=2, num_heads=3, patch_size=14, image_size=112,
        llm_hidden_size=96,
    )  # fmt: skip
    adapter = AdapterConfig("subsampling", 48, 96, kernel_size=5, norm="layer", activation="gelu")
    audio = AudioEncoderConfig(
        mel_bins=80, subsampling_size=48, attention_size=48, num_heads=3, linear_units=112, num_blocks=2,
        adapter=adapter,
    )  # fmt: skip
    speech = SpeechDecoderConfig(
        hidden_size=32, num_heads=4, intermediate_size=80, num_code_layers=2, num_codes=48, dropout=0.1
    )
    codec = CodecConfig(
        num_codes=48, upsample_rates=(5, 4, 3), upsample_kernel_sizes=(11, 8, 5), upsample_initial_channel=256,
        resblock_kind="1", resblock_kernel_sizes=(3, 5), resblock_dilation_sizes=((1, 3), (1, 3)),
        global_tokens=(3, 1, 4, 1),
    )  # fmt: skip
    return VitaConfig(
        language_model=llm, vision=vision, audio=audio, speech_decoder=speech, codec=codec, stop_ids=STOP_IDS,
        image_mean=CLIP_MEAN, image_std=CLIP_STD, pad_to_square=False, sample_rate=16000, frame_length_ms=25.0,
        frame_shift_ms=10.0,
    )  # fmt: skip


def static_chunks_config() -> VitaConfig:
    """Everything else than in the tiny checkpoint: static chunks, BatchNorm, ReLU, residual blocks of type 2, sizes."""
    small = small_config()
    adapter = AdapterConfig("subsampling", 40, 160, kernel_size=3, norm="batch", activation="relu")
    audio = AudioEncoderConfig(
        mel_bins=64, subsampling_size=32, attention_size=40, num_heads=5, linear_units=96, num_blocks=3,
        adapter=adapter, chunk_size=4, left_chunks=2,
    )  # fmt: skip
    llm = replace(
        small.language_model, hidden_size=160, num_layers=3, num_heads=5, num_kv_heads=1, head_size=32,
        vocab_size=704, rope_theta=5e5, rms_norm_eps=1e-5,
    )  # fmt: skip
    vision = replace(small.vision, llm_hidden_size=160, num_layers=3, image_size=224, num_heads=4)
    codec = CodecConfig(
        num_codes=80, upsample_rates=(6, 5, 2, 2), upsample_kernel_sizes=(12, 11, 4, 4), upsample_initial_channel=128,
        resblock_kind="2", resblock_kernel_sizes=(3, 5, 7), resblock_dilation_sizes=((1, 3), (1, 2), (2, 6)),
        global_tokens=(7, 70),
    )  # fmt: skip
    speech = SpeechDecoderConfig(
        hidden_size=40, num_heads=5, intermediate_size=72, num_code_layers=3, num_codes=80, dropout=0.1
    )
    return replace(small, audio=audio, language_model=llm, vision=vision, codec=codec, speech_decoder=speech)


def train_yaml(config: VitaConfig) -> dict[str, Any]:
    """The audio encoder's `train.yaml`."""
    audio, adapter = config.audio, config.audio.adapter
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
    return {
        "dataset_conf": {
            "fbank_conf": {
                "dither": 0.0,
                "frame_length": config.frame_length_ms,
                "frame_shift": config.frame_shift_ms,
                "num_mel_bins": audio.mel_bins,
            },
            "resample_conf": {"resample_rate": config.sample_rate},
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
            "freeze_adpter": True,
            "freeze_encoder": True,
            "kernel_size": adapter.kernel_size,
            "llm_embed_dim": adapter.llm_hidden_size,
            "llm_path": "Qwen2.5-7B-Instruct",
            "norm": adapter.norm,
            "task_num": 10,
        },
    }


def codec_json(codec: CodecConfig) -> dict[str, Any]:
    """The codec's `model.json`."""
    return {
        "resblock": codec.resblock_kind,
        "upsample_rates": list(codec.upsample_rates),
        "upsample_kernel_sizes": list(codec.upsample_kernel_sizes),
        "upsample_initial_channel": codec.upsample_initial_channel,
        "resblock_kernel_sizes": list(codec.resblock_kernel_sizes),
        "resblock_dilation_sizes": [list(dilations) for dilations in codec.resblock_dilation_sizes],
        "sampling_rate": codec.sample_rate,
        "n_code_groups": codec.code_groups,
        "residul_layer": codec.residual_layers,
        "n_codes": codec.num_codes,
        "codebook_loss_lambda": 1.0,
        "commitment_loss_lambda": 0.25,
        "global_code_num": len(codec.global_tokens),
        "global_feature_conv": [128, 64, 128, 3, 1],
        "global_tokens": list(codec.global_tokens),
        "learning_rate": 0.0005,
        "segment_size": 24000,
    }
