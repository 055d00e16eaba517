"""An assistant on the tiny bundle, for all tests of the runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from short_bundle import shortened

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.model import Model


@pytest.fixture(scope="session")
def assistant(tiny_bundle: Path) -> Iterator[Assistant]:
    with Assistant(Model(shortened(Bundle.open(tiny_bundle)), threads=1)) as ready:
        yield ready
