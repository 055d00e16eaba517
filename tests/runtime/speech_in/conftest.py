"""Models that can hear while one speaks, each exported once."""

from __future__ import annotations

from pathlib import Path

import pytest
from streaming_encoders import CHUNKED, WHOLE, encoder_model

from sottovoce.runtime.model import Model


@pytest.fixture(scope="session", params=CHUNKED)
def chunked(request: pytest.FixtureRequest, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Each of the chunked encoders."""
    return encoder_model(tiny_bundle, CHUNKED[request.param], tmp_path_factory.mktemp("chunked") / "encoder")


@pytest.fixture(scope="session")
def streaming(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """One chunked encoder."""
    config = CHUNKED["chunks of 4, prompts"]
    return encoder_model(tiny_bundle, config, tmp_path_factory.mktemp("streaming") / "encoder")


@pytest.fixture(scope="session")
def whole(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """An encoder with full attention."""
    return encoder_model(tiny_bundle, WHOLE, tmp_path_factory.mktemp("whole") / "encoder")
