"""The tensors a VITA-1.5 checkpoint must hold, by name and shape, as its configuration implies them.

Written from the published layout and kept apart from the PyTorch stages, so that a mistake in either shows: the reader
checks files against these tables, and the stages load with every name required.

| component | names | sources |
| --- | --- | --- |
| language_model | `model.layers.*`, `model.embed_tokens`, `model.norm`, `lm_head` | Qwen2 technical report, 2024 |
| vision | `vision_tower.vision_tower.*`, `mm_projector.*` | InternVL, Chen et al. 2024 |
| audio | `encoder.*`, `adpter.*` (so spelled), `prompt_embeddings.*` | Freeze-Omni, Wang et al. 2024 |
| speech_decoder | `embedding`, `layers_pre_nn.*`, `layers.*`, `norm`, `out_fnn` | VITA-1.5, Fu et al. 2025 |
| codec | `generator.*`, `quantizer.*` | HiFi-GAN, Kong et al. 2020; TiCodec, Ren et al. 2023 |
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import Literal

from sottovoce.export.config import (
    AdapterConfig,
    AudioEncoderConfig,
    CodecConfig,
    LanguageModelConfig,
    SpeechDecoderConfig,
    VisionEncoderConfig,
    VitaConfig,
)

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Component = Literal["language_model", "vision", "audio", "speech_decoder", "codec"]

COMPONENTS: tuple[Component, ...] = ("language_model", "vision", "audio", "speech_decoder", "codec")

MAIN_PREFIXES: dict[Component, str] = {"language_model": "", "vision": "model.", "audio": "model.audio_encoder."}
"""What stands before a component's names in the main safetensors files."""

NOT_COMPUTED_WITH: tuple[str, ...] = (
    "*.rotary_emb.inv_freq",  # older transformers stored the rotary frequencies that rope_theta gives
    "rotary_emb.inv_freq",
    "rotary_emb_pre_nn.inv_freq",
    "*.num_batches_tracked",  # BatchNorm's step counter
    "*.position_ids",
    "predictor_head.*",  # a state classifier that the release trains beside the reply and does not reply with
    "model.predictor_head.*",
)
"""Tensors that some checkpoints hold and no forward pass reads: neither expected nor refused."""


def is_computed_with(name: str) -> bool:
    """Whether a forward pass reads the tensor of this name."""
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in NOT_COMPUTED_WITH)


def expected_tensors(config: VitaConfig, component: Component) -> Shapes:
    """Every tensor of one component, name → shape, names without the prefix they have in the main files."""
    tables: dict[Component, Callable[[], Shapes]] = {
        "language_model": lambda: language_model_tensors(config.language_model),
        "vision": lambda: vision_tensors(config.vision),
        "audio": lambda: audio_tensors(config.audio),
        "speech_decoder": lambda: speech_decoder_tensors(config.speech_decoder),
        "codec": lambda: codec_tensors(config.codec),
    }
    return tables[component]()


def language_model_tensors(config: LanguageModelConfig) -> Shapes:
    """Qwen2: q/k/v with biases, o without; no `lm_head` where it is tied to the embeddings."""
    width, mlp = config.hidden_size, config.intermediate_size
    query, key = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
    shapes: Shapes = {"model.embed_tokens.weight": (config.vocab_size, width)}
    for index in range(config.num_layers):
        layer = f"model.layers.{index}."
        shapes[layer + "input_layernorm.weight"] = (width,)
        for name, size in (("q_proj", query), ("k_proj", key), ("v_proj", key)):
            shapes |= _linear(f"{layer}self_attn.{name}", size, width)
        shapes[layer + "self_attn.o_proj.weight"] = (width, query)
        shapes[layer + "post_attention_layernorm.weight"] = (width,)
        shapes |= _swiglu(layer + "mlp", width, mlp)
    shapes["model.norm.weight"] = (width,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, width)
    return shapes


def vision_tensors(config: VisionEncoderConfig) -> Shapes:
    """InternViT with its class token, learned positions and layer scales, and the two linears of the projector."""
    width, tower = config.hidden_size, "vision_tower.vision_tower."
    patches = (config.image_size // config.patch_size) ** 2
    embeddings = tower + "embeddings."
    shapes: Shapes = {
        embeddings + "class_embedding": (1, 1, width),
        embeddings + "patch_embedding.weight": (width, config.num_channels, config.patch_size, config.patch_size),
        embeddings + "patch_embedding.bias": (width,),
        embeddings + "position_embedding": (1, patches + 1, width),
    }
    for index in range(config.num_layers):
        layer = f"{tower}encoder.layers.{index}."
        shapes |= {layer + "ls1": (width,), layer + "ls2": (width,)}
        shapes |= _norm(layer + "norm1", width) | _norm(layer + "norm2", width)
        shapes |= _linear(layer + "attn.qkv", 3 * width, width, bias=config.qkv_bias)
        shapes |= _linear(layer + "attn.proj", width, width)
        shapes |= _linear(layer + "mlp.fc1", config.intermediate_size, width)
        shapes |= _linear(layer + "mlp.fc2", width, config.intermediate_size)
    shapes |= _linear("mm_projector.0", config.llm_hidden_size, config.projector_input_size)
    shapes |= _linear("mm_projector.2", config.llm_hidden_size, config.llm_hidden_size)
    return shapes


def audio_tensors(config: AudioEncoderConfig) -> Shapes:
    """CMVN, convolutional subsampling (`enc.0`), transformer (`enc.1`), adapter and learned audio prompts."""
    width, channels = config.attention_size, config.subsampling_size
    shapes: Shapes = dict.fromkeys(CMVN_TENSORS, (config.mel_bins,))
    core = "encoder.enc.0.core."
    shapes |= {core + "conv.0.weight": (channels, 1, 3, 3), core + "conv.0.bias": (channels,)}
    shapes |= {core + "conv.2.weight": (channels, channels, 3, 3), core + "conv.2.bias": (channels,)}
    shapes |= _linear(core + "out.0", channels, channels * (((config.mel_bins - 1) // 2 - 1) // 2))
    transformer = "encoder.enc.1."
    shapes |= _linear(transformer + "embed.0", width, channels) | _norm(transformer + "embed.1", width)
    for index in range(config.num_blocks):
        shapes |= _audio_block(f"{transformer}encoders.{index}.", config)
    shapes |= _norm(transformer + "after_norm", width)
    shapes |= _adapter(config.adapter)
    if config.prompt_tokens:
        shapes["prompt_embeddings.weight"] = (config.prompt_tokens, config.adapter.llm_hidden_size)
    return shapes


CMVN_TENSORS = ("encoder.global_cmvn.mean", "encoder.global_cmvn.istd")
"""Buffers of the audio component that the `global_cmvn` file gives where the weights lack them."""


def _audio_block(layer: str, config: AudioEncoderConfig) -> Shapes:
    width, attention = config.attention_size, layer + "self_attn."
    per_head = (config.num_heads, width // config.num_heads)
    shapes: Shapes = {attention + "pos_bias_u": per_head, attention + "pos_bias_v": per_head}
    for name in ("linear_q", "linear_k", "linear_v", "linear_out"):
        shapes |= _linear(attention + name, width, width)
    shapes[attention + "linear_pos.weight"] = (width, width)
    shapes |= _linear(layer + "feed_forward.w_1", config.linear_units, width)
    shapes |= _linear(layer + "feed_forward.w_2", width, config.linear_units)
    return shapes | _norm(layer + "norm1", width) | _norm(layer + "norm2", width)


def _adapter(config: AdapterConfig) -> Shapes:
    width, llm, kernel = config.encoder_size, config.llm_hidden_size, config.kernel_size
    if config.kind == "linear":
        return _linear("adpter.adpter", llm, width)
    shapes: Shapes = {}
    channels = width
    two_convolutions = config.kind == "cnn" or config.widens_first
    if two_convolutions:
        shapes |= {"adpter.conv1d1.weight": (2 * width, width, kernel), "adpter.conv1d1.bias": (2 * width,)}
        shapes |= _batch_norm("adpter.bn1", 2 * width)
        channels = 2 * width
    wide = 2 * channels
    shapes |= {"adpter.conv1d2.weight": (wide, channels, kernel), "adpter.conv1d2.bias": (wide,)}
    layer_norm = config.norm == "layer" and not two_convolutions
    shapes |= _norm("adpter.bn2", wide) if layer_norm else _batch_norm("adpter.bn2", wide)
    return shapes | _linear("adpter.project", llm, wide)


def speech_decoder_tensors(config: SpeechDecoderConfig) -> Shapes:
    """Llama layers without biases: `layers_pre_nn` for text, `layers` for codes; V codes and four special ids."""
    width, ids = config.hidden_size, config.num_codes + 4
    shapes: Shapes = {"embedding.weight": (ids, width)}
    for stack, count in (("layers_pre_nn", config.num_text_layers), ("layers", config.num_code_layers)):
        for index in range(count):
            layer = f"{stack}.{index}."
            shapes |= {f"{layer}self_attn.{name}_proj.weight": (width, width) for name in "qkvo"}
            shapes |= _swiglu(layer + "mlp", width, config.intermediate_size)
            shapes |= {layer + "input_layernorm.weight": (width,), layer + "post_attention_layernorm.weight": (width,)}
    shapes["norm.weight"] = (width,)
    return shapes | _linear("out_fnn", ids, width)


def codec_tensors(config: CodecConfig) -> Shapes:
    """The generator's weight-normed convolutions, and the codebooks of codes and of global (speaker) tokens."""
    shapes = _weight_normed("generator.conv_pre", config.upsample_initial_channel, config.code_width, 7)
    channels = config.upsample_initial_channel
    for stage, kernel in enumerate(config.upsample_kernel_sizes):
        shapes |= _weight_normed(f"generator.ups.{stage}", channels, channels // 2, kernel, transposed=True)
        channels //= 2
        for block, (size, dilations) in enumerate(
            zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
        ):
            name = f"generator.resblocks.{stage * len(config.resblock_kernel_sizes) + block}."
            for stack in ("convs1", "convs2") if config.resblock_kind == "1" else ("convs",):
                for index in range(len(dilations)):
                    shapes |= _weight_normed(f"{name}{stack}.{index}", channels, channels, size)
    shapes |= _weight_normed("generator.conv_post", 1, channels, 7)
    for layer in range(config.residual_layers):
        modules = "quantizer.quantizer_modules" + (str(layer + 1) if layer else "")
        for group in range(config.code_groups):
            rows = (config.num_codes, config.code_width // config.code_groups)
            shapes[f"{modules}.{group}.embedding.weight"] = rows
    for index in range(len(config.global_tokens)):
        rows = (config.num_codes, config.global_width // len(config.global_tokens))
        shapes[f"quantizer.quantizer_modules_globaltokens.{index}.embedding.weight"] = rows
    return shapes


def _linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> Shapes:
    weight: Shapes = {name + ".weight": (outputs, inputs)}
    return weight | {name + ".bias": (outputs,)} if bias else weight


def _norm(name: str, width: int) -> Shapes:
    return {name + ".weight": (width,), name + ".bias": (width,)}


def _batch_norm(name: str, width: int) -> Shapes:
    return _norm(name, width) | {name + ".running_mean": (width,), name + ".running_var": (width,)}


def _swiglu(name: str, width: int, mlp: int) -> Shapes:
    return {
        name + ".gate_proj.weight": (mlp, width),
        name + ".up_proj.weight": (mlp, width),
        name + ".down_proj.weight": (width, mlp),
    }


def _weight_normed(name: str, first: int, second: int, kernel: int, *, transposed: bool = False) -> Shapes:
    """`first` is the axis the norm is kept for: outputs, or inputs of a transposed convolution."""
    return {
        name + ".bias": (second if transposed else first,),
        name + ".weight_g": (first, 1, 1),
        name + ".weight_v": (first, second, kernel),
    }
