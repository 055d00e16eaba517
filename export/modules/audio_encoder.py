"""The whale audio encoder (Freeze-Omni, Wang et al. 2024) with its adapter: fbank in, language-model embeddings out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sottovoce.export.config import AudioEncoderConfig
from sottovoce.export.modules.adapter import build_adapter
from sottovoce.export.modules.audio_transformer import AttendedFrames, AudioTransformer
from sottovoce.export.modules.masks import length_mask


class AudioState(NamedTuple):
    """What one call of a chunked encoder leaves to the next, of one utterance."""

    attended: AttendedFrames
    """(layers, heads, P, …): frames that later ones can still see."""
    tail: Tensor
    """(1, T, d): encoder frames that embeddings to come need."""


class GlobalCmvn(nn.Module):
    """Mean and variance normalization with the training corpus's statistics."""

    mean: Tensor
    istd: Tensor

    def __init__(self, mel_bins: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(mel_bins))
        self.register_buffer("istd", torch.ones(mel_bins))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, mel) → (B, T, mel)."""
        return (x - self.mean) * self.istd


class ConvSubsamplingCore(nn.Module):
    """Two 3×3 convolutions of stride 2 over (time, mel), and a projection."""

    def __init__(self, mel_bins: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, size, 3, 2), nn.ReLU(), nn.Conv2d(size, size, 3, 2), nn.ReLU())
        self.out = nn.Sequential(nn.Linear(size * (((mel_bins - 1) // 2 - 1) // 2), size))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, mel) → (B, M, size)."""
        return self.out(self.conv(x[:, None]).transpose(1, 2).flatten(2))


class ConvSubsampling(nn.Module):
    """Subsampling by 4: frame j is made of fbank frames 4j to 4j + 6."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.core = ConvSubsamplingCore(config.mel_bins, config.subsampling_size)
        self.dropout = nn.Dropout(config.subsampling_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, mel), T at least 7 → (B, M, size) with M = (T - 3) // 4."""
        return self.dropout(self.core(x))


class WhaleEncoder(nn.Module):
    """Normalization, subsampling and the transformer, under the checkpoint's names."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.global_cmvn = GlobalCmvn(config.mel_bins)
        self.enc = nn.ModuleList([ConvSubsampling(config), AudioTransformer(config)])

    def forward(self, features: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, T, mel) fbank, (B,) or None → (B, M, d), (B,) or None."""
        if lengths is not None:
            features = torch.where(length_mask(lengths, features.shape[1])[:, :, None], features, 0.0)
        x = self.enc[0](self.global_cmvn(features))
        if lengths is None:
            return self.enc[1](x, None), None
        lengths = ((lengths - 3) // 4).clamp(min=0)
        return self.enc[1](x, length_mask(lengths, x.shape[1])), lengths


class AudioEncoder(nn.Module):
    """Audio as the language model hears it.

    In a padded batch each item comes out as it would alone, whatever its padding holds; what lies beyond an item's
    length has no meaning. Dropout follows the configuration in training mode.
    """

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = WhaleEncoder(config)
        self.adpter = build_adapter(config.adapter)
        self.prompt_embeddings = (
            nn.Embedding(config.prompt_tokens, config.adapter.llm_hidden_size) if config.prompt_tokens else None
        )

    def encode(self, features: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The encoder's frames before the adapter, 40 ms apart.

        Args:
            features: (B, T, mel) log-mel filterbank energies as Kaldi's compute-fbank-feats gives them, not
                normalized; T at least 7.
            lengths: (B,) fbank frames of each item; None when all are T long.

        Returns:
            (B, M, d) frames and (B,) how many belong to each item; M = (T - 3) // 4.
        """
        hidden, hidden_lengths = self.encoder(features, lengths)
        return hidden, _lengths_or_full(hidden, hidden_lengths)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings for the language model, learned prompts (if any) in front.

        Args:
            features: as in `encode`.
            lengths: as in `encode`.

        Returns:
            (B, N, llm) embeddings and (B,) how many belong to each item.
        """
        hidden, hidden_lengths = self.encoder(features, lengths)
        mask = None if hidden_lengths is None else length_mask(hidden_lengths, hidden.shape[1])
        embeddings = self.adpter(hidden, mask)
        token_lengths = None if hidden_lengths is None else self.adpter.output_lengths(hidden_lengths)
        if self.prompt_embeddings is not None:
            prompts = self.prompt_embeddings.weight.expand(embeddings.shape[0], -1, -1)
            embeddings = torch.cat((prompts, embeddings), dim=1)
            token_lengths = None if token_lengths is None else token_lengths + self.config.prompt_tokens
        return embeddings, _lengths_or_full(embeddings, token_lengths)

    def stream(
        self, features: Tensor, state: AudioState, position: Tensor, padding: Tensor
    ) -> tuple[Tensor, AudioState]:
        """A part of one utterance, in a chunked encoder: any division into calls gives the same embeddings.

        Args:
            features: (1, F, mel) fbank as in `encode`, from 4 · position on: of each call the last three frames come
                again in the next.
            state: what the call before left.
            position: (1,) place of the call's first encoder frame.
            padding: (1, P, channels) zeros, as the adapter wants them behind the end; no rows while speech goes on.

        Returns:
            (1, N, llm) embeddings, learned prompts (if any) in front in every call; and the state for the next.
        """
        frames = self.encoder.enc[0](self.encoder.global_cmvn(features))
        # The type checker takes a submodule's method for one of its tensors.
        hidden, attended = self.encoder.enc[1].stream(frames, state.attended, position)  # type: ignore[operator]
        embeddings, tail = self.adpter.stream(hidden, state.tail, padding, position)  # type: ignore[operator]
        if self.prompt_embeddings is not None:
            embeddings = torch.cat((self.prompt_embeddings.weight[None], embeddings), dim=1)
        return embeddings, AudioState(attended, tail)


def _lengths_or_full(x: Tensor, lengths: Tensor | None) -> Tensor:
    """(B,) lengths; where none were given, all of x's second dimension."""
    if lengths is not None:
        return lengths
    return torch.full((x.shape[0],), x.shape[1], dtype=torch.int64, device=x.device)
