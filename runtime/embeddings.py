"""Embedding tables, memory-mapped: only the rows that are used are ever read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import BundleError
from sottovoce.runtime.manifest import EmbeddingTableSpec

Floats = npt.NDArray[np.float32]


class EmbeddingTable:
    """Rows of a table (rows, width) on disk, given as float32.

    Args:
        bundle: where the table's file lies.
        spec: the table's shape and type.
    """

    def __init__(self, bundle: Bundle, spec: EmbeddingTableSpec) -> None:
        self.spec = spec
        self._rows = _mapped(bundle.file(spec.file), spec.dtype, (spec.rows, spec.width))
        self._scales = None if spec.scales is None else _mapped(bundle.file(spec.scales), "float32", (spec.rows, 1))

    def rows(self, ids: Sequence[int] | npt.NDArray[np.int64]) -> Floats:
        """(n,) ids → (n, width).

        Raises:
            IndexError: an id outside the table, a mistake of the caller.
        """
        index = np.asarray(ids, dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= self.spec.rows):
            raise IndexError(f"ids from {index.min()} to {index.max()} for a table of {self.spec.rows} rows")
        rows = np.asarray(self._rows[index], dtype=np.float32).reshape(index.size, self.spec.width)
        return rows if self._scales is None else rows * self._scales[index].reshape(index.size, 1)


def _mapped(path: Path, dtype: str, shape: tuple[int, int]) -> npt.NDArray[Any]:
    try:
        mapped = np.memmap(path, np.dtype(dtype).newbyteorder("<"), "r", shape=shape)
    except (OSError, ValueError) as problem:
        raise BundleError(f"cannot be mapped: {problem}", file=path, fix="export the checkpoint again") from problem
    return mapped.view(np.ndarray)  # a memmap makes another one of each row that is taken, which takes longer
