"""Batches of spoken features: of similar length, drawn from the step's own dice, disturbed a little more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sottovoce.demos.miniature.speech_in import MEL_BINS, Spoken, read_shard, shard_path
from sottovoce.runtime.errors import SottovoceError

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
FLOOR = -15.9424  # Kaldi's log floor: what digital silence gives


class SpeechData:
    """The utterances of the first shards of a folder, in memory; a longer training may ask for more of them later."""

    def __init__(self, folder: Path, shards: int) -> None:
        self.folder, self.shards = folder, 0
        self.spoken: list[Spoken] = []
        self.lengths = np.zeros(0, np.int64)
        self.require(shards)

    def require(self, shards: int) -> None:
        """Load up to so many shards.

        Raises:
            SottovoceError: one of them has not been made.
        """
        if shards <= self.shards:
            return
        paths = [shard_path(self.folder, number) for number in range(self.shards, shards)]
        missing = [path for path in paths if not path.exists()]
        if missing:
            raise SottovoceError(
                f"{len(missing)} of {len(paths)} shards of speech are not there, the first is {missing[0].name}",
                file=str(missing[0]), fix="make them with: python -m sottovoce.demos.miniature data",
            )  # fmt: skip
        self.spoken += [one for path in paths for one in read_shard(path)]
        self.lengths = np.array([len(one.features) for one in self.spoken])
        self.shards = shards

    def statistics(self) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Sums, sums of squares and frames over all features, as a `global_cmvn` file holds them."""
        total, squares, frames = np.zeros(MEL_BINS), np.zeros(MEL_BINS), 0
        for one in self.spoken:
            wide = one.features.astype(np.float64)
            total, squares, frames = total + wide.sum(0), squares + (wide**2).sum(0), frames + len(wide)
        return total, squares, frames

    def draw(self, size: int, dice: np.random.Generator, among: NDArray[np.int64] | None = None) -> list[Spoken]:
        """`size` utterances of about the same length (of those in `among`)."""
        pool = among if among is not None else np.arange(len(self.spoken))
        candidates = pool[dice.integers(len(pool), size=4 * size)]
        candidates = candidates[np.argsort(self.lengths[candidates], kind="stable")]
        start = size * int(dice.integers(4))
        return [self.spoken[i] for i in candidates[start : start + size]]


@dataclass(frozen=True)
class Disturbance:
    """How strongly features are disturbed while training; 0 everywhere leaves them alone."""

    mask_bins: int = 6
    mask_frames: int = 6
    shift_bins: float = 3.0
    stretch: float = 0.12
    """Formants move apart or together by up to this share: other throats (Jaitly and Hinton 2013)."""
    noise_floor: float = 1.5


def _warp(features: NDArray[np.float32], stretch: float, shift: float) -> NDArray[np.float32]:
    """Bin b is read at its distance from the middle times `stretch`, plus `shift`; edges are held."""
    middle = (MEL_BINS - 1) / 2
    places = ((np.arange(MEL_BINS) - middle) * stretch + middle + shift).clip(0, MEL_BINS - 1)
    below = np.minimum(places.astype(int), MEL_BINS - 2)
    share = (places - below).astype(np.float32)
    warped: NDArray[np.float32] = features[:, below] * (1 - share) + features[:, below + 1] * share
    return warped


def disturb(features: NDArray[np.float32], how: Disturbance, dice: np.random.Generator) -> NDArray[np.float32]:
    """Warp the mel axis, raise the noise floor, blank a few bins and frames."""
    frames = len(features)
    features = _warp(
        features, 1 + dice.uniform(-how.stretch, how.stretch), dice.uniform(-how.shift_bins, how.shift_bins)
    )
    if how.noise_floor and dice.random() < 0.5:
        floor = np.quantile(features, 0.1) + dice.uniform(-2, how.noise_floor)
        features = np.logaddexp(features, floor + dice.normal(0, 0.7, features.shape))
    features = features.astype(np.float32).copy()
    mean = features.mean()
    for _ in range(2):
        width, high = int(dice.integers(how.mask_bins + 1)), int(dice.integers(how.mask_frames + 1))
        bin_start, frame_start = int(dice.integers(MEL_BINS - width)), int(dice.integers(max(1, frames - high)))
        features[:, bin_start : bin_start + width] = mean
        features[frame_start : frame_start + high] = mean
    return features


def collate(spoken: Sequence[Spoken], how: Disturbance | None, dice: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(B, T, 80) features, padded with silence, and (B,) lengths; all are at least long enough for one token."""
    wide = [one.features.astype(np.float32) for one in spoken]
    if how is not None:
        wide = [disturb(features, how, dice) for features in wide]
    lengths = torch.tensor([len(features) for features in wide])
    batch = torch.full((len(wide), int(lengths.max()), MEL_BINS), FLOOR)
    for row, features in zip(batch, wide, strict=True):
        row[: len(features)] = torch.from_numpy(features)
    return batch, lengths


def letters_of(text: str) -> list[int]:
    """Labels for character CTC: 1 for `a`; 0 is the blank; no spaces."""
    return [LETTERS.index(letter) + 1 for letter in text if letter in LETTERS]
