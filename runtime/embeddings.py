"""Embedding tables, memory-mapped: only the rows that are used are ever read."""

from __future__ import annotations

from collections.abc import Sequence

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
        path = bundle.file(spec.file)
        try:
            dtype = np.dtype(spec.dtype).newbyteorder("<")
            self._rows = np.memmap(path, dtype, "r", shape=(spec.rows, spec.width))
        except (OSError, ValueError) as problem:
            raise BundleError(f"cannot be mapped: {problem}", file=path, fix="export the checkpoint again") from problem

    def rows(self, ids: Sequence[int] | npt.NDArray[np.int64]) -> Floats:
        """(n,) ids → (n, width).

        Raises:
            IndexError: an id outside the table, a mistake of the caller.
        """
        index = np.asarray(ids, dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= self.spec.rows):
            raise IndexError(f"ids from {index.min()} to {index.max()} for a table of {self.spec.rows} rows")
        return np.asarray(self._rows[index], dtype=np.float32).reshape(index.size, self.spec.width)
