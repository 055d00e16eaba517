"""Text and codes of every rendered sentence: what the speech decoder learns from, cached as one file a set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .acoustic_units import SAMPLES_PER_CODE, AcousticUnits, whole_codes
from .voice import Utterance
from .voice_stream import VoiceStream


@dataclass(frozen=True)
class SpokenText:
    """One sentence as the speech decoder sees it.

    Attributes:
        text: lower-case piece of a reply, or a practice sentence.
        codes: (t,) int16, 40 a second.
        phonemes: (t,) int16, what is spoken in the middle of each code.
    """

    text: str
    codes: np.ndarray
    phonemes: np.ndarray


def encode_utterances(units: AcousticUnits, utterances: Iterable[Utterance]) -> list[SpokenText]:
    """Each utterance by itself, so that its codes do not depend on what it was batched with."""
    spoken = []
    for utterance in utterances:
        codes = units.encode(sound_of_codes(utterance)).numpy().astype(np.int16)
        phonemes = phonemes_of_codes(utterance, len(codes)).astype(np.int16)
        spoken.append(SpokenText(utterance.text, codes, phonemes))
    return spoken


def sound_of_codes(utterance: Utterance) -> Tensor:
    """(n,) samples in -1 … 1, n a multiple of 600."""
    return torch.from_numpy(whole_codes(utterance.samples).astype(np.float32) / 32768)


def phonemes_of_codes(utterance: Utterance, count: int) -> np.ndarray:
    """(count,) int64: what is spoken in the middle of each code."""
    return VoiceStream([utterance]).phonemes_at((np.arange(count) + 0.5) * SAMPLES_PER_CODE)


def write_spoken(path: Path, spoken: Sequence[SpokenText]) -> None:
    """One npz file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        texts=np.array([item.text for item in spoken]),
        codes=np.concatenate([item.codes for item in spoken]),
        phonemes=np.concatenate([item.phonemes for item in spoken]),
        ends=np.cumsum([len(item.codes) for item in spoken]),
    )
    os.replace(partial, path)


def read_spoken(path: Path) -> list[SpokenText]:
    """What :func:`write_spoken` wrote."""
    with np.load(path, allow_pickle=False) as file:
        cuts = file["ends"][:-1]
        rows = zip(file["texts"], np.split(file["codes"], cuts), np.split(file["phonemes"], cuts), strict=True)
        return [SpokenText(str(text), codes, phonemes) for text, codes, phonemes in rows]
