"""The half of the codec that only training needs: sound to codes.

A convolutional encoder on log-mels and finite scalar quantization (FSQ, Mentzer et al. 2023): five numbers a code,
four levels each, so 4⁵ = 1,024 codes without a codebook to learn, to start or to keep alive. A small network turns
the five levels into the 512-wide row the generator reads; :meth:`CodeEncoder.codebook` is that network's value for
every code, which is all that a packed checkpoint keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SAMPLE_RATE = 24_000
SAMPLES_PER_CODE = 600
_HOP = 200
_MELS_PER_CODE = SAMPLES_PER_CODE // _HOP
_FFT = 1024


@dataclass(frozen=True)
class CodeEncoderConfig:
    """Sizes of the encoder; ``levels ** digits`` is the number of codes."""

    width: int = 192
    blocks: int = 6
    kernel_size: int = 7
    digits: int = 5
    levels: int = 4
    code_width: int = 512
    mel_bins: int = 80
    phonemes: int = 160

    @property
    def num_codes(self) -> int:
        """How many different codes there are."""
        return int(self.levels**self.digits)


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

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("filterbank", mel_filterbank(bins, _FFT, SAMPLE_RATE, 0, 10_000), persistent=False)
        self.register_buffer("window", torch.hann_window(_FFT), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Log of the mel-weighted magnitudes, floored at 1e-5."""
        margin = (_FFT - _HOP) // 2
        padded = nn.functional.pad(samples, (margin, margin))
        spectrum = torch.stft(padded, _FFT, _HOP, window=self.window, center=False, return_complex=True).abs()
        return torch.log((self.filterbank.T @ spectrum * 40).clamp(min=1e-5))


class _Block(nn.Module):
    """Depthwise convolution over time, then a two-layer network at each place (ConvNeXt, Liu et al. 2022)."""

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 3 * width)
        self.shrink = nn.Linear(3 * width, width)
        nn.init.normal_(self.shrink.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).transpose(1, 2))
        return x + self.shrink(nn.functional.gelu(self.grow(y))).transpose(1, 2)


class _Spread(nn.Module):
    """Numbers of any scale to an even use of -1 … 1: standardized, then through the normal distribution's own curve.

    Without it the digits learn to sit at the two ends, and of 10 bits 6.6 are used.
    """

    def __init__(self, digits: int, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(digits))
        self.register_buffer("variance", torch.zeros(digits))

    def forward(self, x: Tensor) -> Tensor:
        """(…, digits) to the same, in -1 … 1."""
        x = x.float()
        if self.training:
            with torch.no_grad():
                variance, mean = torch.var_mean(x.flatten(0, -2), dim=0)
                weight = self.momentum if self.variance.any() else 1.0
                self.mean.lerp_(mean, weight)
                self.variance.lerp_(variance, weight)
        return torch.erf((x - self.mean) / torch.sqrt(2 * self.variance + 1e-6))


class CodeEncoder(nn.Module):
    """Samples to codes, and codes to the generator's input rows."""

    def __init__(self, config: CodeEncoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.log_mel = LogMel(config.mel_bins)
        self.widen = nn.Conv1d(config.mel_bins, width, 5, padding=2)
        self.to_code_rate = nn.Conv1d(width, width, _MELS_PER_CODE, stride=_MELS_PER_CODE)
        self.blocks = nn.Sequential(*(_Block(width, config.kernel_size) for _ in range(config.blocks)))
        self.to_digits = nn.Linear(width, config.digits)
        self.spread = _Spread(config.digits)
        self.from_digits = nn.Sequential(
            nn.Linear(config.digits, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, config.code_width),
        )
        self.phoneme_head = nn.Conv1d(config.code_width, config.phonemes, 3, padding=1)

    def digits(self, samples: Tensor) -> Tensor:
        """(batch, n) samples, n a multiple of 600, to (batch, n / 600, digits) in -1 … 1, not yet rounded."""
        x = (self.log_mel(samples) + 4.0) / 3.0
        x = self.to_code_rate(nn.functional.gelu(self.widen(x)))
        return self.spread(self.to_digits(self.blocks(x).transpose(1, 2)))  # type: ignore[no-any-return]

    def quantize(self, digits: Tensor) -> Tensor:
        """Round to the nearest level; the gradient passes as if nothing had been rounded."""
        steps = self.config.levels - 1
        rounded = torch.round((digits + 1) * steps / 2) * 2 / steps - 1
        return digits + (rounded - digits).detach()

    def rows(self, samples: Tensor) -> Tensor:
        """(batch, n) samples to (batch, n / 600, 512) rows for the generator, differentiable."""
        return self.from_digits(self.quantize(self.digits(samples)))

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """(batch, n) samples to (batch, n / 600) codes."""
        steps = self.config.levels - 1
        digits = torch.round((self.digits(samples) + 1) * steps / 2).long()
        places = self.config.levels ** torch.arange(self.config.digits)
        return (digits * places).sum(-1)

    def codebook(self) -> Tensor:
        """(num_codes, 512): the row of every code."""
        steps = self.config.levels - 1
        codes = torch.arange(self.config.num_codes)[:, None]
        digits = codes // self.config.levels ** torch.arange(self.config.digits) % self.config.levels
        return self.from_digits(digits * 2 / steps - 1)
