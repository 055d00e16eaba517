"""NAR part of the speech decoder: frames of a piece of text → conditioned frames.

| name | type | shape | meaning |
| --- | --- | --- | --- |
| frames | float32 | (1, frames, width) | rows of the token embedding table, each cut into frames of this width |
| conditioned | float32 | (1, frames, width) | what the AR part is prefilled with, behind the embedding of `begin` |
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sottovoce.export.config import SpeechDecoderConfig
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.traced import TracedStage, trace
from sottovoce.export.modules.speech_decoder import SpeechDecoder
from sottovoce.runtime.manifest import GraphSpec, TensorSpec

EXAMPLE_FRAMES = 24


class SpeechTextGraph(nn.Module):
    """The NAR part in its precision between float32 ends."""

    def __init__(self, decoder: SpeechDecoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.decoder = decoder.to(dtype)
        self.dtype = dtype

    def forward(self, frames: Tensor) -> Tensor:
        """(1, n, d) → (1, n, d)."""
        return self.decoder.condition(frames.to(self.dtype)).float()


def export_speech_text(decoder: SpeechDecoder, config: SpeechDecoderConfig, files: StageFiles) -> GraphSpec:
    """Write the graph. The decoder is consumed: it is cast.

    Raises:
        OSError: the disk is full or not writable.
    """
    shape = (1, "frames", config.hidden_size)
    stage = TracedStage(
        module=SpeechTextGraph(decoder, files.dtype),
        example=(torch.randn(1, EXAMPLE_FRAMES, config.hidden_size),),
        inputs=(TensorSpec("frames", "frames", "float32", shape),),
        output=TensorSpec("conditioned", "conditioned", "float32", shape),
    )
    return trace(stage, files)
