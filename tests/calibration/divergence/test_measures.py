"""What the comparison is made of: differences, rounding noise, and divisors read off two graphs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from sottovoce.calibration.divergence.difference import Difference, relative_error
from sottovoce.calibration.divergence.graph_pair import GraphPair
from sottovoce.calibration.divergence.rounding_noise import rounding_noise
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.sites import weight_sites
from sottovoce.calibration.quantization.smoothing import smooth, smoothing_groups
from sottovoce.calibration.ranges.range_file import Ranges
from sottovoce.runtime.bundle import Bundle

DICE = np.random.default_rng(5)


def test_calls_add_up_to_the_difference_of_all_at_once() -> None:
    reference = DICE.normal(size=(6, 40)).astype(np.float32)
    found = reference + DICE.normal(0, 0.1, size=(6, 40)).astype(np.float32)
    total = Difference()
    for first, second in zip(reference, found, strict=True):
        total.append(Difference.between(first, second))
    wide, other = reference.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    assert total.error == pytest.approx(np.linalg.norm(wide - other) / np.linalg.norm(wide))
    assert total.cosine == pytest.approx(wide @ other / np.linalg.norm(wide) / np.linalg.norm(other))
    assert total.signal_to_noise_db == pytest.approx(-20 * math.log10(total.error))
    assert math.isinf(Difference.between(wide, wide).signal_to_noise_db)


def test_masks_are_no_data_but_must_be_there() -> None:
    reference = np.array([1.0, 2.0, -np.inf, np.finfo(np.float32).min])
    assert relative_error(reference, np.array([1.0, 2.0, -65504.0, -np.inf])) == 0
    assert math.isinf(relative_error(reference, np.array([1.0, 2.0, -65504.0, 3.0])))
    assert math.isinf(relative_error(reference, np.array([1.0, 2.0, 65504.0, -np.inf])))


@pytest.mark.parametrize("found", [np.array([1.0, np.nan]), np.array([np.inf, 1.0]), np.ones(3), np.ones((2, 1))])
def test_what_is_no_number_or_of_another_shape_is_infinitely_far(found: np.ndarray) -> None:
    assert math.isinf(relative_error(np.ones(2), found))


def test_zeros_are_measured_against_a_floor() -> None:
    assert relative_error(np.zeros(9), np.zeros(9)) == 0
    assert relative_error(np.zeros(9), np.full(9, 1e-9)) == pytest.approx(1e-3)


def test_noise_of_a_small_scale_is_clipping_and_of_a_large_one_its_steps() -> None:
    values = DICE.normal(size=2000).astype(np.float32)
    best = np.abs(values).max() / 127
    for factor, clips in ((1 / 50, True), (1.0, False), (50, False)):
        step = np.asarray(best * factor)
        rounded = np.clip(np.rint(values / step), -127, 127) * step
        noise = rounding_noise(values, step, (-127, 127), rounded)
        assert noise.is_clipping == clips
        assert noise.fits
        assert noise.step / noise.finest == pytest.approx(factor)
        assert noise.clip_noise + noise.step_noise == pytest.approx(noise.real_noise, rel=1e-3)
        assert (noise.clipped > 0) == clips
    assert not rounding_noise(values, np.asarray(best), (-127, 127), values * 50).fits


def test_steps_of_channels_are_measured_by_channel() -> None:
    values = DICE.normal(size=(64, 3)) * np.array([1.0, 10.0, 100.0])
    steps = np.abs(values).max(axis=0, keepdims=True) / 127
    noise = rounding_noise(values, steps, (-127, 127), np.rint(values / steps) * steps)
    assert noise.step == pytest.approx(noise.finest)
    assert noise.clipped == 0


def test_divisors_are_those_that_smoothing_used(int8_bundle: Path, tiny_bundle: Path, tiny_ranges: Ranges) -> None:
    """Of norms exactly, of products to what rounding leaves."""
    graph = StageGraph(Bundle.open(tiny_bundle), "language_model")
    statistics = {name: seen for (stage, name), seen in tiny_ranges.statistics.items() if stage == "language_model"}
    moved = smooth(graph, smoothing_groups(graph, weight_sites(graph)), statistics)
    assert moved, "this bundle is not smoothed: the test would say nothing"
    pair = GraphPair(Bundle.open(tiny_bundle), Bundle.open(int8_bundle), "language_model")
    for name, divisor in moved.items():
        found = pair.smoothing.values[name]
        tolerance = 1e-4 if name.endswith("normed") else 0.02
        np.testing.assert_allclose(found, divisor, rtol=tolerance, err_msg=name)
    values = DICE.normal(size=(2, len(divisor)))
    np.testing.assert_allclose(pair.in_found_units(name, pair.in_reference_units(name, values)), values)
