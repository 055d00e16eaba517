"""A small decoder graph with random weights, written by the exporter's own builder."""

from __future__ import annotations

from pathlib import Path

import torch

from sottovoce.export.dialects import dialect_for
from sottovoce.export.graphs.contract import StageFiles
from sottovoce.export.graphs.decoder_builder import DecoderPlan, DecoderShape, DecoderWeightNames, build_decoder
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.manifest import Precision

WIDTH, VOCABULARY, CONTEXT = 32, 50, 100


def small_decoder(folder: Path, precision: Precision = "fp32", prefix_attention: bool = False) -> OnnxRuntimeSession:
    """Two layers, four heads, two of them for keys and values, a context of 100."""
    shape = DecoderShape(
        hidden_size=WIDTH,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_size=8,
        vocab_size=VOCABULARY,
        context_length=CONTEXT,
        rms_norm_eps=1e-6,
        rope_theta=1e4,
        query_key_value_bias=True,
        head_bias=False,
        prefix_attention=prefix_attention,
    )
    sizes = {
        "q_proj.weight": (WIDTH, WIDTH),
        "k_proj.weight": (16, WIDTH),
        "v_proj.weight": (16, WIDTH),
        "o_proj.weight": (WIDTH, WIDTH),
        "gate_proj.weight": (48, WIDTH),
        "up_proj.weight": (48, WIDTH),
        "down_proj.weight": (WIDTH, 48),
        "q_proj.bias": (WIDTH,),
        "k_proj.bias": (16,),
        "v_proj.bias": (16,),
        "head.weight": (VOCABULARY, WIDTH),
    }
    random = torch.Generator().manual_seed(1)

    def read(name: str) -> torch.Tensor:
        size = sizes.get(".".join(name.split(".")[-2:]), (WIDTH,))
        values = torch.randn(size, generator=random)
        return values / size[-1] ** 0.5 if len(size) > 1 else values * 0.1 + ("norm" in name)

    (folder / "graphs").mkdir(exist_ok=True)
    plan = DecoderPlan(shape, DecoderWeightNames("layers", "norm", "head"), dialect_for("cpu"))
    spec = build_decoder(plan, read, StageFiles("language_model", folder, precision))
    return OnnxRuntimeSession("language_model", spec, folder / spec.file, threads=1)
