"""Rounding errs by half a step at most; compensation and smoothing make a layer's output better, not its weights."""

from __future__ import annotations

import numpy as np
import pytest

from sottovoce.calibration.quantization.activation_scales import activation_scale, has_massive_values, loses_most
from sottovoce.calibration.quantization.error_compensation import round_compensated
from sottovoce.calibration.quantization.rounding import INT8_LIMIT, round_blocks, round_channels, whole_blocks
from sottovoce.calibration.quantization.smoothing import best_divisor
from sottovoce.calibration.ranges.statistics import ObservedTensor, StatisticsCollector, TensorStatistics

DICE = np.random.default_rng(7)


def correlated_rows(count: int, channels: int) -> np.ndarray:
    """Activations as layers have them: a few directions carry most of it."""
    mixing = DICE.normal(size=(channels // 4, channels)) * np.geomspace(4, 0.2, channels // 4)[:, None]
    rows = DICE.normal(size=(count, channels // 4)) @ mixing + 0.1 * DICE.normal(size=(count, channels))
    return rows.astype(np.float32)


def seen(rows: np.ndarray) -> TensorStatistics:
    collector = StatisticsCollector(ObservedTensor("language_model", "x", keeps_rows=True))
    for start in range(0, len(rows), 500):  # as calls come: small enough that every value is counted
        collector.append(rows[start : start + 500])
    assert collector.statistics is not None
    return collector.statistics


def test_channels_err_by_half_a_step_at_most() -> None:
    weights = DICE.normal(size=(64, 12)).astype(np.float32)
    rounded = round_channels(weights)
    assert np.abs(rounded.integers).max() == INT8_LIMIT
    assert (np.abs(rounded.floats() - weights) <= rounded.scales / 2 + 1e-7).all()


def test_a_dead_channel_stays_zero() -> None:
    weights = DICE.normal(size=(64, 3)).astype(np.float32)
    weights[:, 1] = 0
    for rounded in (round_channels(weights), round_blocks(weights, 32)):
        assert not rounded.floats()[:, 1].any()
        assert np.isfinite(rounded.floats()).all()
        assert (rounded.scales > 0).all()


def test_blocks_are_whole_where_a_smaller_one_fits() -> None:
    """TensorRT refuses a last block that is shorter than the others."""
    for inputs, wanted, size in ((912, 32, 16), (912, 128, 16), (192, 128, 64), (256, 32, 32), (40, 32, 32)):
        assert whole_blocks(inputs, wanted) == size
    rows = correlated_rows(1000, 48)
    weights = DICE.normal(size=(48, 8)).astype(np.float32)
    squares = np.square(rows).mean(axis=0)
    for rounded in (round_blocks(weights, 32), round_compensated(weights, 32, rows, squares)[0]):
        assert (rounded.block_size, rounded.scales.shape) == (16, (3, 8))
        assert float(np.abs(rounded.floats() - weights).mean()) < 0.2


@pytest.mark.parametrize("block_size", [32, 128])
def test_compensation_halves_the_error_of_a_layer(block_size: int) -> None:
    rows = correlated_rows(1000, 128)
    weights = DICE.normal(size=(128, 48)).astype(np.float32)
    squares = np.square(rows).mean(axis=0)
    compensated, method = round_compensated(weights, block_size, rows, squares)
    nearest = round_blocks(weights, block_size)

    def error(found: np.ndarray) -> float:
        return float(np.square(rows @ (found - weights)).mean())

    assert method == "gptq"
    assert error(compensated.floats()) < 0.5 * error(nearest.floats())


def test_few_rows_are_trusted_as_far_as_they_go() -> None:
    """Half as many rows as inputs, of channels that have nothing in common: what looks otherwise is chance."""
    rows = DICE.normal(size=(2064, 128)).astype(np.float32)
    sample, unseen = rows[:64], rows[64:]
    weights = DICE.normal(size=(128, 48)).astype(np.float32)
    squares = np.square(rows).mean(axis=0)
    compensated, method = round_compensated(weights, 32, sample, squares)

    def error(found: np.ndarray) -> float:
        return float(np.square(unseen @ (found - weights)).mean())

    assert method == "gptq"
    assert error(compensated.floats()) < 1.4 * error(round_blocks(weights, 32, squares).floats())


def test_next_to_no_rows_are_not_trusted() -> None:
    rows = correlated_rows(5, 128)
    weights = DICE.normal(size=(128, 8)).astype(np.float32)
    rounded, method = round_compensated(weights, 32, rows, np.square(rows).mean(axis=0))
    assert method == "nearest"
    assert np.isfinite(rounded.floats()).all()


def test_compensation_bears_dead_inputs() -> None:
    rows = correlated_rows(1000, 64)
    rows[:, 5] = 0
    weights = DICE.normal(size=(64, 8)).astype(np.float32)
    rounded, _ = round_compensated(weights, 32, rows, np.square(rows).mean(axis=0))
    assert np.isfinite(rounded.floats()).all()


def test_smoothing_helps_where_a_channel_stands_out_and_only_there() -> None:
    rows = DICE.normal(size=(500, 64)).astype(np.float32)
    weights = [DICE.normal(size=(64, 32)).astype(np.float32) * 0.1]
    rows[:, 9] *= 80
    divisor = best_divisor(seen(rows), weights)
    assert divisor is not None
    assert divisor[9] == divisor.max()

    def error(by: np.ndarray) -> float:
        scaled = rows / by
        scale = activation_scale(seen(rows), by)
        rounded = np.clip(np.rint(scaled / scale), -127, 127) * scale
        return float(np.square(rounded @ round_channels(weights[0] * by[:, None]).floats() - rows @ weights[0]).mean())

    assert error(divisor) < 0.2 * error(np.ones(64, np.float32))


def test_a_rare_outlier_is_clipped_and_an_even_range_is_not() -> None:
    rows = DICE.normal(size=(20_000, 16)).astype(np.float32)
    even = activation_scale(seen(np.clip(rows, -1, 1)))
    assert even == pytest.approx(1 / INT8_LIMIT, rel=0.15)
    rows[0, 0] = 40
    clipped = activation_scale(seen(rows))
    assert clipped < 0.8 * 40 / INT8_LIMIT
    assert activation_scale(seen(np.zeros((4, 16), np.float32))) == 1.0


def test_a_tensor_with_a_few_huge_constants_is_known_for_what_it_is() -> None:
    """Keys with their positions: a channel at hundreds beside many at a few."""
    keys = DICE.normal(size=(500, 32)).astype(np.float32)
    assert not loses_most(seen(keys), activation_scale(seen(keys)))
    keys[:, 0] -= 800
    assert loses_most(seen(keys), activation_scale(seen(keys)))
    weights = np.abs(DICE.normal(size=(500, 32))).astype(np.float32) ** 8 / 1e3
    assert not loses_most(seen(weights), activation_scale(seen(weights)))


def test_massive_values_are_known_even_where_smoothing_spreads_them() -> None:
    """One row in hundreds holds a value in the thousands: whichever step is taken, some values are lost."""
    rows = DICE.normal(size=(2000, 64)).astype(np.float32)
    assert not has_massive_values(seen(rows))
    rows[:, 3] *= 60  # a channel that is always large is no such thing once it is divided
    divisor = np.ones(64, np.float32)
    divisor[3] = 60
    assert not has_massive_values(seen(rows), divisor)
    rows[700, 9] = 3000
    assert has_massive_values(seen(rows), divisor)
    assert has_massive_values(seen(rows))
