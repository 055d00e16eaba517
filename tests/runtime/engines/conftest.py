"""A bundle for TensorRT-RTX, and the skip where that library is not installed."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from engine_bundles import with_portable_decoders

TARGET = "rtx-8.9"


@pytest.fixture(scope="session")
def rtx() -> None:
    """TensorRT-RTX, which builds engines without a GPU."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed: pip install 'sottovoce[rtx]'")


@pytest.fixture(scope="session")
def portable_bundle(tiny_half_bundle: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle in fp16 with portable decoders; tests must not change it."""
    return with_portable_decoders(tiny_half_bundle, tiny_checkpoint, tmp_path_factory.mktemp("portable") / "p.bundle")


@pytest.fixture
def bundle(portable_bundle: Path, tmp_path: Path) -> Path:
    """A copy of it to build into."""
    return Path(shutil.copytree(portable_bundle, tmp_path / "tiny.bundle"))
