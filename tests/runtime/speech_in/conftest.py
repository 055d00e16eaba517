"""Models that can hear while one speaks, each exported once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from streaming_encoders import CHUNKED, WHOLE, encoder_model

from sottovoce.runtime.model import Model


@pytest.fixture(scope="session")
def encoders(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """The encoder of each name, exported when it is first asked for."""

    @functools.cache
    def made(name: str) -> Model:
        config = CHUNKED.get(name, WHOLE)
        return encoder_model(tiny_bundle, config, tmp_path_factory.mktemp("encoder") / "graph")

    return made


@pytest.fixture(scope="session", params=CHUNKED)
def chunked(request: pytest.FixtureRequest, encoders: Callable[[str], Model]) -> Model:
    """Each of the chunked encoders."""
    return encoders(request.param)


@pytest.fixture(scope="session")
def streaming(encoders: Callable[[str], Model]) -> Model:
    """One chunked encoder."""
    return encoders("chunks of 4, prompts")


@pytest.fixture(scope="session")
def whole(encoders: Callable[[str], Model]) -> Model:
    """An encoder with full attention."""
    return encoders("whole")
