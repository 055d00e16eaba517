"""InternViT with pixel shuffle and the projector: pixels of tiles → embeddings in the language model's width.

InternVL 1.5 (Chen et al. 2024): a pre-norm vision transformer with layer scale; its last hidden state, without the
class token and without a final norm, is halved, four neighbouring patches are put side by side, and a two-layer GELU
projector brings them to the language model's width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sottovoce.export.config import VisionEncoderConfig

FEATURE_SCALE = 0.5
"""The released model multiplies the features by the pixel-shuffle factor before it shuffles."""


class PatchEmbeddings(nn.Module):
    """Patches through a convolution, the class token in front, learned positions added."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.grid = config.image_size // config.patch_size
        self.class_embedding = nn.Parameter(torch.randn(1, 1, config.hidden_size) * 0.02)
        self.patch_embedding = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.patch_size)
        self.position_embedding = nn.Parameter(torch.randn(1, self.grid**2 + 1, config.hidden_size) * 0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) → (n, 1 + patches, d); positions are resized (bicubic) when S is not the trained size."""
        patches = self.patch_embedding(pixels)
        height, width = patches.shape[-2:]
        class_token = self.class_embedding.expand(pixels.shape[0], -1, -1)
        return torch.cat([class_token, patches.flatten(2).transpose(1, 2)], dim=1) + self._positions(height, width)

    def _positions(self, height: int, width: int) -> Tensor:
        if (height, width) == (self.grid, self.grid):
            return self.position_embedding
        of_patches = self.position_embedding[:, 1:].float().reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(of_patches, size=(height, width), mode="bicubic", align_corners=False)
        flat = resized.flatten(2).transpose(1, 2).to(self.position_embedding.dtype)
        return torch.cat([self.position_embedding[:, :1], flat], dim=1)


class VisionAttention(nn.Module):
    """Full multi-head self-attention with one fused projection."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, tokens, d) → the same."""
        n, tokens, width = hidden.shape
        query, key, value = self.qkv(hidden).reshape(n, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(n, tokens, width))
        return projected


class VisionFeedForward(nn.Module):
    """Linear, GELU (exact), Linear."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, tokens, d) → the same."""
        projected: Tensor = self.fc2(F.gelu(self.fc1(hidden)))
        return projected


class VisionLayer(nn.Module):
    """One pre-norm layer; each branch is scaled by a learned vector and dropped as a whole while training."""

    def __init__(self, config: VisionEncoderConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = VisionAttention(config)
        self.ls1 = nn.Parameter(torch.full((config.hidden_size,), 0.1))
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionFeedForward(config)
        self.ls2 = nn.Parameter(torch.full((config.hidden_size,), 0.1))
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = drop_path

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, tokens, d) → the same."""
        hidden = hidden + self._branch(self.attn(self.norm1(hidden)) * self.ls1)
        return hidden + self._branch(self.mlp(self.norm2(hidden)) * self.ls2)

    def _branch(self, update: Tensor) -> Tensor:
        update = self.dropout(update)
        if not self.training or self.drop_path == 0.0:
            return update
        kept = torch.rand(update.shape[0], 1, 1, device=update.device) >= self.drop_path
        return update * kept / (1.0 - self.drop_path)


class VisionLayers(nn.Module):
    """The stack of layers, each dropped more often than the one before while training."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        rates = torch.linspace(0.0, config.drop_path_rate, config.num_layers).tolist()
        self.layers = nn.ModuleList(VisionLayer(config, rate) for rate in rates)

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, tokens, d) → the same."""
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class VisionTransformer(nn.Module):
    """InternViT: embeddings and layers; names as in its own checkpoint."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(config)
        self.encoder = VisionLayers(config)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) → last hidden state (n, 1 + patches, d), class token first."""
        hidden: Tensor = self.encoder(self.embeddings(pixels))
        return hidden


class VisionTower(nn.Module):
    """The level between that the released names have: `vision_tower.vision_tower`."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.vision_tower = VisionTransformer(config)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) → (n, 1 + patches, d)."""
        hidden: Tensor = self.vision_tower(pixels)
        return hidden


class VisionEncoder(nn.Module):
    """Pixels of tiles or frames → embeddings for the language model. State names as below `model.` in a checkpoint."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.vision_tower = VisionTower(config)
        self.mm_projector = nn.Sequential(
            nn.Linear(config.projector_input_size, config.llm_hidden_size),
            nn.GELU(),
            nn.Linear(config.llm_hidden_size, config.llm_hidden_size),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) normalized pixels → (n, patches / 4, llm_hidden_size)."""
        embeddings: Tensor = self.mm_projector(pixel_shuffle(self.vision_tower(pixels)[:, 1:] * FEATURE_SCALE))
        return embeddings


def pixel_shuffle(hidden: Tensor) -> Tensor:
    """Put each 2×2 block of patches side by side: (n, h·w, c) with h = w → (n, h·w / 4, 4c), all in reading order."""
    n, patches, width = hidden.shape
    half = round(patches**0.5) // 2
    blocks = hidden.reshape(n, half, 2, half, 2, width).transpose(2, 3)
    return blocks.reshape(n, patches // 4, 4 * width)
