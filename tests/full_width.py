"""One decoder layer and a head as wide as VITA-1.5's, to build engines from and to read memory by: 0.7 GB in fp16."""

from __future__ import annotations

from pathlib import Path

import torch

from sottovoce.export.dialects import DIALECTS
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.decoder_builder import DecoderPlan, DecoderShape, DecoderWeightNames, build_decoder
from sottovoce.runtime.manifest import GraphSpec

WIDTH, INNER, VOCABULARY, CONTEXT = 3584, 18944, 32768, 1024
"""VITA-1.5's language model, but for the number of its tokens and layers."""
SHAPE = DecoderShape(
    hidden_size=WIDTH,
    num_layers=1,
    num_heads=28,
    num_kv_heads=4,
    head_size=128,
    vocab_size=VOCABULARY,
    context_length=CONTEXT,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    query_key_value_bias=True,
    head_bias=False,
    prefix_attention=False,
)
ROWS = {
    "q_proj": WIDTH, "k_proj": 512, "v_proj": 512, "o_proj": WIDTH, "gate_proj": INNER, "up_proj": INNER,
    "down_proj": WIDTH, "head": VOCABULARY,
}  # fmt: skip


def write_full_width(folder: Path, dialect: str = "portable") -> GraphSpec:
    """Write it into a bundle's folder in fp16, in place of its language model, and return its contract."""
    noise = torch.randn(WIDTH * INNER, generator=torch.Generator().manual_seed(5), dtype=torch.float32) / 60

    def read(name: str) -> torch.Tensor:
        part, kind = name.split(".")[-2:] if "." in name else (name, "weight")
        if kind == "bias" or part not in ROWS:
            return torch.ones(ROWS.get(part, WIDTH))
        columns = INNER if part == "down_proj" else WIDTH
        needed = ROWS[part] * columns
        return noise.repeat(-(-needed // noise.numel()))[:needed].reshape(ROWS[part], columns)

    plan = DecoderPlan(SHAPE, DecoderWeightNames("layers", "norm", "head"), DIALECTS[dialect])
    return build_decoder(plan, read, StageFiles("language_model", folder, "fp16"))
