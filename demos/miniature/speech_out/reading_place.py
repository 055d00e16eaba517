"""Where in the text the speech is: a hint for one attention head, so that words are neither skipped nor said twice.

Piper tells when each phoneme is spoken, spaces included, so the word that a code belongs to is known. One head of the
code part is asked to look at that word's tokens while it predicts the code (guided attention, Tachibana et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sottovoce.export.modules.llama_layer import LlamaAttention, Rotary

_SPACE = 3
_SILENT = (0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13)
NOWHERE = -100
"""The word of a code in which nothing is said."""


def words_of_codes(phonemes: np.ndarray) -> np.ndarray:
    """(t,) phoneme of each code to (t,) index of the word it belongs to, -100 in pauses."""
    space = phonemes == _SPACE
    begun = np.cumsum(np.diff(space.astype(np.int64), prepend=0) == 1)
    return np.where(np.isin(phonemes, _SILENT), NOWHERE, begun)


def words_of_tokens(text: str, tokenize: Callable[[str], Sequence[int]]) -> np.ndarray | None:
    """(n,) index of the word each token of ``text`` belongs to; None when words are not tokenized one by one."""
    words = text.split(" ")
    pieces = [tokenize(word if index == 0 else f" {word}") for index, word in enumerate(words)]
    if [token for piece in pieces for token in piece] != list(tokenize(text)):
        return None
    return np.repeat(np.arange(len(words)), [len(piece) for piece in pieces])


def reading_places(text: str, phonemes: np.ndarray, tokenize: Callable[[str], Sequence[int]]) -> np.ndarray | None:
    """Words of the codes when voice and text agree on how many words there are, else None."""
    codes, tokens = words_of_codes(phonemes), words_of_tokens(text, tokenize)
    if tokens is None or codes.max(initial=NOWHERE) != tokens[-1]:
        return None
    return codes


@dataclass
class ReadingHead:
    """Watches one attention layer and says how much its first head looks at the word being spoken."""

    attention: LlamaAttention
    _seen: tuple[Tensor, Rotary, Tensor] | None = None

    def __post_init__(self) -> None:
        self.attention.register_forward_pre_hook(self._watch)

    def loss(self, token_words: Tensor, code_words: Tensor) -> Tensor:
        """Mean of -log of the attention on the right word.

        Args:
            token_words: (B, L) word of each token, -1 behind the text.
            code_words: (B, T) word being spoken when code t is predicted, -100 where there is none.
        """
        assert self._seen is not None  # noqa: S101  # the layer has just run
        hidden, rotary, mask = self._seen
        size = self.attention.config.head_size
        prefix = token_words.shape[1] + 1
        query, key = (
            rotary.apply(nn.functional.linear(hidden, layer.weight[:size])[:, None])
            for layer in (self.attention.q_proj, self.attention.k_proj)
        )
        scores = (query[:, 0, prefix:] @ key[:, 0].transpose(1, 2)).float() / size**0.5
        weights = scores.masked_fill(~mask[:, 0, prefix:], -1e9).log_softmax(-1)[:, :, 1:prefix]
        there = token_words[:, None] == code_words[:, :, None]
        on_word = weights.masked_fill(~there, -1e9).logsumexp(-1)
        loss: Tensor = -on_word[code_words != NOWHERE].clamp(min=-20).mean()
        return loss

    def _watch(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        hidden, rotary, mask = inputs[:3]
        if torch.is_grad_enabled():
            self._seen = (hidden, rotary, mask)
