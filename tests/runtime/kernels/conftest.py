"""Each test of the kernels once for every kind of instructions that this processor has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernel_graphs import HERE, computing_with


@pytest.fixture(params=HERE or ["none"], autouse=True)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    if not HERE:
        yield request.param
        return
    with computing_with(request.param):
        yield request.param
