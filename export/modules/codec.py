"""Codec decoder: codes → 24 kHz samples, in the TiCodec layout with a HiFi-GAN generator.

TiCodec (Ren et al. 2023) describes a voice by a few fixed *global* tokens and the speech by 40 codes a second; the
generator is HiFi-GAN's (Kong et al. 2020). Parameters keep the weight norm they were trained with, under the released
names (`weight_g`, `weight_v`); `fold_weight_norm` turns them into plain weights, in fp32, for export, and
`upsample_by_phases` the transposed convolutions into plain ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sottovoce.export.config import CodecConfig
from sottovoce.export.modules.phase_convolution import PhaseConvolution

LEAK = 0.1
"""Slope of every leaky ReLU in the generator."""


class NormedConv(nn.Module):
    """A one-dimensional convolution with weight norm over dimension 0, plain or transposed.

    Both kinds normalize over the first axis of the weight, which in a transposed convolution is the *input* channel.
    """

    def __init__(
        self, channels: tuple[int, int], kernel: int, *, dilation: int = 1, stride: int = 1, transposed: bool = False
    ) -> None:
        super().__init__()
        self.dilation, self.stride, self.transposed = dilation, stride, transposed
        self.kernel = kernel
        inputs, outputs = channels
        shape = (inputs, outputs, kernel) if transposed else (outputs, inputs, kernel)
        direction = torch.randn(shape) / math.sqrt(inputs * kernel / (stride if transposed else 1))
        self.weight_v = nn.Parameter(direction)
        self.weight_g = nn.Parameter(_norm_over_first(direction))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.weight: Tensor | None = None

    def fold(self) -> None:
        """Replace the two parametrizing tensors by the weight they make (fp32)."""
        if self.weight is None:
            folded = self._normed(self.weight_g.detach().float(), self.weight_v.detach().float())
            del self.weight_g, self.weight_v, self.weight
            self.register_parameter("weight", nn.Parameter(folded))
            self.bias.data = self.bias.data.float()

    def by_phases(self) -> PhaseConvolution:
        """A folded transposed convolution, spelled as a plain one."""
        assert self.weight is not None  # noqa: S101  # the one caller has folded
        return PhaseConvolution(self.weight.detach(), self.bias.detach(), self.stride, self._padding)

    @property
    def _padding(self) -> int:
        """Zeros on either side of the signal, or samples cut off at either end when transposed."""
        return (self.kernel - self.stride) // 2 if self.transposed else self.dilation * (self.kernel - 1) // 2

    @staticmethod
    def _normed(scale: Tensor, direction: Tensor) -> Tensor:
        return direction * (scale / _norm_over_first(direction))

    def forward(self, signal: Tensor) -> Tensor:
        """(B, inputs, n) → (B, outputs, n), or (B, outputs, n · stride) when transposed."""
        weight = self.weight if self.weight is not None else self._normed(self.weight_g, self.weight_v)
        if self.transposed:
            return F.conv_transpose1d(signal, weight, self.bias, self.stride, self._padding)
        return F.conv1d(signal, weight, self.bias, padding=self._padding, dilation=self.dilation)


def _norm_over_first(direction: Tensor) -> Tensor:
    return direction.flatten(1).norm(dim=1).reshape(-1, 1, 1)


class ResidualBlock1(nn.Module):
    """HiFi-GAN's block type 1: for each dilation a dilated and a plain convolution, added."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        both = (channels, channels)
        self.convs1 = nn.ModuleList(NormedConv(both, kernel, dilation=dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(NormedConv(both, kernel) for _ in dilations)

    def forward(self, signal: Tensor) -> Tensor:
        """(B, channels, n) → the same."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            signal = signal + plain(F.leaky_relu(dilated(F.leaky_relu(signal, LEAK)), LEAK))
        return signal


class ResidualBlock2(nn.Module):
    """HiFi-GAN's block type 2: for each dilation one convolution, added."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(NormedConv((channels, channels), kernel, dilation=d) for d in dilations)

    def forward(self, signal: Tensor) -> Tensor:
        """(B, channels, n) → the same."""
        for dilated in self.convs:
            signal = signal + dilated(F.leaky_relu(signal, LEAK))
        return signal


class Generator(nn.Module):
    """HiFi-GAN's generator; the voice's global features are added where the channel count equals their width."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        width = config.upsample_initial_channel
        block = ResidualBlock1 if config.resblock_kind == "1" else ResidualBlock2
        self.conv_pre = NormedConv((config.code_width, width), 7)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            self.ups.append(NormedConv((width, width // 2), kernel, stride=rate, transposed=True))
            width //= 2
            shapes = zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
            self.resblocks.extend(block(width, size, dilations) for size, dilations in shapes)
        self.conv_post = NormedConv((width, 1), 7)

    def forward(self, features: Tensor, voice: Tensor) -> Tensor:
        """Codebook rows (B, code_width, n) and voice (B, global_width) → samples (B, n · samples_per_code)."""
        signal = self.conv_pre(features)
        blocks = len(self.config.resblock_kernel_sizes)
        for stage, upsample in enumerate(self.ups):
            signal = upsample(F.leaky_relu(signal, LEAK))
            refined = [block(signal) for block in self.resblocks[stage * blocks : (stage + 1) * blocks]]
            signal = sum(refined[1:], start=refined[0]) / len(refined)
            if signal.shape[1] == self.config.global_width:
                signal = signal + voice[:, :, None]
        return torch.tanh(self.conv_post(F.leaky_relu(signal, LEAK)))[:, 0]

    def receptive_field_codes(self) -> int:
        """How many codes on each side of a code its samples depend on, followed back through every convolution."""
        config = self.config
        first, last = 0, config.samples_per_code - 1  # the samples of code 0
        first, last = first - 3, last + 3  # conv_post: kernel 7
        for rate, kernel in zip(reversed(config.upsample_rates), reversed(config.upsample_kernel_sizes), strict=True):
            reach = max(self._block_reach(size, dilations) for size, dilations in self._block_shapes())
            padding = (kernel - rate) // 2
            first = -((kernel - 1 - padding - (first - reach)) // rate)  # rounded up
            last = (last + reach + padding) // rate
        return max(3 - first, last + 3)  # conv_pre: kernel 7

    def _block_shapes(self) -> list[tuple[int, tuple[int, ...]]]:
        return list(zip(self.config.resblock_kernel_sizes, self.config.resblock_dilation_sizes, strict=True))

    def _block_reach(self, kernel: int, dilations: tuple[int, ...]) -> int:
        plain = len(dilations) if self.config.resblock_kind == "1" else 0
        return (kernel - 1) // 2 * (sum(dilations) + plain)


class Codebook(nn.Module):
    """One table of code vectors; the level `embedding` is part of the released names."""

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, width)


class Quantizer(nn.Module):
    """The decoding half of the group-residual quantizer: codes → rows, and the voice's global tokens → features."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        width = config.code_width // config.code_groups
        for layer in range(config.residual_layers):
            books = nn.ModuleList(Codebook(config.num_codes, width) for _ in range(config.code_groups))
            self.add_module(_layer_name(layer), books)
        voice_width = config.global_width // len(config.global_tokens)
        self.quantizer_modules_globaltokens = nn.ModuleList(
            Codebook(config.num_codes, voice_width) for _ in config.global_tokens
        )
        self.register_buffer("global_tokens", torch.tensor(config.global_tokens), persistent=False)

    def rows(self, codes: Tensor) -> Tensor:
        """Codes (B, n) or (B, n, layers · groups) → codebook rows (B, code_width, n), residual layers summed."""
        codes = codes[:, :, None] if codes.dim() == 2 else codes
        groups = self.config.code_groups
        total: Tensor | None = None
        for layer in range(self.config.residual_layers):
            books = self.get_submodule(_layer_name(layer)).children()
            # A ModuleList is typed as holding Modules; these are Codebooks.
            parts = [book.embedding(codes[:, :, layer * groups + g]) for g, book in enumerate(books)]  # type: ignore[union-attr,operator]
            rows = torch.cat(parts, dim=-1)
            total = rows if total is None else total + rows
        assert total is not None  # noqa: S101  # the configuration reader refuses zero layers
        return total.transpose(1, 2)

    def voice(self) -> Tensor:
        """The checkpoint's fixed speaker as features (1, global_width)."""
        tables = self.quantizer_modules_globaltokens
        # Typed as Modules, as above.
        parts = [table.embedding(self.global_tokens[i : i + 1]) for i, table in enumerate(tables)]  # type: ignore[operator,index]
        return torch.cat(parts, dim=-1)


def _layer_name(layer: int) -> str:
    return "quantizer_modules" if layer == 0 else f"quantizer_modules{layer + 1}"


class CodecDecoder(nn.Module):
    """Codes → waveform. State names are those of the released codec's `generator` and `quantizer`."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Generator(config)
        self.quantizer = Quantizer(config)

    def forward(self, codes: Tensor) -> Tensor:
        """(B, n) int64, or (B, n, layers · groups) → samples (B, n · samples_per_code) in -1…1."""
        return self.generate(self.quantizer.rows(codes))

    def generate(self, features: Tensor) -> Tensor:
        """Codebook rows (B, code_width, n) → samples: what codec training calls with its own quantizer's output."""
        voice = self.quantizer.voice().expand(features.shape[0], -1)
        samples: Tensor = self.generator(features, voice)
        return samples

    @property
    def receptive_field_codes(self) -> int:
        """Codes of context on each side that a sample depends on."""
        return self.generator.receptive_field_codes()

    def load_released_state(self, state: Mapping[str, Tensor]) -> None:
        """Load a released state (often fp16) in fp32, strictly."""
        self.load_state_dict({name: tensor.float() for name, tensor in state.items()})

    def fold_weight_norm(self) -> CodecDecoder:
        """Turn every normed convolution into a plain one, for export; training is over after this."""
        for module in self.modules():
            if isinstance(module, NormedConv):
                module.fold()
        return self

    def upsample_by_phases(self) -> CodecDecoder:
        """Spell the transposed convolutions as plain ones, after folding: see `PhaseConvolution`."""
        # A ModuleList is typed as holding Modules; these are NormedConvs.
        self.generator.ups = nn.ModuleList(up.by_phases() for up in self.generator.ups)  # type: ignore[operator,union-attr]
        return self
