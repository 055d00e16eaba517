"""The decoder layer that the language model and both parts of the speech decoder share.

Pre-norm, RMSNorm, rotary positions in the half-split form, grouped KV heads, SwiGLU (LLaMA, Touvron et al. 2023; Qwen2
adds biases to q, k and v).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class LlamaLayerConfig:
    """Sizes and switches of one layer."""

    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    rms_norm_eps: float
    rope_theta: float
    qkv_bias: bool
    attention_dropout: float = 0.0
    dropout: float = 0.0


@dataclass
class KVCache:
    """Keys and values of every layer so far, each (B, kv_heads, positions, head_size)."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Positions held."""
        return self.keys[0].shape[2] if self.keys else 0

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add the new positions of `layer`; returns all of that layer's keys and values."""
        if layer == len(self.keys):
            self.keys.append(key)
            self.values.append(value)
        else:
            self.keys[layer] = torch.cat([self.keys[layer], key], dim=2)
            self.values[layer] = torch.cat([self.values[layer], value], dim=2)
        return self.keys[layer], self.values[layer]

    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on."""
        self.keys = [key[:, :, :length] for key in self.keys]
        self.values = [value[:, :, :length] for value in self.values]

    def reset(self) -> None:
        """Forget everything."""
        self.keys, self.values = [], []


class RmsNorm(nn.Module):
    """Root-mean-square normalization (Zhang & Sennrich 2019), the mean taken in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, size) → the same."""
        wide = hidden.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(hidden.dtype)


@dataclass(frozen=True)
class Rotary:
    """Cosines and sines of the positions at hand, (B or 1, 1, T, head_size)."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, head_size: int, theta: float, dtype: torch.dtype) -> Rotary:
        """For `positions` (B, T) or (1, T)."""
        angles = positions[:, None, :, None].float() * cls.frequencies(head_size, theta).to(positions.device)
        angles = torch.cat([angles, angles], dim=-1)
        return cls(angles.cos().to(dtype), angles.sin().to(dtype))

    @staticmethod
    def frequencies(head_size: int, theta: float) -> Tensor:
        """(head_size / 2,) float32 radians a position, the fastest first."""
        frequencies: Tensor = theta ** -(torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
        return frequencies

    def apply(self, vectors: Tensor) -> Tensor:
        """Turn (B, heads, T, head_size) by its positions."""
        first, second = vectors.chunk(2, dim=-1)
        return vectors * self.cos + torch.cat([-second, first], dim=-1) * self.sin


class LlamaAttention(nn.Module):
    """Self-attention with grouped KV heads."""

    def __init__(self, config: LlamaLayerConfig) -> None:
        super().__init__()
        self.config = config
        queries, keys = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)

    def forward(
        self, hidden: Tensor, rotary: Rotary, mask: Tensor | None, cache: KVCache | None = None, layer: int = 0
    ) -> Tensor:
        """(B, T, d) → the same; `mask` (B or 1, 1, T, positions) is True where a query may look, None is everywhere."""
        config = self.config
        batch, length = hidden.shape[:2]
        query = self.q_proj(hidden).view(batch, length, config.num_heads, config.head_size).transpose(1, 2)
        key = self.k_proj(hidden).view(batch, length, config.num_kv_heads, config.head_size).transpose(1, 2)
        value = self.v_proj(hidden).view(batch, length, config.num_kv_heads, config.head_size).transpose(1, 2)
        query, key = rotary.apply(query), rotary.apply(key)
        if cache is not None:
            key, value = cache.append(layer, key, value)
        group = config.num_heads // config.num_kv_heads
        if group > 1:
            key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
        dropout = config.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        projected: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return projected


class SwiGlu(nn.Module):
    """Gated feed-forward (Shazeer 2020), no biases."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, T, d) → the same."""
        projected: Tensor = self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return projected


class LlamaLayer(nn.Module):
    """Attention and feed-forward, each behind a norm and added."""

    def __init__(self, config: LlamaLayerConfig) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = LlamaAttention(config)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGlu(config.hidden_size, config.intermediate_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, hidden: Tensor, rotary: Rotary, mask: Tensor | None, cache: KVCache | None = None, layer: int = 0
    ) -> Tensor:
        """As `LlamaAttention.forward`."""
        hidden = hidden + self.dropout(self.self_attn(self.input_layernorm(hidden), rotary, mask, cache, layer))
        return hidden + self.dropout(self.mlp(self.post_attention_layernorm(hidden)))
