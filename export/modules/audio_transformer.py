"""The whale encoder's transformer: pre-norm layers whose attention adds a score for the key's absolute position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sottovoce.export.config import AudioEncoderConfig
from sottovoce.export.modules.masks import chunk_mask


def sinusoid(size: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal table of positions 0…size-1 (Vaswani et al. 2017), sines in even and cosines in odd columns.

    Returns:
        (size, width) float32.
    """
    rate = torch.exp(torch.arange(0, width, 2, device=device, dtype=torch.float32) * (-math.log(10000.0) / width))
    angle = torch.arange(size, device=device, dtype=torch.float32)[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


class PositionAttention(nn.Module):
    """Multi-head attention with the content and position biases of Transformer-XL (Dai et al. 2019), without its shift.

    The score of query q for key j is `((q + u)·k_j + (q + v)·p_j) / sqrt(d)`, p_j the projected sinusoid of j itself.
    It is computed as `(q·(k_j + p_j) + u·k_j + v·p_j) / sqrt(d)`: one product of matrices in place of two.
    """

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        width = config.attention_size
        self.num_heads = config.num_heads
        self.head_size = width // config.num_heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(self.num_heads, self.head_size))
        self.pos_bias_v = nn.Parameter(torch.empty(self.num_heads, self.head_size))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)
        self.dropout = nn.Dropout(config.attention_dropout)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, M, d) → (B, heads, M, d / heads)."""
        return x.unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Attend.

        Args:
            x: (B, M, d) normed frames.
            positions: (1, M, d) sinusoid of the keys.
            mask: bool that broadcasts to (B, 1, M, M), True where a query may see a key; None is everywhere.

        Returns:
            (B, M, d).
        """
        query, key, value = self._heads(self.linear_q(x)), self._heads(self.linear_k(x)), self._heads(self.linear_v(x))
        position = self._heads(self.linear_pos(positions))
        key_bias = key @ self.pos_bias_u[:, :, None] + position @ self.pos_bias_v[:, :, None]
        scores = (query @ (key + position).transpose(2, 3) + key_bias.transpose(2, 3)) / math.sqrt(self.head_size)
        if mask is not None:
            scores = torch.where(mask, scores, torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(dim=-1))
        return self.linear_out((weights @ value).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Linear, ReLU, Linear."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.w_1 = nn.Linear(config.attention_size, config.linear_units)
        self.w_2 = nn.Linear(config.linear_units, config.attention_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, d) → (B, M, d)."""
        return self.w_2(self.dropout(self.w_1(x).relu()))


class TransformerLayer(nn.Module):
    """Pre-norm attention and feed-forward, each added to what came in."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.self_attn = PositionAttention(config)
        self.feed_forward = FeedForward(config)
        self.norm1 = nn.LayerNorm(config.attention_size)
        self.norm2 = nn.LayerNorm(config.attention_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """(B, M, d) → (B, M, d); the other arguments as in `PositionAttention.forward`."""
        x = x + self.dropout(self.self_attn(self.norm1(x), positions, mask))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class AudioTransformer(nn.Module):
    """Input layer, positions, the layers and a last norm."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        width = config.attention_size
        self.embed = nn.Sequential(
            nn.Linear(config.subsampling_size, width), nn.LayerNorm(width), nn.Dropout(config.dropout), nn.ReLU()
        )
        self.encoders = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_blocks))
        self.after_norm = nn.LayerNorm(width)
        self.positional_dropout = nn.Dropout(config.positional_dropout)
        self.width = width
        self.chunk_size = config.chunk_size
        self.left_chunks = config.left_chunks

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Encode.

        Args:
            x: (B, M, s) subsampled frames.
            mask: (B, M) bool, True on real frames; None when all are.

        Returns:
            (B, M, d).
        """
        visible = self._visible(x, mask)
        x = self.positional_dropout(self.embed(x) * math.sqrt(self.width))
        positions = self.positional_dropout(sinusoid(x.shape[1], self.width, x.device)[None].to(x.dtype))
        for layer in self.encoders:
            x = layer(x, positions, visible)
        return self.after_norm(x)

    def _visible(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        """What each frame may see: real frames, within its window of chunks."""
        visible = None if mask is None else mask[:, None, None, :]
        if self.chunk_size > 0:
            window = chunk_mask(x.shape[1], self.chunk_size, self.left_chunks, x.device)[None, None]
            visible = window if visible is None else window & visible
        return visible
