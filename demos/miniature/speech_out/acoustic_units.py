"""The half of the codec that only its making needs: sound to codes, by clustering instead of training.

A code is the nearest of 1,024 centres (k-means) to what is heard in 25 ms: the principal components of three log-mel
frames, and linear discriminants of a wider window, which separate phonemes (Piper says when each is spoken). That
takes a minute. Encoders trained together with the generator were tried first: after 1,000 steps with finite scalar
quantization a code told 1.8 nats about the phoneme and missed the log-mels by 0.60; these tell 2.2 and miss by 0.42,
from the start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .voice import SAMPLE_RATE, Utterance
from .voice_stream import VoiceStream

SAMPLES_PER_CODE = 600
_HOP = 200
_FRAMES = SAMPLES_PER_CODE // _HOP
_FFT = 1024
_QUIETEST = -5.0
"""Log-mels below this are silence, and silence should not use up codes."""


@dataclass(frozen=True)
class UnitSettings:
    """How the centres are found; ``phonetic_weight``: what discriminants count beside principal components."""

    codes: int = 1024
    mel_bins: int = 80
    spectral_size: int = 48
    context_size: int = 100
    phonetic_size: int = 24
    phonetic_weight: float = 0.6
    rounds: int = 30
    samples: int = 100_000
    seed: int = 0


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
    """Samples to codes: one linear map of the log-mels around a code's 25 ms, and the nearest centre."""

    mean: Tensor
    projection: Tensor
    centres: Tensor
    spectra: Tensor

    def __init__(self, settings: UnitSettings) -> None:
        super().__init__()
        self.settings = settings
        self.log_mel = LogMel(settings.mel_bins)
        window = 3 * _FRAMES * settings.mel_bins
        features = settings.spectral_size + settings.phonetic_size
        self.register_buffer("mean", torch.zeros(window))
        self.register_buffer("projection", torch.zeros(window, features))
        self.register_buffer("centres", torch.zeros(settings.codes, features))
        self.register_buffer("spectra", torch.zeros(settings.codes, _FRAMES * settings.mel_bins))

    def windows(self, samples: Tensor) -> Tensor:
        """(batch, n) samples, n a multiple of 600, to (batch, n / 600, 720): log-mels of a code and its neighbours."""
        frames = self.log_mel(samples).transpose(1, 2).clamp(min=_QUIETEST)
        own = frames.reshape(len(samples), -1, _FRAMES * self.settings.mel_bins)
        padded = torch.cat([own[:, :1], own, own[:, -1:]], dim=1)
        return torch.cat([padded[:, :-2], own, padded[:, 2:]], dim=2)

    def features(self, samples: Tensor) -> Tensor:
        """(batch, n) samples in -1 … 1 to (batch, n / 600, 72): what codes are told apart by."""
        features: Tensor = (self.windows(samples) - self.mean) @ self.projection
        return features

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """(n,) samples in -1 … 1, n a multiple of 600, to (n / 600,) codes."""
        return nearest(self.features(samples[None])[0], self.centres)

    def first_codebook(self, width: int, seed: int = 0) -> Tensor:
        """(codes, width): each code's mean log-mels, spread over the width, for the generator to start from."""
        spectra = (self.spectra - self.spectra.mean(0)) / self.spectra.std()
        spread = torch.randn(spectra.shape[1], width, generator=torch.Generator().manual_seed(seed))
        return spectra @ spread / math.sqrt(spectra.shape[1])


def whole_codes(samples: np.ndarray) -> np.ndarray:
    """Zeros to the next multiple of 600 samples."""
    return np.pad(samples, (0, -len(samples) % SAMPLES_PER_CODE))


def nearest(features: Tensor, centres: Tensor) -> Tensor:
    """Index of the centre (k, d) next to each row of (n, d)."""
    return (centres.square().sum(1) - 2 * features @ centres.T).argmin(1)


def find_units(utterances: Sequence[Utterance], settings: UnitSettings) -> AcousticUnits:
    """Fit the linear map and the centres to a voice."""
    units = AcousticUnits(settings)
    windows, phonemes = [], []
    for utterance in utterances:
        samples = torch.from_numpy(whole_codes(utterance.samples).astype(np.float32) / 32768)
        windows.append(units.windows(samples[None])[0])
        places = (np.arange(len(windows[-1])) + 0.5) * SAMPLES_PER_CODE
        phonemes.append(VoiceStream([utterance]).phonemes_at(places))
    heard, spoken = torch.cat(windows), torch.from_numpy(np.concatenate(phonemes))
    units.mean.copy_(heard.mean(0))
    units.projection.copy_(_projection(heard - units.mean, spoken, settings))
    dice = torch.Generator().manual_seed(settings.seed)
    features = (heard - units.mean) @ units.projection
    drawn = features[torch.randperm(len(features), generator=dice)[: settings.samples]]
    units.centres.copy_(k_means(drawn, settings.codes, settings.rounds, dice))
    own = slice(_FRAMES * settings.mel_bins, 2 * _FRAMES * settings.mel_bins)
    units.spectra.copy_(_means(heard[:, own], nearest(features, units.centres), settings.codes)[0])
    return units


def k_means(points: Tensor, count: int, rounds: int, dice: torch.Generator) -> Tensor:
    """``count`` centres of (n, d) points by Lloyd's algorithm; a centre without points moves to a random one."""
    centres = points[torch.randperm(len(points), generator=dice)[:count]].clone()
    for _ in range(rounds):
        means, sizes = _means(points, nearest(points, centres), count)
        spare = points[torch.randint(len(points), (count,), generator=dice)]
        centres = torch.where(sizes[:, None] > 0, means, spare)
    return centres


def _means(points: Tensor, groups: Tensor, count: int) -> tuple[Tensor, Tensor]:
    sizes = torch.bincount(groups, minlength=count)
    sums = torch.zeros(count, points.shape[1]).index_add_(0, groups, points)
    return sums / sizes.clamp(min=1)[:, None], sizes


def _projection(centred: Tensor, phonemes: Tensor, settings: UnitSettings) -> Tensor:
    """(720, features): principal components of the middle window, and discriminants of the whole."""
    own = slice(_FRAMES * settings.mel_bins, 2 * _FRAMES * settings.mel_bins)
    projection = torch.zeros(centred.shape[1], settings.spectral_size + settings.phonetic_size)
    spectral, _ = _principal(centred[:, own], settings.spectral_size)
    projection[own, : settings.spectral_size] = spectral / (centred[:, own] @ spectral).var(0).sum().sqrt()
    context, variances = _principal(centred, settings.context_size)
    white = context / variances.sqrt()
    directions = white @ _discriminants(centred @ white, phonemes, settings.phonetic_size)
    scale = settings.phonetic_weight / (centred @ directions).var(0).sum().sqrt()
    projection[:, settings.spectral_size :] = directions * scale
    return projection


def _principal(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` directions (d, count) of largest variance, and the variances."""
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    return directions[:, -count:].flip(1), variances[-count:].flip(0).clamp(min=1e-8)


def _discriminants(points: Tensor, classes: Tensor, count: int) -> Tensor:
    """(d, count) directions that separate the classes most for their spread inside (Fisher 1936), best first.

    Each is as long as the share of its variance that lies between classes.
    """
    names, index = classes.unique(return_inverse=True)
    means, sizes = _means(points, index, len(names))
    inside = points - means[index]
    within = inside.T @ inside / len(points) + 1e-3 * torch.eye(points.shape[1])
    between = (means.T * sizes) @ means / len(points)
    whiten = torch.linalg.inv(torch.linalg.cholesky(within))
    ratios, directions = torch.linalg.eigh(whiten @ between @ whiten.T)
    ratios, directions = ratios[-count:].flip(0).clamp(min=0), directions[:, -count:].flip(1)
    scaled: Tensor = whiten.T @ directions * (ratios / (1 + ratios)).sqrt()
    return scaled
