"""The vision encoder's sizes from InternViT's `config.json`, checked against its `preprocessor_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce.export.checkpoint.config_file import ConfigFile
from sottovoce.export.checkpoint.config_keys import CLIP_PREPROCESSOR, PRETRAINED
from sottovoce.export.config import VisionEncoderConfig

BICUBIC = 3
"""Pillow's number for the filter."""

UNUSED_HERE = ("use_flash_attn", "tie_word_embeddings", "eos_token_id")
"""Written into every configuration of this kind, and without a meaning for the values an encoder computes."""


@dataclass(frozen=True)
class VisionSettings:
    """What is read of InternViT's `config.json`; defaults are the released configuration class's."""

    model_type: str = "intern_vit_6b"
    hidden_size: int = 3200
    intermediate_size: int = 12800
    num_hidden_layers: int = 48
    num_attention_heads: int = 25
    patch_size: int = 14
    image_size: int = 224
    num_channels: int = 3
    qkv_bias: bool = False
    qk_normalization: bool = True
    norm_type: str = "rms_norm"
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path_rate: float = 0.0


@dataclass(frozen=True)
class PixelSettings:
    """What is read of `preprocessor_config.json`; defaults are CLIP's."""

    size: Any = 224
    crop_size: Any = 224
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    resample: int = BICUBIC
    rescale_factor: float = 1 / 255
    do_resize: bool = True
    do_center_crop: bool = True
    do_rescale: bool = True
    do_normalize: bool = True
    do_convert_rgb: bool | None = True
    do_pad: bool | None = None


def read_vision_config(file: ConfigFile, llm_hidden_size: int) -> VisionEncoderConfig:
    """Read and check InternViT's `config.json`.

    Raises:
        CheckpointError: another kind of encoder, unknown keys, or sizes that do not fit each other.
    """
    data = file.read_json()
    if isinstance(data, Mapping) and isinstance(data.get("vision_config"), Mapping):
        data = data["vision_config"]  # a whole InternVL's configuration: the release reads its vision part
    if isinstance(data, Mapping):
        file.expect("model_type", data.get("model_type", "intern_vit_6b"), "intern_vit_6b")
    settings = file.section(VisionSettings, data, accepted=(*PRETRAINED, *UNUSED_HERE))
    file.expect("norm_type", settings.norm_type, "layer_norm")
    file.expect("qk_normalization", settings.qk_normalization, False)
    file.expect("hidden_act", settings.hidden_act, "gelu")
    file.expect("num_channels", settings.num_channels, 3)
    _check_sizes(file, settings)
    return VisionEncoderConfig(
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_layers=settings.num_hidden_layers,
        num_heads=settings.num_attention_heads,
        patch_size=settings.patch_size,
        image_size=settings.image_size,
        llm_hidden_size=llm_hidden_size,
        layer_norm_eps=settings.layer_norm_eps,
        qkv_bias=settings.qkv_bias,
        num_channels=settings.num_channels,
        dropout=settings.dropout,
        attention_dropout=settings.attention_dropout,
        drop_path_rate=settings.drop_path_rate,
    )


def read_pixel_settings(file: ConfigFile, vision: VisionEncoderConfig) -> PixelSettings:
    """Read `preprocessor_config.json`: the mean and deviation of pixels; all else must be CLIP's way.

    Raises:
        CheckpointError: unknown keys, a step left out, or another size than the encoder's.
    """
    settings = file.section(PixelSettings, file.read_json(), accepted=CLIP_PREPROCESSOR)
    for key in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        file.expect(key, getattr(settings, key), True)
    file.expect("do_pad", settings.do_pad or False, False)
    file.expect("resample", settings.resample, BICUBIC, why="bicubic")
    if abs(settings.rescale_factor * 255 - 1) > 1e-6:
        raise file.error(f"rescale_factor is {settings.rescale_factor!r}, expected 1/255")
    for key, size in (("size", settings.size), ("crop_size", settings.crop_size)):
        sides = tuple(size.values()) if isinstance(size, Mapping) else (size,)
        for side in sides or (None,):
            file.agree(key, side, "the vision encoder's image_size", vision.image_size)
    for key, values in (("image_mean", settings.image_mean), ("image_std", settings.image_std)):
        for value in values:
            file.within(key, value, 1e-6 if key == "image_std" else -10, 10)
    return settings


def _check_sizes(file: ConfigFile, settings: VisionSettings) -> None:
    file.within("hidden_size", settings.hidden_size, 1, 16384)
    file.within("intermediate_size", settings.intermediate_size, 1, 65536)
    file.within("num_hidden_layers", settings.num_hidden_layers, 1, 256)
    file.within("num_attention_heads", settings.num_attention_heads, 1, 256)
    file.within("patch_size", settings.patch_size, 1, 128)
    file.within("image_size", settings.image_size, 2 * settings.patch_size, 4096)
    file.within("layer_norm_eps", settings.layer_norm_eps, 0, 1)
    if settings.hidden_size % settings.num_attention_heads:
        raise file.error(
            f"hidden_size is {settings.hidden_size}, expected a multiple of num_attention_heads, "
            f"{settings.num_attention_heads}"
        )
    grid = settings.image_size // settings.patch_size
    if grid % 2:
        raise file.error(
            f"image_size is {settings.image_size}, {grid} patches of {settings.patch_size} a side; expected an even "
            f"number (pixel shuffle joins two by two)"
        )
