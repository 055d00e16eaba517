"""Embedding tables in fewer bits: rows of INT8, each with a scale of its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.quantization.rounding import round_channels
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.embeddings import EmbeddingTable
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import EmbeddingTableSpec, StageName, StagePrecision

BLOCK_ROWS = 4096
TABLES: Mapping[StageName, str] = {"language_model": "token_embeddings", "speech_codes": "code_embeddings"}
"""Stage → the manifest's table that feeds it and is made as small as it."""


def copy_table(bundle: Bundle, writer: BundleWriter, spec: EmbeddingTableSpec) -> EmbeddingTableSpec:
    """As it is."""
    for name in spec.files:
        writer.copy(bundle.file(name), name)
    return spec


def shrink_table(
    bundle: Bundle, writer: BundleWriter, spec: EmbeddingTableSpec, precision: StagePrecision
) -> EmbeddingTableSpec:
    """Write a table in what suits a stage's precision: float32, float16, or INT8 for all integer ones.

    Raises:
        SottovoceError: a value is beyond float16.
    """
    if spec.dtype != "float32" or precision == "fp32":
        return copy_table(bundle, writer, spec)
    table = EmbeddingTable(bundle, spec)
    starts = range(0, spec.rows, BLOCK_ROWS)
    blocks = (table.rows(np.arange(start, min(start + BLOCK_ROWS, spec.rows))) for start in starts)
    if precision == "fp16":
        writer.write_array(spec.file, (_narrowed(spec.file, block) for block in blocks))
        return EmbeddingTableSpec(spec.file, "float16", spec.rows, spec.width)
    rounded = [round_channels(block.T) for block in blocks]
    scales = f"{spec.file.removesuffix('.bin')}_scales.bin"
    writer.write_array(spec.file, (block.integers.T for block in rounded))
    writer.write_array(scales, (block.scales.reshape(-1).astype(np.float32) for block in rounded))
    return EmbeddingTableSpec(spec.file, "int8", spec.rows, spec.width, scales)


def _narrowed(name: str, block: np.ndarray) -> np.ndarray:
    if np.abs(block).max(initial=0.0) > np.finfo(np.float16).max:
        raise SottovoceError(f"the table {name!r} has values beyond float16", fix="keep its stage in fp32")
    return block.astype(np.float16)
