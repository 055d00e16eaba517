"""Vision encoder: pixels of tiles or video frames → embeddings for the language model.

| name | type | shape | meaning |
| --- | --- | --- | --- |
| pixels | float32 | (tiles, 3, S, S) | normalized as CLIP does |
| embeddings | float32 | (tiles, tokens a tile, LLM width) | |
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sottovoce.export.config import VisionEncoderConfig
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.traced import TracedStage, trace
from sottovoce.export.modules.vision_encoder import VisionEncoder
from sottovoce.runtime.manifest import GraphSpec, TensorSpec


class VisionGraph(nn.Module):
    """The encoder in its precision between float32 ends."""

    def __init__(self, encoder: VisionEncoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder = encoder.to(dtype)
        self.dtype = dtype

    def forward(self, pixels: Tensor) -> Tensor:
        """(tiles, 3, S, S) → (tiles, tokens, llm)."""
        embeddings: Tensor = self.encoder(pixels.to(self.dtype))
        return embeddings.float()


def export_vision_encoder(encoder: VisionEncoder, config: VisionEncoderConfig, files: StageFiles) -> GraphSpec:
    """Write the graph. The encoder is consumed: it is cast.

    Raises:
        OSError: the disk is full or not writable.
    """
    size = (config.num_channels, config.image_size, config.image_size)
    output_shape = ("tiles", config.tokens_per_tile, config.llm_hidden_size)
    stage = TracedStage(
        module=VisionGraph(encoder, files.dtype),
        example=(torch.randn(2, *size),),
        inputs=(TensorSpec("pixels", "pixels", "float32", ("tiles", *size)),),
        output=TensorSpec("embeddings", "embeddings", "float32", output_shape),
    )
    return trace(stage, files)
