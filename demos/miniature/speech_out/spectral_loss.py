"""How far two sounds are apart, to an ear that does not hear phase: short-time spectra at several resolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .acoustic_units import mel_filterbank
from .voice import SAMPLE_RATE


class SpectralLoss(nn.Module):
    """Mean over resolutions of: L1 of log-mels, L1 of log-magnitudes, and spectral convergence (Yamamoto et al. 2020).

    Args:
        fft_sizes: one resolution each, hop a quarter of it, Hann window.
    """

    def __init__(self, fft_sizes: tuple[int, ...] = (2048, 1024, 512, 256)) -> None:
        super().__init__()
        self.fft_sizes = fft_sizes
        for size in fft_sizes:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)
            self.register_buffer(f"mel_{size}", mel_filterbank(_mel_bins(size), size, SAMPLE_RATE).T, persistent=False)

    def forward(self, made: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """(batch, n) against (batch, n): ``{"mel", "magnitude", "convergence"}``, scalars."""
        totals = {name: made.new_zeros(()) for name in ("mel", "magnitude", "convergence")}
        for size in self.fft_sizes:
            first, second = (self._magnitudes(sound, size) for sound in (made, wanted))
            mel = getattr(self, f"mel_{size}")
            mel_floor = 1e-4
            totals["mel"] = totals["mel"] + _log_distance(mel @ first * 40, mel @ second * 40, mel_floor)
            totals["magnitude"] = totals["magnitude"] + _log_distance(first, second, 1e-2)
            norms = torch.linalg.vector_norm(second - first), torch.linalg.vector_norm(second)
            totals["convergence"] = totals["convergence"] + norms[0] / norms[1].clamp(min=1e-3)
        return {name: total / len(self.fft_sizes) for name, total in totals.items()}

    def _magnitudes(self, samples: Tensor, size: int) -> Tensor:
        window = getattr(self, f"window_{size}")
        spectrum = torch.stft(samples, size, size // 4, window=window, center=True, return_complex=True)
        return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-8)


def _mel_bins(fft_size: int) -> int:
    return {2048: 120, 1024: 80, 512: 60, 256: 40}.get(fft_size, max(fft_size // 16, 4))


def _log_distance(first: Tensor, second: Tensor, floor: float) -> Tensor:
    return (torch.log(first.clamp(min=floor)) - torch.log(second.clamp(min=floor))).abs().mean()
