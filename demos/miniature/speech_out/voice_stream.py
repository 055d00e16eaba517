"""Rendered sentences joined to one long sound, from which training cuts segments, with the phoneme at each place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .voice import Utterance

_STRESS = (120, 121)
_LENGTH = 122


class VoiceStream:
    """``samples`` (n,) int16 at 24 kHz, and :meth:`phonemes_at` any of them."""

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        self.samples = np.concatenate([utterance.samples for utterance in utterances])
        starts = np.cumsum([0] + [len(utterance.samples) for utterance in utterances[:-1]])
        self._ends = np.concatenate(
            [
                start + np.cumsum(u.phoneme_samples, dtype=np.float64)
                for start, u in zip(starts, utterances, strict=True)
            ]
        )
        self._phonemes = np.concatenate([spoken_phonemes(utterance.phonemes) for utterance in utterances])

    def phonemes_at(self, positions: np.ndarray) -> np.ndarray:
        """Phoneme ids (int64) spoken at sample ``positions`` (any shape)."""
        index = np.searchsorted(self._ends, positions, side="right")
        return self._phonemes[np.minimum(index, len(self._phonemes) - 1)].astype(np.int64)

    def segments(self, draw: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """``count`` random cuts: (count, length) float32 in -1 … 1, and their first positions (count,)."""
        starts = draw.integers(0, len(self.samples) - length, count)
        cuts = np.stack([self.samples[start : start + length] for start in starts])
        return cuts.astype(np.float32) / 32768, starts


def spoken_phonemes(phonemes: np.ndarray) -> np.ndarray:
    """Piper spells stress and length as symbols of their own; here they become the vowel they belong to."""
    spoken = phonemes.copy()
    for index in range(len(spoken) - 2, -1, -1):
        if spoken[index] in _STRESS:
            spoken[index] = spoken[index + 1]
    for index in range(1, len(spoken)):
        if spoken[index] == _LENGTH:
            spoken[index] = spoken[index - 1]
    return spoken
