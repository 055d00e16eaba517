"""A checkpoint's embedding tables as files of the bundle."""

from __future__ import annotations

import torch

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.export.graphs.contract import TORCH_TYPES, narrowed
from sottovoce.runtime.manifest import EmbeddingTableSpec, Precision

BLOCK_ROWS = 4096


def write_table(
    writer: BundleWriter, file: str, named_table: tuple[str, torch.Tensor], precision: Precision
) -> EmbeddingTableSpec:
    """Write a table (rows, width) in blocks of rows; `named_table` is its name in the checkpoint and its values.

    Raises:
        SottovoceError: a value is beyond the precision's range.
        OSError: the disk is full or not writable.
    """
    name, table = named_table
    blocks = (narrowed(name, block, TORCH_TYPES[precision]).numpy() for block in table.split(BLOCK_ROWS))
    writer.write_array(file, blocks)
    return EmbeddingTableSpec(file, "float16" if precision == "fp16" else "float32", table.shape[0], table.shape[1])
