"""Rows of a table on disk."""

from __future__ import annotations

import numpy as np
import pytest
from bundle_factory import TOKENS, WIDTH, write_bundle

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.embeddings import EmbeddingTable
from sottovoce.runtime.manifest import EmbeddingTableSpec


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_float32_in_any_storage(tmp_path, dtype):
    bundle = Bundle.open(write_bundle(tmp_path))
    values = np.arange(TOKENS * WIDTH, dtype=dtype).reshape(TOKENS, WIDTH)
    (tmp_path / "token_embeddings.bin").write_bytes(values.tobytes())
    table = EmbeddingTable(bundle, EmbeddingTableSpec("token_embeddings.bin", dtype, TOKENS, WIDTH))
    found = table.rows([3, 0, 3])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values[[3, 0, 3]])
    assert table.rows([]).shape == (0, WIDTH)


@pytest.mark.parametrize("row", [-1, TOKENS])
def test_a_row_that_is_not_there(tmp_path, row):
    bundle = Bundle.open(write_bundle(tmp_path))
    table = EmbeddingTable(bundle, bundle.manifest.token_embeddings)
    with pytest.raises(IndexError, match=f"table of {TOKENS} rows"):
        table.rows([0, row])
