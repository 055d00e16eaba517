"""The whale encoder's transformer: pre-norm layers whose attention adds a score for the key's absolute position."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sottovoce.export.config import AudioEncoderConfig
from sottovoce.export.modules.masks import chunk_mask, window_mask


def sinusoid(size: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal table of positions 0…size-1.

    Returns:
        (size, width) float32.
    """
    return sinusoid_at(torch.arange(size, device=device), width)


def sinusoid_at(places: Tensor, width: int) -> Tensor:
    """Sinusoids of positions (Vaswani et al. 2017), sines in even and cosines in odd columns.

    Returns:
        (places, width) float32, computed as such: float16 has no odd numbers beyond 2048.
    """
    steps = torch.arange(0, width, 2, device=places.device, dtype=torch.float32)
    angle = places.to(torch.float32)[:, None] * torch.exp(steps * (-math.log(10000.0) / width))
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


class AttendedFrames(NamedTuple):
    """What attention keeps of the frames that it can see, their positions included: all that a later call needs.

    For one layer the first dimension is the batch; for all layers of one utterance it is the layer.
    """

    keys: Tensor
    """(B, heads, K, d / heads): key and projected position, summed."""
    biases: Tensor
    """(B, heads, K, 1): what the content and position biases add to every query's score."""
    values: Tensor
    """(B, heads, K, d / heads)."""

    def followed_by(self, later: AttendedFrames) -> AttendedFrames:
        """These frames and then the later ones."""
        return AttendedFrames(*(torch.cat(pair, dim=2) for pair in zip(self, later, strict=True)))

    def last(self, frames: int) -> AttendedFrames:
        """The last `frames` of them, or all if there are fewer."""
        first = torch.sym_max(self.keys.shape[2] - frames, 0)
        return AttendedFrames(*(kept[:, :, first:] for kept in self))


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
        return self.attend(x, self.attended(x, positions), mask)

    def attended(self, x: Tensor, positions: Tensor) -> AttendedFrames:
        """Keys and values of (B, M, d) normed frames at positions with the sinusoids (1, M, d)."""
        key, position = self._heads(self.linear_k(x)), self._heads(self.linear_pos(positions))
        biases = key @ self.pos_bias_u[:, :, None] + position @ self.pos_bias_v[:, :, None]
        return AttendedFrames(key + position, biases, self._heads(self.linear_v(x)))

    def attend(self, x: Tensor, frames: AttendedFrames, mask: Tensor | None) -> Tensor:
        """Let (B, M, d) normed frames attend to K frames, where the mask (…, M, K) is True → (B, M, d)."""
        query = self._heads(self.linear_q(x))
        scores = (query @ frames.keys.transpose(2, 3) + frames.biases.transpose(2, 3)) / math.sqrt(self.head_size)
        if mask is not None:
            scores = torch.where(mask, scores, torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(dim=-1))
        return self.linear_out((weights @ frames.values).transpose(1, 2).flatten(2))


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
        return self._fed_forward(x)

    def stream(self, x: Tensor, positions: Tensor, mask: Tensor, past: AttendedFrames) -> tuple[Tensor, AttendedFrames]:
        """Frames that follow others → (1, M, d), and past and new frames as later ones will see them.

        Args:
            x: (1, M, d) frames.
            positions: (1, M, d) sinusoid of their places.
            mask: bool that broadcasts to (1, 1, M, P + M).
            past: P frames before.
        """
        normed = self.norm1(x)
        frames = past.followed_by(self.self_attn.attended(normed, positions))
        return self._fed_forward(x + self.self_attn.attend(normed, frames, mask)), frames

    def _fed_forward(self, x: Tensor) -> Tensor:
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

    def stream(self, x: Tensor, past: AttendedFrames, position: Tensor) -> tuple[Tensor, AttendedFrames]:
        """Encode the frames of one utterance that follow those which were encoded before; for chunked attention only.

        Args:
            x: (1, M, s) subsampled frames: whole chunks, but for the utterance's last.
            past: (layers, heads, P, …) what the calls before left; P is 0 in the first.
            position: (1,) int64 place of the first new frame.

        Returns:
            (1, M, d) and what the next call needs.
        """
        places = position + torch.arange(x.shape[1], device=x.device)
        seen = past.keys.shape[2]
        keys = position - seen + torch.arange(seen + x.shape[1], device=x.device)
        mask = window_mask(places, keys, self.chunk_size, self.left_chunks)[None, None]
        x = self.embed(x) * math.sqrt(self.width)
        positions = sinusoid_at(places, self.width)[None].to(x.dtype)
        kept = []
        for index, layer in enumerate(self.encoders):
            own = AttendedFrames(*(tensor[index : index + 1] for tensor in past))
            x, frames = layer.stream(x, positions, mask, own)  # type: ignore[operator]  # every layer is one of ours
            kept.append(frames if self.left_chunks < 0 else frames.last(self.left_chunks * self.chunk_size))
        return self.after_norm(x), AttendedFrames(*(torch.cat(tensors) for tensors in zip(*kept, strict=True)))

    def _visible(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        """What each frame may see: real frames, within its window of chunks."""
        visible = None if mask is None else mask[:, None, None, :]
        if self.chunk_size > 0:
            window = chunk_mask(x.shape[1], self.chunk_size, self.left_chunks, x.device)[None, None]
            visible = window if visible is None else window & visible
        return visible
