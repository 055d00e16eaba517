"""The two folders of a checkpoint that speak: a ``model.json`` and a ``final.pt`` in fp16 each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sottovoce.export.config import CodecConfig, SpeechDecoderConfig
from sottovoce.export.modules.codec import CodecDecoder


def write_codec(folder: Path, decoder: CodecDecoder) -> None:
    """``model.json`` and ``final.pt`` = ``{"generator", "quantizer"}``, without the encoder: speech is only decoded."""
    state = {part: half_precision(getattr(decoder, part).state_dict()) for part in ("generator", "quantizer")}
    _write_folder(folder, codec_description(decoder.config), state)


def write_speech_decoder(folder: Path, model: nn.Module, config: SpeechDecoderConfig) -> None:
    """``model.json`` and ``final.pt`` = ``{"model": …}``."""
    _write_folder(folder, speech_decoder_description(config), {"model": half_precision(model.state_dict())})


def half_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors as fp16, each with storage of its own; the rest as it is."""
    return {
        name: tensor.detach().clone().half() if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }


def codec_description(config: CodecConfig) -> dict[str, Any]:
    """The codec's ``model.json``."""
    return {
        "resblock": config.resblock_kind,
        "upsample_rates": list(config.upsample_rates),
        "upsample_kernel_sizes": list(config.upsample_kernel_sizes),
        "upsample_initial_channel": config.upsample_initial_channel,
        "resblock_kernel_sizes": list(config.resblock_kernel_sizes),
        "resblock_dilation_sizes": [list(dilations) for dilations in config.resblock_dilation_sizes],
        "n_codes": config.num_codes,
        "n_code_groups": config.code_groups,
        "residul_layer": config.residual_layers,
        "global_code_num": len(config.global_tokens),
        "global_tokens": list(config.global_tokens),
        "sampling_rate": config.sample_rate,
    }


def speech_decoder_description(config: SpeechDecoderConfig) -> list[Any]:
    """The speech decoder's ``model.json``: ``[idim, odim, arguments]``."""
    arguments = {
        "idim": config.hidden_size,
        "odim": config.num_codes,
        "encoder_input_dim": config.hidden_size,
        "encoder_output_dim": config.hidden_size,
        "encoder_upsample_rate": 1,
        "encoder_layer_config": "transformer",
        "kv_cache_prefix_finetune": 0,
        "transformer_attention_dim": config.hidden_size,
        "transformer_attention_heads": config.num_heads,
        "transformer_linear_units": config.intermediate_size,
        "transformer_num_blocks": config.num_code_layers,
        "transformer_dropout_rate": config.dropout,
    }
    return [config.hidden_size, config.num_codes, arguments]


def _write_folder(folder: Path, description: Any, state: Mapping[str, Any]) -> None:
    """Both files are written beside their places and renamed, the description last."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, text = folder / "final.pt", folder / "model.json"
    torch.save(dict(state), weights.with_suffix(".partial"))
    text.with_suffix(".partial").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    os.replace(weights.with_suffix(".partial"), weights)
    os.replace(text.with_suffix(".partial"), text)
