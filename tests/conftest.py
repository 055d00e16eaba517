"""Fixtures that every room's tests share: the reference values and the tiny checkpoint they belong to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# PyTorch reads this when it is first imported. Its tensors here are small: a second thread would only be waited for,
# and where another process is busy on that core, for long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

GOLDEN_DIR = Path(__file__).resolve().parent / "golden"


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder with `golden.npz`, `golden.json`, `speech.wav`, `picture.png` and `tiny-vita15/`."""
    if not GOLDEN_DIR.is_dir():
        pytest.fail(f"the reference values are missing: expected them in {GOLDEN_DIR}")
    return GOLDEN_DIR


@pytest.fixture(scope="session")
def golden(golden_dir: Path) -> dict[str, np.ndarray]:
    """The reference's exact tensors, by name."""
    with np.load(golden_dir / "golden.npz") as values:
        return {key: values[key] for key in values.files}


@pytest.fixture(scope="session")
def golden_json(golden_dir: Path) -> dict[str, Any]:
    """The reference's ids, margins, grids and cut lengths."""
    return json.loads((golden_dir / "golden.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tiny_checkpoint(golden_dir: Path) -> Path:
    """The tiny checkpoint in the real layout (random weights)."""
    return golden_dir / "tiny-vita15"


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint exported in fp32, once for all tests; they must not change it."""
    from sottovoce.export.export import export

    bundle = tmp_path_factory.mktemp("tiny") / "tiny.bundle"
    export(tiny_checkpoint, bundle)
    return bundle


@pytest.fixture(scope="session")
def tiny_half_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in fp16."""
    from sottovoce.export.export import ExportOptions, export

    bundle = tmp_path_factory.mktemp("tiny-half") / "tiny.bundle"
    export(tiny_checkpoint, bundle, ExportOptions(precision="fp16"))
    return bundle
