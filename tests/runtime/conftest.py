"""An assistant on the tiny bundle, for all tests of the runtime."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from short_bundle import shortened

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.model import Model

if TYPE_CHECKING:
    from tensorrt_stand_in.device import Device


@pytest.fixture(scope="session")
def assistant(tiny_bundle: Path) -> Iterator[Assistant]:
    with Assistant(Model(shortened(Bundle.open(tiny_bundle)), threads=1)) as ready:
        yield ready


@pytest.fixture(scope="session")
def portable_miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that ships, exported for engines in fp16, once for all tests; they must not change it."""
    from sottovoce.demos.first_answer import TRAINED
    from sottovoce.export.export import ExportOptions, export

    path = tmp_path_factory.mktemp("miniature") / "miniature.bundle"
    export(TRAINED.checkpoint, path, ExportOptions(target="tensorrt", precision="fp16"))
    return path


@pytest.fixture(scope="session")
def built(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle with engines of all stages, for the stand-in for TensorRT; tests must not change it."""
    from tensorrt_stand_in.installing import write_engines

    path = tmp_path_factory.mktemp("built") / "tiny.bundle"
    shutil.copytree(tiny_bundle, path)
    bundle = Bundle.open(path)
    write_engines(bundle)
    return bundle


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """The stand-in for a GPU, TensorRT and pycuda; nothing may be left on it."""
    from tensorrt_stand_in.installing import stand_in

    with stand_in(monkeypatch) as device:
        yield device
