"""The miniature's sizes, how its parts start, and 16-bit products for training on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sottovoce.demos.miniature.tokenizer import EMBEDDING_WIDTH
from sottovoce.export.config import AdapterConfig, AudioEncoderConfig, LanguageModelConfig, VisionEncoderConfig
from sottovoce.export.modules.audio_encoder import AudioEncoder
from sottovoce.export.modules.audio_transformer import AudioTransformer, PositionAttention, TransformerLayer, sinusoid
from sottovoce.export.modules.language_model import LanguageModel
from sottovoce.export.modules.vision_encoder import VisionEncoder, VisionLayer

CONTEXT_LENGTH = 1024
"""Positions that the language model is made for."""
AUDIO = AudioEncoderConfig(
    mel_bins=80,
    subsampling_size=48,
    attention_size=192,
    num_heads=6,
    linear_units=640,
    num_blocks=6,
    adapter=AdapterConfig("subsampling", 192, EMBEDDING_WIDTH, kernel_size=5, norm="layer", activation="gelu"),
    chunk_size=1,
    left_chunks=32,
    dropout=0.0,
    positional_dropout=0.0,
    subsampling_dropout=0.0,
)
VISION = VisionEncoderConfig(
    hidden_size=96,
    intermediate_size=384,
    num_layers=4,
    num_heads=4,
    patch_size=14,
    image_size=112,
    llm_hidden_size=EMBEDDING_WIDTH,
)


def language_config(vocabulary_size: int) -> LanguageModelConfig:
    """Four Qwen2 layers of width 256."""
    return LanguageModelConfig(
        hidden_size=EMBEDDING_WIDTH,
        intermediate_size=512,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_size=64,
        vocab_size=vocabulary_size,
        max_positions=CONTEXT_LENGTH,
        rope_theta=10000.0,
    )


RECENCY = (0.0, 0.05, 0.15, 0.4, 0.8, 1.6)
"""How much more a head prefers each later frame, in logits a frame."""
_RECENCY_GAIN = 4.0
_LONGEST_FRAMES = 800


def build_audio_encoder(config: AudioEncoderConfig = AUDIO) -> AudioEncoder:
    """A new encoder whose heads start with a preference for recent frames (as in ALiBi, Press et al. 2022).

    The layout's attention knows the absolute place of each key but not that of the query, so it cannot tell a near
    frame from a far one, unless a key's score rises with its place: then, in a window that ends at the query, the
    nearest win. A sum of the slow sinusoids that rises like a straight line is found by least squares.
    """
    encoder = AudioEncoder(config)
    transformer = encoder.encoder.enc[1]
    assert isinstance(transformer, AudioTransformer)  # noqa: S101  # for the type checker
    norm = transformer.embed[1]
    assert isinstance(norm, nn.LayerNorm)  # noqa: S101  # for the type checker
    # What goes on is normed, times sqrt(width): undo that once, so that layers are heard beside their input.
    nn.init.constant_(norm.weight, 1.0 / math.sqrt(config.attention_size))
    line = _straight_line(config.attention_size)
    for layer in transformer.encoders:
        assert isinstance(layer, TransformerLayer)  # noqa: S101  # for the type checker
        _prefer_recent(layer.self_attn, line)
    return encoder


def _straight_line(width: int) -> Tensor:
    """(width,) weights on the sinusoids whose sum at place j is about j."""
    table = sinusoid(_LONGEST_FRAMES, width, torch.device("cpu")).double()
    target = torch.arange(_LONGEST_FRAMES, dtype=torch.float64)
    square = table.T @ table + 1e-3 * torch.eye(width, dtype=torch.float64)
    solved: Tensor = torch.linalg.solve(square, table.T @ (target - target.mean()))
    return solved.float()


@torch.no_grad()
def _prefer_recent(attention: PositionAttention, line: Tensor) -> None:
    size = attention.head_size
    nn.init.normal_(attention.linear_pos.weight, std=0.02)
    nn.init.zeros_(attention.pos_bias_u)
    nn.init.zeros_(attention.pos_bias_v)
    for head in range(attention.num_heads):
        slope = RECENCY[head % len(RECENCY)]
        attention.linear_pos.weight[head * size] = line * slope * math.sqrt(size) / _RECENCY_GAIN
        attention.pos_bias_v[head, 0] = _RECENCY_GAIN
        attention.linear_q.weight[head * size] *= 0.1


def build_language_model(vocabulary_size: int, embeddings: Tensor) -> LanguageModel:
    """A new language model around the shared, frozen embedding table."""
    model = LanguageModel(language_config(vocabulary_size))
    depth = 2 * len(model.model.layers)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            small = name.endswith(("o_proj.weight", "down_proj.weight"))
            nn.init.normal_(weight, std=0.05 / math.sqrt(depth) if small else 0.05)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(embeddings)
    model.model.embed_tokens.weight.requires_grad_(False)
    return model


def build_vision_encoder() -> VisionEncoder:
    """A new vision encoder and projector; branches start at full strength, since there is no pretraining to protect."""
    encoder = VisionEncoder(VISION)
    for layer in encoder.vision_tower.vision_tower.encoder.layers:
        assert isinstance(layer, VisionLayer)  # noqa: S101  # for the type checker
        nn.init.constant_(layer.ls1, 0.7)
        nn.init.constant_(layer.ls2, 0.7)
    nn.init.normal_(encoder.vision_tower.vision_tower.embeddings.position_embedding, std=0.1)
    return encoder


_STAYS_NARROW = ("gate_proj", "up_proj", "w_1")
"""Layers whose outputs go through an activation into the next product, which would make them narrow again."""


def _bfloat16_forward(linear: nn.Linear, widen: bool) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        bias = None if linear.bias is None else linear.bias.bfloat16()
        product = F.linear(x.bfloat16(), linear.weight.bfloat16(), bias)
        return product.float() if widen else product

    return forward


def _bfloat16_convolution(convolution: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        assert convolution.bias is not None  # noqa: S101  # for the type checker: the layout's always have one
        weight = convolution.weight.bfloat16().contiguous(memory_format=torch.channels_last)
        wide = x.bfloat16().contiguous(memory_format=torch.channels_last)
        return F.conv2d(wide, weight, convolution.bias.bfloat16(), convolution.stride).float()

    return forward


def use_bfloat16(module: nn.Module) -> None:
    """Let linear layers and picture-like convolutions multiply in bfloat16: twice as fast where a CPU has it.

    Weights and what lies between stay fp32.

    Projections of positions are left alone: their sums are large and differ by little from frame to frame.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) and not name.endswith("linear_pos"):
            widen = not name.endswith(_STAYS_NARROW)
            layer.forward = _bfloat16_forward(layer, widen)  # type: ignore[assignment, method-assign]  # of this instance
        elif isinstance(layer, nn.Conv2d):
            layer.forward = _bfloat16_convolution(layer)  # type: ignore[assignment, method-assign]  # likewise
