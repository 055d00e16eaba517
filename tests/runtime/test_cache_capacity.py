"""Buffers have room for what is used and a little more: what they hold beside it costs time or memory."""

from __future__ import annotations

import numpy as np
import pytest
from small_decoder import CONTEXT, WIDTH, small_decoder

from sottovoce.runtime.backends.onnxruntime_options import knows_spin_duration
from sottovoce.runtime.kv_cache import KVCache, roomy_capacity
from sottovoce.runtime.stages.decoder import DecoderStage


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return small_decoder(tmp_path_factory.mktemp("capacity"))


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(4).standard_normal((CONTEXT, WIDTH)).astype(np.float32)


def test_room_is_in_proportion_to_what_is_filled():
    for needed in (1, 256, 257, 1000, 3000, 5000, 30000):
        room = roomy_capacity(needed, 256, 1 << 20)
        assert room % 256 == 0
        assert needed <= room <= needed + max(256, needed // 8)
    assert roomy_capacity(300, 256, 400) == 400


def test_growing_copies_each_position_a_few_times():
    copied = filled = 0
    while filled < 100_000:
        copied += filled
        filled = roomy_capacity(filled + 1, 256, 1 << 20)
    assert copied < 20 * filled


def test_what_a_long_rewind_leaves_is_given_back(session, rows):
    cache, stage = KVCache(session, step=8), DecoderStage(session)
    stage.append(rows[:60], cache)
    long = cache.capacity
    cache.rewind(5)
    found = stage.append(rows[60:64], cache)
    assert cache.capacity < long / 2
    fresh = KVCache(session, step=8)
    expected = stage.append(np.concatenate([rows[:5], rows[60:64]]), fresh)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_short_rewind_moves_nothing(session, rows):
    cache, stage = KVCache(session, step=8), DecoderStage(session)
    stage.append(rows[:60], cache)
    addresses = [values.ctypes.data for values in cache._buffers._buffers.values()]
    cache.rewind(40)
    stage.append(rows[60:64], cache)
    assert [values.ctypes.data for values in cache._buffers._buffers.values()] == addresses


def test_logits_are_the_callers_own(session, rows):
    """The engine writes over its own array with the next step."""
    cache, stage = KVCache(session), DecoderStage(session)
    first = stage.append(rows[:4], cache)
    before = first.copy()
    stage.append(rows[4:5], cache)
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize(
    ("version", "knows"), [("1.23.2", False), ("1.31.1", False), ("1.32.0", True), ("1.40.0", True), ("2.0.0", True)]
)
def test_only_an_engine_that_can_limit_spinning_is_let_spin(version, knows):
    assert knows_spin_duration(version) is knows
