"""The speech decoder's and the codec's sizes from their two `model.json` files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, cast

from sottovoce.export.checkpoint.config_file import ConfigFile
from sottovoce.export.checkpoint.config_keys import CODEC_TRAINING, SPEECH_DECODER_TRAINING
from sottovoce.export.config import CodecConfig, SpeechDecoderConfig

ARGUMENTS = "[2]"
"""Where the arguments are in the decoder's `[idim, odim, args]`."""


@dataclass(frozen=True)
class DecoderSettings:
    """What is read of the decoder's arguments."""

    idim: int
    odim: int
    transformer_attention_dim: int
    transformer_attention_heads: int
    transformer_linear_units: int
    transformer_num_blocks: int
    encoder_output_dim: int
    transformer_dropout_rate: float = 0.1
    encoder_upsample_rate: int = 1
    kv_cache_prefix_finetune: int = 0


@dataclass(frozen=True)
class CodecSettings:
    """What is read of the codec's `model.json`."""

    resblock: str
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    upsample_initial_channel: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    n_codes: int
    global_code_num: int
    global_tokens: tuple[int, ...]
    n_code_groups: int = 1
    residul_layer: int = 1
    sampling_rate: int = 24000


def read_speech_decoder_config(file: ConfigFile, llm_hidden_size: int) -> SpeechDecoderConfig:
    """Read and check the decoder's `model.json`: `[idim, odim, arguments]`.

    Raises:
        CheckpointError: not that triple, unknown keys, a variant that is not built here, or sizes that do not fit.
    """
    data = file.read_json()
    if not isinstance(data, list) or len(data) != 3:
        raise file.error("is not the list [idim, odim, arguments]", fix="take model.json from the same release")
    settings = file.section(DecoderSettings, data[2], path=ARGUMENTS, accepted=SPEECH_DECODER_TRAINING)
    file.agree("[0], idim,", data[0], f"{ARGUMENTS}.idim", settings.idim)
    file.agree("[1], odim,", data[1], f"{ARGUMENTS}.odim", settings.odim)
    file.expect(f"{ARGUMENTS}.encoder_upsample_rate", settings.encoder_upsample_rate, 1)
    file.expect(f"{ARGUMENTS}.kv_cache_prefix_finetune", settings.kv_cache_prefix_finetune, 0)
    width, heads = settings.transformer_attention_dim, settings.transformer_attention_heads
    file.within(f"{ARGUMENTS}.transformer_attention_dim", width, 2, 16384)
    file.within(f"{ARGUMENTS}.transformer_attention_heads", heads, 1, 256)
    file.within(f"{ARGUMENTS}.transformer_linear_units", settings.transformer_linear_units, 1, 65536)
    file.within(f"{ARGUMENTS}.transformer_num_blocks", settings.transformer_num_blocks, 1, 256)
    file.within(f"{ARGUMENTS}.odim", settings.odim, 1, 1 << 20)
    file.agree(f"{ARGUMENTS}.idim", settings.idim, "transformer_attention_dim", width)
    file.agree(f"{ARGUMENTS}.encoder_output_dim", settings.encoder_output_dim, "transformer_attention_dim", width)
    if width % (2 * heads):
        raise file.error(
            f"transformer_attention_dim is {width}, expected {heads} heads (transformer_attention_heads) of even width"
        )
    if llm_hidden_size % width:
        raise file.error(
            f"idim is {width}, expected a divisor of hidden_size in config.json, {llm_hidden_size}: the language "
            f"model's embeddings are cut into frames of that width"
        )
    return SpeechDecoderConfig(
        hidden_size=width,
        num_heads=heads,
        intermediate_size=settings.transformer_linear_units,
        num_code_layers=settings.transformer_num_blocks,
        num_codes=settings.odim,
        dropout=settings.transformer_dropout_rate,
    )


def read_codec_config(file: ConfigFile, speech: SpeechDecoderConfig) -> CodecConfig:
    """Read and check the codec's `model.json`.

    Raises:
        CheckpointError: unknown keys, a variant that is not built here, or sizes that do not fit each other.
    """
    settings = file.section(CodecSettings, file.read_json(), accepted=CODEC_TRAINING)
    file.expect("resblock", settings.resblock, "1", "2")
    file.expect("residul_layer", settings.residul_layer, 1, 2, 4)
    _check_codebooks(file, settings, speech)
    _check_generator(file, settings)
    return CodecConfig(
        num_codes=settings.n_codes,
        upsample_rates=settings.upsample_rates,
        upsample_kernel_sizes=settings.upsample_kernel_sizes,
        upsample_initial_channel=settings.upsample_initial_channel,
        resblock_kind=cast(Literal["1", "2"], settings.resblock),
        resblock_kernel_sizes=settings.resblock_kernel_sizes,
        resblock_dilation_sizes=settings.resblock_dilation_sizes,
        global_tokens=settings.global_tokens[: settings.global_code_num],
        code_groups=settings.n_code_groups,
        residual_layers=settings.residul_layer,
        sample_rate=settings.sampling_rate,
    )


def dilations_in_use(codec: CodecConfig, names: Iterable[str]) -> CodecConfig:
    """Leave out the dilations that the stored residual blocks were built without.

    HiFi-GAN's own blocks read the first three (type 1) or two (type 2) dilations of their list, whatever its length;
    others build one convolution for each. The weights tell which it was.
    """
    stack = "convs1" if codec.resblock_kind == "1" else "convs"
    built = {name.split(".")[4] for name in names if name.startswith(f"generator.resblocks.0.{stack}.")}
    least = 3 if codec.resblock_kind == "1" else 2
    if len(built) != least or all(len(dilations) <= least for dilations in codec.resblock_dilation_sizes):
        return codec
    return replace(codec, resblock_dilation_sizes=tuple(sizes[:least] for sizes in codec.resblock_dilation_sizes))


def _check_codebooks(file: ConfigFile, settings: CodecSettings, speech: SpeechDecoderConfig) -> None:
    file.within("n_codes", settings.n_codes, 1, 1 << 20)
    file.within("sampling_rate", settings.sampling_rate, 4000, 192000)
    if speech.num_codes > settings.n_codes:
        raise file.error(
            f"n_codes is {settings.n_codes}, expected at least {speech.num_codes}, the speech decoder's odim",
            fix="take the decoder and the codec from the same release",
        )
    for key, value, width in (
        ("n_code_groups", settings.n_code_groups, CodecConfig.code_width),
        ("global_code_num", settings.global_code_num, CodecConfig.global_width),
    ):
        file.within(key, value, 1, width)
        if width % value:
            raise file.error(f"{key} is {value}, expected a divisor of {width}")
    if len(settings.global_tokens) < settings.global_code_num:
        raise file.error(
            f"global_tokens has {len(settings.global_tokens)} entries, expected global_code_num, "
            f"{settings.global_code_num}"
        )
    for token in settings.global_tokens[: settings.global_code_num]:
        file.within("global_tokens", token, 0, settings.n_codes - 1)


def _check_generator(file: ConfigFile, settings: CodecSettings) -> None:
    rates, kernels = settings.upsample_rates, settings.upsample_kernel_sizes
    file.within("the number of upsample_rates", len(rates), 1, 16)
    file.agree("the number of upsample_kernel_sizes", len(kernels), "upsample_rates", len(rates))
    for rate, kernel in zip(rates, kernels, strict=True):
        file.within("upsample_rates", rate, 1, 64)
        file.within("upsample_kernel_sizes", kernel, rate, 256)
        if (kernel - rate) % 2:
            raise file.error(f"upsample_kernel_sizes has {kernel} for rate {rate}, expected an even difference")
    channels = settings.upsample_initial_channel
    file.within("upsample_initial_channel", channels, 1, 16384)
    if channels % (1 << len(rates)):
        raise file.error(f"upsample_initial_channel is {channels}, expected to be halved {len(rates)} times")
    sizes, dilations = settings.resblock_kernel_sizes, settings.resblock_dilation_sizes
    file.within("the number of resblock_kernel_sizes", len(sizes), 1, 16)
    file.agree("the number of resblock_dilation_sizes", len(dilations), "resblock_kernel_sizes", len(sizes))
    for size, steps in zip(sizes, dilations, strict=True):
        file.within("resblock_kernel_sizes", size, 1, 255)
        file.expect("resblock_kernel_sizes % 2", size % 2, 1, why="blocks keep the length")
        file.within("the number of resblock_dilation_sizes of a block", len(steps), 1, 16)
        for step in steps:
            file.within("resblock_dilation_sizes", step, 1, 256)
