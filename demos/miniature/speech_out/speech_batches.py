"""Batches for the speech decoder: sentences of like length together, the same ones at the same step of every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sottovoce.export.config import SpeechDecoderConfig

from .reading_place import reading_places, words_of_tokens
from .spoken_codes import SpokenText
from .training_state import batch_generator

IGNORED = -100
"""Target of places that are not trained on."""


@dataclass(frozen=True)
class SpeechBatch:
    """Teacher forcing for B sentences: having read ``codes[:, :t]`` the decoder must say ``targets[:, t]``.

    Attributes:
        text_ids: (B, L) int64, token ids, zeros after ``text_lengths``.
        text_lengths: (B,) int64.
        codes: (B, T) int64, some of them wrong on purpose, padding after ``code_lengths``.
        code_lengths: (B,) int64.
        targets: (B, T + 1) int64: the right codes, then end, then -100.
        phonemes: (B, T + 1) int64: what is spoken during the target, -100 where there is none.
        token_words: (B, L) int64: which word a token belongs to, -1 behind the text.
        code_words: (B, T + 1) int64: which word the target belongs to, -100 where that is not known.
    """

    text_ids: Tensor
    text_lengths: Tensor
    codes: Tensor
    code_lengths: Tensor
    targets: Tensor
    phonemes: Tensor
    token_words: Tensor
    code_words: Tensor


@dataclass(frozen=True)
class BatchRecipe:
    """``positions``: the most prefix and code positions in a batch; ``wrong_codes``: share of input codes replaced."""

    positions: int = 1_600
    wrong_codes: float = 0.10
    length_jitter: float = 6.0
    seed: int = 0


class SpeechCorpus:
    """Sentences with their token ids; :meth:`batch` makes the batch of any step."""

    def __init__(
        self,
        spoken: Sequence[SpokenText],
        tokenize: Callable[[str], Sequence[int]],
        config: SpeechDecoderConfig,
        recipe: BatchRecipe,
    ) -> None:
        self.spoken = spoken
        self.token_ids = [np.asarray(tokenize(item.text), dtype=np.int64) for item in spoken]
        self._words = [
            (words_of_tokens(item.text, tokenize), reading_places(item.text, item.phonemes, tokenize))
            for item in spoken
        ]
        self.config = config
        self.recipe = recipe
        self._lengths = np.array(
            [len(ids) + len(item.codes) + 2 for ids, item in zip(self.token_ids, spoken, strict=True)]
        )
        self._plan: tuple[int, list[np.ndarray]] = (-1, [])
        self._epoch_starts = [0]

    @property
    def batches_in_a_pass(self) -> int:
        """How many batches the first pass over the corpus has."""
        return len(self._batches_of(0))

    def batch(self, step: int) -> SpeechBatch:
        """The batch of ``step``; passes over the corpus follow each other, each shuffled by its own dice."""
        while step >= self._epoch_starts[-1]:
            self._epoch_starts.append(self._epoch_starts[-1] + len(self._batches_of(len(self._epoch_starts) - 1)))
        epoch = int(np.searchsorted(self._epoch_starts, step, side="right")) - 1
        chosen = self._batches_of(epoch)[step - self._epoch_starts[epoch]]
        return self._collate(chosen, batch_generator(self.recipe.seed + 1, step))

    def _batches_of(self, epoch: int) -> list[np.ndarray]:
        if self._plan[0] != epoch:
            draw = batch_generator(self.recipe.seed, epoch)
            order = np.argsort(self._lengths + draw.normal(0, self.recipe.length_jitter, len(self._lengths)))
            batches, first, longest = [], 0, 0
            for place, index in enumerate(order):
                longest = max(longest, int(self._lengths[index]))
                if (place - first + 1) * longest > self.recipe.positions and place > first:
                    batches.append(order[first:place])
                    first, longest = place, int(self._lengths[index])
            batches.append(order[first:])
            self._plan = (epoch, [batches[index] for index in draw.permutation(len(batches))])
        return self._plan[1]

    def _collate(self, chosen: np.ndarray, draw: np.random.Generator) -> SpeechBatch:
        texts = [self.token_ids[index] for index in chosen]
        items = [self.spoken[index] for index in chosen]
        text_lengths = np.array([len(ids) for ids in texts])
        code_lengths = np.array([len(item.codes) for item in items])
        text_ids = np.zeros((len(chosen), text_lengths.max()), dtype=np.int64)
        codes = np.full((len(chosen), code_lengths.max()), self.config.padding_id, dtype=np.int64)
        targets = np.full((len(chosen), code_lengths.max() + 1), IGNORED, dtype=np.int64)
        phonemes, code_words = targets.copy(), targets.copy()
        token_words = np.full_like(text_ids, -1)
        for row, (ids, item, length) in enumerate(zip(texts, items, code_lengths, strict=True)):
            text_ids[row, : len(ids)] = ids
            codes[row, :length] = self._with_wrong_codes(item.codes, draw)
            targets[row, :length] = item.codes
            targets[row, length] = self.config.end_id
            phonemes[row, :length] = item.phonemes
            tokens, places = self._words[chosen[row]]
            if tokens is not None and places is not None:
                token_words[row, : len(ids)] = tokens
                code_words[row, :length] = places
        arrays = (text_ids, text_lengths, codes, code_lengths, targets, phonemes, token_words, code_words)
        return SpeechBatch(*map(torch.from_numpy, arrays))

    def _with_wrong_codes(self, codes: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Replace a share of the codes: in use the decoder reads its own mistakes."""
        wrong = draw.random(len(codes)) < self.recipe.wrong_codes
        return np.where(wrong, draw.integers(0, self.config.num_codes, len(codes)), codes)
