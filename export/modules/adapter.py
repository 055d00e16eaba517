"""From the audio encoder's frames to the language model's width: the three adapters of the layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sottovoce.export.config import AdapterConfig

NORM_EPS = 1e-3


@dataclass(frozen=True)
class AdapterStream:
    """How an adapter hears an utterance in several calls.

    Args:
        least_frames: encoder frames that the first call needs, if the utterance does not end with it.
        step_frames: calls that do not end the utterance take a multiple of so many.
        tail_frames: zeros that stand in for the frames before the first; None: no frame is needed a second time.
        padding: rows of zeros behind the utterance's end, and their channels.
    """

    least_frames: int = 1
    step_frames: int = 1
    tail_frames: int | None = None
    padding: tuple[int, int] = (0, 0)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a (B, C, T) tensor."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T)."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def _zero_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """(B, C, T) with the frames outside their item set to zero, as a single utterance's padding is."""
    return x if mask is None else torch.where(mask[:, None, :], x, 0.0)


def _norm(kind: str, channels: int) -> nn.Module:
    return ChannelNorm(channels, eps=NORM_EPS) if kind == "layer" else nn.BatchNorm1d(channels, eps=NORM_EPS)


class SubsamplingAdapter(nn.Module):
    """A convolution of stride 2 with its padding on the right, a norm, an activation and a projection.

    Where four times the encoder's width is less than the language model's, the layout puts a causal convolution of
    stride 1 in front, and both are followed by BatchNorm and ReLU whatever the configuration says.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.padding = config.kernel_size - 1
        width = config.encoder_size
        self.widens_first = config.widens_first
        if self.widens_first:
            self.conv1d1 = nn.Conv1d(width, 2 * width, config.kernel_size)
            self.bn1 = _norm("batch", 2 * width)
            width = 2 * width
        self.conv1d2 = nn.Conv1d(width, 2 * width, config.kernel_size, stride=2)
        self.bn2 = _norm("batch" if self.widens_first else config.norm, 2 * width)
        self.activation = nn.GELU() if config.activation == "gelu" and not self.widens_first else nn.ReLU()
        self.project = nn.Linear(2 * width, config.llm_hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, M, d) frames, (B, M) bool or None → (B, ceil(M / 2), llm)."""
        x = _zero_padding(x.transpose(1, 2), mask)
        if self.widens_first:
            x = self.activation(self.bn1(self.conv1d1(F.pad(x, (self.padding, 0)))))
            x = _zero_padding(x, mask)
        return self._halved(F.pad(x, (0, self.padding)))

    def stream(self, x: Tensor, tail: Tensor, padding: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings that are certain once M more frames are there, and the frames that later ones need, too.

        Args:
            x: (1, M, d) frames.
            tail: (1, T, d) what the call before gave; at first what `stream_shape` says.
            padding: (1, P, channels) zeros behind the utterance's end; no rows while it goes on.
            position: place of the first new frame; not needed here.
        """
        frames = torch.cat((tail, x), dim=1)
        widened = frames.transpose(1, 2)
        if self.widens_first:
            widened = self.activation(self.bn1(self.conv1d1(widened)))
        embeddings = self._halved(torch.cat((widened, padding.transpose(1, 2)), dim=2))
        done = torch.sym_min(2 * embeddings.shape[1], frames.shape[1])
        return embeddings, frames[:, done:]

    @property
    def stream_shape(self) -> AdapterStream:
        """What `stream` needs."""
        return AdapterStream(
            least_frames=self.padding + 1,
            step_frames=2,
            tail_frames=self.padding if self.widens_first else 0,
            padding=(self.padding, self.conv1d2.in_channels),
        )

    def _halved(self, x: Tensor) -> Tensor:
        """(B, C, T) frames with their padding → (B, N, llm)."""
        return self.project(self.activation(self.bn2(self.conv1d2(x))).transpose(1, 2))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Embeddings of items of so many encoder frames."""
        return (lengths + 1) // 2


class CnnAdapter(nn.Module):
    """Two causal convolutions of stride 1 with BatchNorm and ReLU, and a projection: one embedding a frame."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.padding = config.kernel_size - 1
        width = config.encoder_size
        self.conv1d1 = nn.Conv1d(width, 2 * width, config.kernel_size)
        self.bn1 = _norm("batch", 2 * width)
        self.conv1d2 = nn.Conv1d(2 * width, 4 * width, config.kernel_size)
        self.bn2 = _norm("batch", 4 * width)
        self.project = nn.Linear(4 * width, config.llm_hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, M, d) frames, (B, M) bool or None → (B, M, llm)."""
        x = _zero_padding(x.transpose(1, 2), mask)
        x = F.relu(self.bn1(self.conv1d1(F.pad(x, (self.padding, 0)))))
        return self._projected(F.pad(x, (self.padding, 0)))

    def stream(self, x: Tensor, tail: Tensor, padding: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """As `SubsamplingAdapter.stream`; all embeddings are certain at once.

        The first convolution is computed again for the places that the second one looks back at. Before the
        utterance's start, these are zero.
        """
        frames = torch.cat((tail, x), dim=1)
        widened = F.relu(self.bn1(self.conv1d1(frames.transpose(1, 2))))
        places = position - self.padding + torch.arange(widened.shape[2], device=x.device)
        return self._projected(torch.where(places >= 0, widened, 0.0)), frames[:, x.shape[1] :]

    @property
    def stream_shape(self) -> AdapterStream:
        """What `stream` needs."""
        return AdapterStream(tail_frames=2 * self.padding or None)

    def _projected(self, x: Tensor) -> Tensor:
        """(B, C, T) once widened frames with their padding → (B, M, llm)."""
        return self.project(F.relu(self.bn2(self.conv1d2(x))).transpose(1, 2))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Embeddings of items of so many encoder frames."""
        return lengths


class LinearAdapter(nn.Module):
    """One linear layer: one embedding a frame."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.adpter = nn.Linear(config.encoder_size, config.llm_hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, M, d) frames, (B, M) bool or None → (B, M, llm)."""
        return self.adpter(x)

    def stream(self, x: Tensor, tail: Tensor, padding: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """As `SubsamplingAdapter.stream`; nothing is looked back at."""
        return self.adpter(x), tail

    @property
    def stream_shape(self) -> AdapterStream:
        """What `stream` needs."""
        return AdapterStream()

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Embeddings of items of so many encoder frames."""
        return lengths


Adapter = SubsamplingAdapter | CnnAdapter | LinearAdapter


def build_adapter(config: AdapterConfig) -> Adapter:
    """The adapter a configuration names.

    Raises:
        ValueError: the kind is none of `subsampling`, `cnn` and `linear`.
    """
    if config.kind == "subsampling":
        return SubsamplingAdapter(config)
    if config.kind == "cnn":
        return CnnAdapter(config)
    if config.kind == "linear":
        return LinearAdapter(config)
    raise ValueError(f"unknown adapter {config.kind!r}: expected subsampling, cnn or linear")
