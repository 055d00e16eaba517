"""Audio encoder: one utterance's mel filterbank → embeddings for the language model.

| name | type | shape | meaning |
| --- | --- | --- | --- |
| features | float32 | (1, frames, mel bins) | Kaldi log-mel filterbank, not normalized; at least 7 frames |
| embeddings | float32 | (1, tokens, LLM width) | learned prompts (if the checkpoint has them), then the utterance |
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sottovoce.export.config import AudioEncoderConfig
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.traced import TracedStage, trace
from sottovoce.export.modules.audio_encoder import AudioEncoder
from sottovoce.runtime.manifest import GraphSpec, TensorSpec

MIN_FRAMES = 7
"""Two unpadded convolutions of kernel 3 and stride 2 need this many."""
EXAMPLE_FRAMES = 171


class AudioGraph(nn.Module):
    """The encoder on one unpadded utterance. Normalization stays in float32: raw energies are large and close."""

    def __init__(self, encoder: AudioEncoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.cmvn = encoder.encoder.global_cmvn.float()
        encoder.encoder.global_cmvn = nn.Identity()  # type: ignore[assignment]  # done here, before the cast
        self.encoder = encoder.to(dtype)
        self.dtype = dtype

    def forward(self, features: Tensor) -> Tensor:
        """(1, frames, mel) → (1, tokens, llm)."""
        embeddings: Tensor = self.encoder(self.cmvn(features).to(self.dtype))[0]
        return embeddings.float()


def export_audio_encoder(encoder: AudioEncoder, config: AudioEncoderConfig, files: StageFiles) -> GraphSpec:
    """Write the graph. The encoder is consumed: it is cast and taken apart.

    Raises:
        OSError: the disk is full or not writable.
    """
    width = config.adapter.llm_hidden_size
    stage = TracedStage(
        module=AudioGraph(encoder, files.dtype),
        example=(torch.randn(1, EXAMPLE_FRAMES, config.mel_bins),),
        inputs=(TensorSpec("features", "features", "float32", (1, "frames", config.mel_bins)),),
        output=TensorSpec("embeddings", "embeddings", "float32", (1, "tokens", width)),
        smallest={"frames": MIN_FRAMES},
    )
    return trace(stage, files)


def subsampling_steps(config: AudioEncoderConfig) -> tuple[tuple[int, int], ...]:
    """How a mask of fbank frames thins out to a mask of embeddings: (start, stride) of each step.

    Two convolutions of kernel 3 and stride 2; the subsampling adapter halves once more, padded to the right.
    """
    convolutions = ((2, 2), (2, 2))
    return (*convolutions, (0, 2)) if config.adapter.kind == "subsampling" else convolutions
