"""Good quantized bundles of the tiny checkpoint, made once; tests spoil copies of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from spoilt_bundle import Changes, Spoil, compared, quantized

from sottovoce.calibration.divergence.report import FirstDivergence
from sottovoce.calibration.ranges.range_file import Ranges

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "quantization"))  # changed_bundle.py is there


@pytest.fixture(scope="session")
def weights_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Language model and codec with weights in INT8; the other stages as they were."""
    plan = "language_model=int8-weights,codec=int8-weights"
    return quantized(tiny_bundle, plan, tmp_path_factory.mktemp("weights") / "small.bundle")


@pytest.fixture(scope="session")
def int8_bundle(tiny_bundle: Path, tiny_ranges: Ranges, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The language model with weights and activations in INT8, smoothed, and its cache."""
    plan = "language_model=int8,kv_cache=int8"
    return quantized(tiny_bundle, plan, tmp_path_factory.mktemp("int8") / "small.bundle", tiny_ranges)


@pytest.fixture
def spoil(tiny_bundle: Path, tmp_path: Path) -> Spoil:
    """Change graphs of a bundle, compare it with the tiny bundle, and give what was found first."""
    from changed_bundle import change_bundle

    def spoilt(source: Path, changes: Changes) -> FirstDivergence:
        found = compared(change_bundle(source, tmp_path / "spoilt.bundle", changes), tiny_bundle).first_divergence
        assert found is not None, "the comparison saw nothing"
        return found

    return spoilt
