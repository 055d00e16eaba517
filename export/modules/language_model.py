"""The language model: Qwen2 (Qwen team 2024) over embeddings, so that heard and seen tokens go in with written ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sottovoce.export.config import LanguageModelConfig
from sottovoce.export.modules.llama_layer import KVCache, LlamaLayer, LlamaLayerConfig, RmsNorm, Rotary


def layer_config(config: LanguageModelConfig) -> LlamaLayerConfig:
    """The shared layer's settings for this model."""
    return LlamaLayerConfig(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_size=config.head_size,
        rms_norm_eps=config.rms_norm_eps,
        rope_theta=config.rope_theta,
        qkv_bias=True,
        attention_dropout=config.attention_dropout,
    )


class Decoder(nn.Module):
    """Embedding table, layers and final norm: what the released names put below `model.`."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LlamaLayer(layer_config(config)) for _ in range(config.num_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)


class LanguageModel(nn.Module):
    """Embeddings → logits. State names are those of a Qwen2 checkpoint."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = None if config.tie_word_embeddings else nn.Linear(config.hidden_size, config.vocab_size, False)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) → embeddings (B, T, D)."""
        embeddings: Tensor = self.model.embed_tokens(ids)
        return embeddings

    def forward(self, embeddings: Tensor, attention_mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Causal logits at every position.

        Args:
            embeddings: (B, T, D).
            attention_mask: (B, T) bool, False on padding at the end; with a cache it must be None.
            cache: earlier positions; the new ones are appended to it.

        Returns:
            (B, T, V) logits; those on padding have no meaning.

        Raises:
            ValueError: both an attention mask and a cache were given.
        """
        if attention_mask is not None and cache is not None:
            raise ValueError("an attention mask marks the padding of whole sequences: it cannot be used with a cache")
        past = cache.length if cache is not None else 0
        positions = torch.arange(past, past + embeddings.shape[1], device=embeddings.device)[None]
        mask = causal_mask(past, embeddings.shape[1], embeddings.device)
        if attention_mask is not None:
            # Padding is at the end: a real query never sees it, and a padded one still sees itself (no empty softmax).
            itself = torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
            mask = mask & (attention_mask[:, None, None, :] | itself)
            embeddings = torch.where(attention_mask[:, :, None], embeddings, 0.0)
        rotary = Rotary.at(positions, self.config.head_size, self.config.rope_theta, embeddings.dtype)
        hidden = embeddings
        for index, layer in enumerate(self.model.layers):
            hidden = layer(hidden, rotary, mask, cache, index)
        return self.logits(self.model.norm(hidden))

    def logits(self, hidden: Tensor) -> Tensor:
        """The head, which may share the embedding table."""
        weight = self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return F.linear(hidden, weight)

    @torch.no_grad()
    def greedy(self, embeddings: Tensor, steps: int, stop_ids: tuple[int, ...] = ()) -> tuple[list[int], Tensor]:
        """Decode one sequence (1, T, D) greedily: the ids and each step's logits (steps, V)."""
        cache = KVCache()
        logits = self.forward(embeddings, cache=cache)[0, -1]
        ids: list[int] = []
        all_logits: list[Tensor] = []
        while len(ids) < steps:
            all_logits.append(logits)
            ids.append(int(logits.argmax()))
            if ids[-1] in stop_ids or len(ids) == steps:
                break
            logits = self.forward(self.embed(torch.tensor([[ids[-1]]])), cache=cache)[0, -1]
        return ids, torch.stack(all_logits)


def causal_mask(past: int, length: int, device: torch.device) -> Tensor:
    """(1, 1, length, past + length) bool: a new position sees all earlier ones and itself."""
    rows = torch.arange(past, past + length, device=device)[:, None]
    return (torch.arange(past + length, device=device)[None] <= rows)[None, None]
