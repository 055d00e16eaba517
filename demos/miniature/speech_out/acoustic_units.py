"""The half of the codec that only its making needs: sound to codes, 40 a second.

A code is the nearest of 1,024 centres to what is heard around its 25 ms: a linear map of its own three log-mel frames,
and what a small convolutional listener makes of the frames around them, which knows the phonemes. How both are found
is in :mod:`.unit_training`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .phoneme_listener import ListenerSizes, PhonemeListener
from .voice import SAMPLE_RATE

SAMPLES_PER_CODE = 600
_HOP = 200
_FRAMES = SAMPLES_PER_CODE // _HOP
_FFT = 1024
_QUIETEST = -5.0
"""Log-mels below this are silence, and silence should not use up codes."""


@dataclass(frozen=True)
class UnitSettings:
    """Sizes of what codes are told apart by."""

    codes: int = 1024
    mel_bins: int = 80
    spectral_size: int = 48
    listener: ListenerSizes = field(default_factory=ListenerSizes)

    @property
    def frame_size(self) -> int:
        """Log-mels of a code's own 25 ms."""
        return _FRAMES * self.mel_bins


def mel_filterbank(
    bins: int, fft_size: int, sample_rate: int, low_hz: float = 0.0, high_hz: float | None = None
) -> Tensor:
    """(fft_size // 2 + 1, bins) triangles, even on the mel scale ``2595 log10(1 + f/700)``, each of area one."""
    high_hz = high_hz or sample_rate / 2
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (low_hz, high_hz))
    edges = 700 * (10 ** (torch.linspace(low, high, bins + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, sample_rate / 2, fft_size // 2 + 1, dtype=torch.float64)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * (2 / (edges[2:] - edges[:-2]))).float()


class LogMel(nn.Module):
    """Samples (batch, n) to log-mels (batch, bins, n // 200): 120 frames a second, centred, Hann window of 1,024."""

    filterbank: Tensor
    window: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("filterbank", mel_filterbank(bins, _FFT, SAMPLE_RATE, 0, 10_000), persistent=False)
        self.register_buffer("window", torch.hann_window(_FFT), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Log of the mel-weighted magnitudes."""
        margin = (_FFT - _HOP) // 2
        padded = nn.functional.pad(samples, (margin, margin))
        spectrum = torch.stft(padded, _FFT, _HOP, window=self.window, center=False, return_complex=True).abs()
        return torch.log((self.filterbank.T @ spectrum * 40).clamp(min=1e-5))


class AcousticUnits(nn.Module):
    """Samples to codes: what is heard around a code's 25 ms, and the nearest centre."""

    mean: Tensor
    scale: Tensor
    phonetic_mean: Tensor
    phonetic_scale: Tensor
    spectra: Tensor

    def __init__(self, settings: UnitSettings) -> None:
        super().__init__()
        self.settings = settings
        self.log_mel = LogMel(settings.mel_bins)
        self.listener = PhonemeListener(settings.frame_size, settings.listener)
        self.register_buffer("mean", torch.zeros(settings.frame_size))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("phonetic_mean", torch.zeros(settings.listener.phonetic_size))
        self.register_buffer("phonetic_scale", torch.ones(()))
        self.register_buffer("spectra", torch.zeros(settings.codes, settings.frame_size))
        features = settings.spectral_size + settings.listener.phonetic_size
        self.projection = nn.Parameter(torch.zeros(settings.frame_size, settings.spectral_size))
        self.centres = nn.Parameter(torch.zeros(settings.codes, features))

    def frames(self, samples: Tensor) -> Tensor:
        """(batch, n) samples in -1 … 1, n a multiple of 600, to (batch, n / 600, 240): each code's log-mels."""
        bins: Tensor = self.log_mel(samples).transpose(1, 2).clamp(min=_QUIETEST)
        return bins.reshape(len(samples), -1, self.settings.frame_size)

    def features_of(self, frames: Tensor) -> Tensor:
        """(batch, t, 240) frames to (batch, t, 80): what codes are told apart by."""
        centred = frames - self.mean
        phonetic = (self.listener(centred / self.scale) - self.phonetic_mean) * self.phonetic_scale
        return torch.cat([centred @ self.projection, phonetic], dim=-1)

    def features(self, samples: Tensor) -> Tensor:
        """(batch, n) samples to (batch, n / 600, 80), as :meth:`features_of` their frames."""
        return self.features_of(self.frames(samples))

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """(n,) samples in -1 … 1, n a multiple of 600, to (n / 600,) codes."""
        return nearest(self.features(samples[None])[0], self.centres)

    def first_codebook(self, width: int, seed: int = 0) -> Tensor:
        """(codes, width): each code's mean log-mels, spread over the width, for the generator to start from."""
        spectra = (self.spectra - self.spectra.mean(0)) / self.spectra.std()
        spread = torch.randn(spectra.shape[1], width, generator=torch.Generator().manual_seed(seed))
        return spectra @ spread / math.sqrt(spectra.shape[1])

    def write(self, path: Path) -> None:
        """In fp16, as they are to be used: so nothing changes when they are read."""
        partial = path.with_name(f"{path.name}.partial")
        save_file({name: tensor.half().contiguous() for name, tensor in self.state_dict().items()}, partial)
        partial.replace(path)

    @classmethod
    def read(cls, path: Path, settings: UnitSettings | None = None) -> AcousticUnits:
        """What :meth:`write` wrote, ready to encode with."""
        units = cls(settings or UnitSettings())
        units.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
        return units.eval().requires_grad_(False)


def whole_codes(samples: np.ndarray) -> np.ndarray:
    """Zeros to the next multiple of 600 samples."""
    return np.pad(samples, (0, -len(samples) % SAMPLES_PER_CODE))


def distances(features: Tensor, centres: Tensor) -> Tensor:
    """(…, d) features and (k, d) centres: (…, k) squared distances, less what is the same for all centres."""
    return centres.square().sum(1) - 2 * features @ centres.T


def nearest(features: Tensor, centres: Tensor) -> Tensor:
    """Index of the centre (k, d) next to each row of (n, d)."""
    return distances(features, centres).argmin(-1)
