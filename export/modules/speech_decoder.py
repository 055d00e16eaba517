"""The speech decoder (VITA-1.5, Fu et al. 2025): text frames → NAR part → codes, one by one.

The NAR part is a stack of llama layers with full attention over the frames of a piece of text. Its output, behind the
embedding of `begin`, is the prefix of the AR part: attended in full, rotary positions from 0. Codes follow from `start`
on, causally, at the positions after the prefix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sottovoce.export.config import SpeechDecoderConfig
from sottovoce.export.modules.llama_layer import KVCache, LlamaLayer, LlamaLayerConfig, RmsNorm, Rotary
from sottovoce.export.modules.masks import length_mask

SPECIAL_IDS = 4
"""begin, start, end and padding, behind the codes."""


def layer_config(config: SpeechDecoderConfig) -> LlamaLayerConfig:
    """The shared layer's settings for both parts."""
    return LlamaLayerConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_heads=config.num_heads,
        num_kv_heads=config.num_heads,
        head_size=config.head_size,
        rms_norm_eps=config.rms_norm_eps,
        rope_theta=config.rope_theta,
        qkv_bias=False,
        dropout=config.dropout,
    )


class SpeechDecoder(nn.Module):
    """Text frames → codes. State names are those of the released speech decoder."""

    def __init__(self, config: SpeechDecoderConfig) -> None:
        super().__init__()
        self.config = config
        layer = layer_config(config)
        self.embedding = nn.Embedding(config.num_codes + SPECIAL_IDS, config.hidden_size)
        self.layers_pre_nn = nn.ModuleList(LlamaLayer(layer) for _ in range(config.num_text_layers))
        self.layers = nn.ModuleList(LlamaLayer(layer) for _ in range(config.num_code_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.out_fnn = nn.Linear(config.hidden_size, config.num_codes + SPECIAL_IDS)

    def condition(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The NAR part.

        Args:
            frames: (B, n, d) rows of the language model's embedding table, reshaped to this width.
            lengths: (B,) frames of each item; None when all are n long.

        Returns:
            (B, n, d); what lies beyond an item's length has no meaning.
        """
        positions = torch.arange(frames.shape[1], device=frames.device)[None]
        mask = None
        if lengths is not None:
            real = length_mask(lengths, frames.shape[1])
            frames, mask = torch.where(real[:, :, None], frames, 0.0), real[:, None, None, :]
        rotary = self._rotary(positions, frames)
        for layer in self.layers_pre_nn:
            frames = layer(frames, rotary, mask)
        return frames

    def forward(
        self, frames: Tensor, frame_lengths: Tensor | None, codes: Tensor, code_lengths: Tensor | None
    ) -> Tensor:
        """Teacher-forced logits of every code and of the end.

        Args:
            frames: (B, n, d) text frames.
            frame_lengths: (B,) or None.
            codes: (B, m) codes without `start`; padded places hold any valid id.
            code_lengths: (B,) or None.

        Returns:
            (B, m + 1, V + 4): place i predicts code i, and place `code_lengths` the end.
        """
        batch, count = codes.shape
        prefix = self.prefix(self.condition(frames, frame_lengths))
        start = torch.full((batch, 1), self.config.start_id, device=codes.device)
        hidden = torch.cat([prefix, self.embedding(torch.cat([start, codes], dim=1))], dim=1)
        full = torch.full((batch,), prefix.shape[1], device=codes.device)
        prefix_lengths = full if frame_lengths is None else frame_lengths + 1
        code_places = torch.arange(count + 1, device=codes.device)[None]
        prefix_places = torch.arange(prefix.shape[1], device=codes.device)[None].expand(batch, -1)
        # A padded item's codes follow its own prefix without a gap, as they will when it is decoded alone.
        positions = torch.cat([prefix_places, prefix_lengths[:, None] + code_places], dim=1)
        mask = self._prefix_mask(prefix_lengths, prefix.shape[1], code_lengths, count + 1)
        rotary = self._rotary(positions, hidden)
        for layer in self.layers:
            hidden = layer(hidden, rotary, mask)
        return self.head(hidden[:, prefix.shape[1] :])

    def prefix(self, conditioned: Tensor) -> Tensor:
        """The AR part's prefix (B, 1 + n, d): the embedding of `begin`, then the conditioned frames."""
        begin = self.embedding.weight[self.config.begin_id].expand(conditioned.shape[0], 1, -1)
        return torch.cat([begin, conditioned], dim=1)

    def head(self, hidden: Tensor) -> Tensor:
        """(B, T, d) → logits (B, T, V + 4)."""
        logits: Tensor = self.out_fnn(self.norm(hidden))
        return logits

    def decode_step(self, embeddings: Tensor, cache: KVCache) -> Tensor:
        """Run the AR part on (1, T, d) behind the cache, all of it visible → logits of the last place (V + 4,)."""
        positions = torch.arange(cache.length, cache.length + embeddings.shape[1], device=embeddings.device)[None]
        rotary = self._rotary(positions, embeddings)
        hidden = embeddings
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, rotary, None, cache, index)
        return self.head(hidden[:, -1:])[0, 0]

    @torch.no_grad()
    def greedy(self, frames: Tensor, max_codes: int = 1000) -> tuple[list[int], Tensor]:
        """Speak one piece (1, n, d) greedily: the codes (without the end) and each step's logits (steps, V + 4)."""
        cache = KVCache()
        self.decode_step(self.prefix(self.condition(frames)), cache)
        config = self.config
        current = config.start_id
        codes: list[int] = []
        all_logits: list[Tensor] = []
        while len(codes) < max_codes:
            logits = self.decode_step(self.embedding.weight[current][None, None], cache)
            all_logits.append(logits)
            allowed = logits.clone()
            allowed[[config.begin_id, config.start_id, config.padding_id]] = -torch.inf
            current = int(allowed.argmax())
            if current == config.end_id:
                break
            codes.append(current)
        return codes, torch.stack(all_logits)

    def _rotary(self, positions: Tensor, like: Tensor) -> Rotary:
        return Rotary.at(positions, self.config.head_size, self.config.rope_theta, like.dtype)

    @staticmethod
    def _prefix_mask(prefix_lengths: Tensor, prefix: int, code_lengths: Tensor | None, codes: int) -> Tensor:
        """(B, 1, prefix + codes, prefix + codes): prefix sees the prefix; codes see it and the codes so far."""
        real_prefix = length_mask(prefix_lengths, prefix)
        code_count = torch.full_like(prefix_lengths, codes) if code_lengths is None else code_lengths + 1
        columns = torch.cat([real_prefix, length_mask(code_count, codes)], dim=1)
        total = prefix + codes
        places = torch.arange(total, device=prefix_lengths.device)
        seen = (places[None] < prefix) | ((places[:, None] >= prefix) & (places[None] <= places[:, None]))
        # A padded place sees itself, so that no softmax is empty; no real place sees it.
        return (seen & columns[:, None] | torch.eye(total, dtype=torch.bool, device=places.device))[:, None]
