"""The cache is updated in place, read only where it is filled, and can be rewound, grown, saved and resumed."""

from __future__ import annotations

import numpy as np
import pytest
from small_decoder import CONTEXT, VOCABULARY, WIDTH, small_decoder

from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.kv_cache import ContextFullError, KVCache
from sottovoce.runtime.stages.decoder import DecoderStage
from sottovoce.runtime.stages.language_model import PREFILL_POSITIONS, LanguageModel

TOLERANCE = 2e-6
GARBAGE = 1e3
"""Far beyond any key or value of this model, and finite."""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return small_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def half_session(tmp_path_factory):
    return small_decoder(tmp_path_factory.mktemp("half"), precision="fp16")


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((CONTEXT, WIDTH)).astype(np.float32)


def poisoned_cache(session, step: int = 16) -> KVCache:
    """A cache whose unused positions hold large garbage, also after growing."""
    cache = KVCache(session, step)
    poison(cache)
    return cache


def poison(cache: KVCache) -> None:
    for values in cache._buffers._buffers.values():
        values[:, :, cache.length :] = GARBAGE


def logits_of(session, rows: np.ndarray, cache: KVCache, slices: list[int]) -> np.ndarray:
    """Logits after appending the rows in slices of the given lengths."""
    stage, start = DecoderStage(session), 0
    for length in slices:
        poison(cache)
        logits = stage.append(rows[start : start + length], cache)
        start += length
    return logits


@pytest.mark.parametrize("slices", [[40], [39, 1], [1] * 40, [17, 3, 20]])
@pytest.mark.parametrize("which", ["session", "half_session"])
def test_slices_give_what_the_whole_gives_and_garbage_is_never_read(request, which, slices, rows):
    session = request.getfixturevalue(which)
    expected = logits_of(session, rows, KVCache(session, step=CONTEXT), [40])
    found = logits_of(session, rows, poisoned_cache(session), slices)
    assert found.shape == (VOCABULARY,)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE if which == "session" else 2e-3)
    assert np.abs(expected).max() > 0.1


def test_the_buffers_are_updated_in_place(session, rows):
    cache = poisoned_cache(session, step=32)
    buffers = cache._buffers._buffers
    addresses = {name: values.ctypes.data for name, values in buffers.items()}
    before = {name: values.copy() for name, values in buffers.items()}
    logits_of(session, rows, cache, [5, 1])
    for name, values in cache._buffers._buffers.items():
        assert values.ctypes.data == addresses[name]
        np.testing.assert_array_equal(values[:, :, 6:], before[name][:, :, 6:])
        assert np.abs(values[:, :, :6]).max() < GARBAGE


def test_capacity_follows_use(session, rows):
    cache = KVCache(session, step=16)
    assert (cache.length, cache.capacity, cache.room) == (0, 16, CONTEXT)
    logits_of(session, rows, cache, [16])
    assert (cache.length, cache.capacity) == (16, 16)
    logits_of(session, rows[16:], cache, [1])
    assert (cache.length, cache.capacity) == (17, 32)
    logits_of(session, rows[17:], cache, [CONTEXT - 17])
    assert (cache.length, cache.capacity, cache.room) == (CONTEXT, CONTEXT, 0)


def test_a_full_context_is_refused_and_nothing_changes(session, rows):
    cache = KVCache(session, step=16)
    logits_of(session, rows, cache, [CONTEXT - 2])
    with pytest.raises(ContextFullError, match=f"{CONTEXT - 2} positions are filled and 3 more .* holds {CONTEXT}"):
        logits_of(session, rows, cache, [3])
    assert cache.length == CONTEXT - 2
    again = logits_of(session, rows[CONTEXT - 2 :], cache, [2])
    expected = logits_of(session, rows, KVCache(session, CONTEXT), [CONTEXT])
    np.testing.assert_allclose(again, expected, atol=TOLERANCE)


def test_rewind_forgets_what_came_after(session, rows):
    cache = poisoned_cache(session)
    logits_of(session, rows, cache, [10, 20])
    cache.rewind(10)
    found = logits_of(session, rows[50:], cache, [4])
    expected = logits_of(session, np.concatenate([rows[:10], rows[50:54]]), KVCache(session), [14])
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.parametrize("length", [-1, 11])
def test_rewind_goes_only_backwards(session, rows, length):
    cache = KVCache(session)
    logits_of(session, rows, cache, [10])
    with pytest.raises(ValueError, match="cannot rewind a cache of 10"):
        cache.rewind(length)


def test_reset_begins_anew_in_the_same_memory(session, rows):
    cache = KVCache(session, step=16)
    logits_of(session, rows[30:], cache, [20])
    capacity = cache.capacity
    cache.reset()
    assert (cache.length, cache.capacity) == (0, capacity)
    found = logits_of(session, rows, cache, [7])
    np.testing.assert_allclose(found, logits_of(session, rows, KVCache(session), [7]), atol=TOLERANCE)


def test_a_snapshot_is_resumed_in_another_cache(session, rows):
    cache = KVCache(session, step=16)
    logits_of(session, rows, cache, [20])
    snapshot = cache.snapshot()
    expected = logits_of(session, rows[20:], cache, [5])
    other = poisoned_cache(session)
    logits_of(session, rows[60:], other, [3])
    other.resume(snapshot)
    assert other.length == snapshot.length == 20
    np.testing.assert_allclose(logits_of(session, rows[20:], other, [5]), expected, atol=TOLERANCE)


def test_prefill_in_slices_of_bounded_memory(session, rows, monkeypatch):
    assert PREFILL_POSITIONS >= 256
    expected = LanguageModel(session).prefill(rows[:45], KVCache(session))
    monkeypatch.setattr("sottovoce.runtime.stages.language_model.PREFILL_POSITIONS", 8)
    found = LanguageModel(session).prefill(rows[:45], KVCache(session))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_slices_get_shorter_as_the_context_grows(session, rows, monkeypatch):
    """An engine may write all scores of a slice down: slice × context is bounded, but for the shortest slices."""
    expected = LanguageModel(session).prefill(rows[:45], KVCache(session))
    lengths = []
    real = DecoderStage.append
    monkeypatch.setattr(DecoderStage, "append", lambda *a: lengths.append(len(a[1])) or real(*a))
    for name, value in (("PREFILL_POSITIONS", 16), ("SHORTEST_SLICE", 4), ("MOST_SCORES", 256)):
        monkeypatch.setattr(f"sottovoce.runtime.stages.language_model.{name}", value)
    found = LanguageModel(session).prefill(rows[:45], KVCache(session))
    assert lengths == [16, 8, 6, 5, 5, 4, 1]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_a_prefill_that_does_not_fit_leaves_the_cache_alone(session, rows, monkeypatch):
    monkeypatch.setattr("sottovoce.runtime.stages.language_model.PREFILL_POSITIONS", 30)
    model, cache = LanguageModel(session), KVCache(session)
    model.prefill(rows[:20], cache)
    with pytest.raises(ContextFullError):
        model.prefill(rows[:90], cache)
    assert cache.length == 20


def test_a_prefix_sees_itself_whole(tmp_path, rows):
    """With prefix attention the order of a prefix matters only by its positions: a later row changes an earlier one."""
    session = small_decoder(tmp_path, prefix_attention=True)
    caches = [KVCache(session), KVCache(session)]
    changed = rows.copy()
    changed[9] += 1.0
    for cache, values in zip(caches, (rows, changed), strict=True):
        logits_of(session, values, cache, [10])
    first, second = (cache.snapshot().contents["key.1"] for cache in caches)
    assert np.abs(first[:, :, 0] - second[:, :, 0]).max() > 1e-4


def test_a_wrong_width_is_an_error_with_the_stages_name(session):
    cache = KVCache(session)
    with pytest.raises(BackendError, match="stage 'language_model' failed in ONNX Runtime"):
        DecoderStage(session).append(np.zeros((3, WIDTH + 1), dtype=np.float32), cache)
    assert cache.length == 0


def test_logits_that_are_no_numbers_are_an_error(session):
    with pytest.raises(BackendError, match="'language_model' gave 50 values in 'logits' that are no numbers"):
        DecoderStage(session).append(np.full((1, WIDTH), np.nan, dtype=np.float32), KVCache(session))


def test_half_precision_is_widened_here_and_says_so(session, half_session):
    assert not session.widened
    assert half_session.widened
