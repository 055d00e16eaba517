"""Codec decoder: codes → 24 kHz samples; codebooks and the voice's fixed global features are inside.

| name | type | shape | meaning |
| --- | --- | --- | --- |
| codes | int64 | (1, codes), or (1, codes, books) where one time step has several | rows of the codebooks |
| samples | float32 | (1, samples) | samples = codes × samples a code, in -1…1 |
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sottovoce.export.config import CodecConfig
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.traced import TracedStage, trace
from sottovoce.export.modules.codec import CodecDecoder
from sottovoce.runtime.manifest import GraphSpec, TensorSpec

EXAMPLE_CODES = 40


class CodecGraph(nn.Module):
    """The decoder with plain weights and plain convolutions, in its precision, float32 out.

    Plain ones take the place of transposed ones in every dialect: engines have INT8 kernels for them only, and ONNX
    Runtime's CPU takes 0.94 to 0.99 of the time (one core of an EPYC, the miniature's codec, 12 to 90 codes).
    """

    def __init__(self, decoder: CodecDecoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.decoder = decoder.fold_weight_norm().upsample_by_phases().to(dtype)

    def forward(self, codes: Tensor) -> Tensor:
        """(1, n) or (1, n, books) int64 → (1, n · samples a code)."""
        samples: Tensor = self.decoder(codes)
        return samples.float()


def export_codec(decoder: CodecDecoder, config: CodecConfig, files: StageFiles) -> GraphSpec:
    """Write the graph. The decoder is consumed: its convolutions become plain ones (in float32), and it is cast.

    Raises:
        OSError: the disk is full or not writable.
    """
    books = config.code_groups * config.residual_layers
    shape = (1, "codes") if books == 1 else (1, "codes", books)
    example = torch.arange(EXAMPLE_CODES * books).remainder(config.num_codes)
    stage = TracedStage(
        module=CodecGraph(decoder, files.dtype),
        example=(example.reshape([1, EXAMPLE_CODES, *shape[2:]]),),  # type: ignore[list-item]  # books is a number
        inputs=(TensorSpec("codes", "codes", "int64", shape),),
        output=TensorSpec("samples", "samples", "float32", (1, "samples")),
    )
    return trace(stage, files)
