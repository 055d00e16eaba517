"""A decoder on the stand-in for TensorRT and pycuda gives what ONNX Runtime gives; its cache stays on the device."""

from __future__ import annotations

import numpy as np
import pytest
from small_decoder import CONTEXT, VOCABULARY, WIDTH, small_decoder
from tensorrt_stand_in.installing import lone_engine

from sottovoce.runtime.backends.tensorrt import TensorRtSession
from sottovoce.runtime.engines.record import ShapeRange
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.kv_cache import ContextFullError, KVCache
from sottovoce.runtime.stages.decoder import DecoderStage
from sottovoce.runtime.stages.language_model import LanguageModel

LONGEST = 40
TOLERANCE = 2e-6
"""The order of sums depends on where the cache lies."""
CACHE_SHAPE = (1, 2, CONTEXT, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("decoder")


@pytest.fixture(scope="module")
def reference(folder):
    return small_decoder(folder)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((CONTEXT, WIDTH)).astype(np.float32)


def profiles(spec):
    """As `sottovoce build` makes them: both for all lengths, the second best at one position."""
    found = []
    for best in (20, 1):
        shapes = {"embeddings": ShapeRange((1, 1, WIDTH), (1, best, WIDTH), (1, LONGEST, WIDTH))}
        for tensor in spec.inputs:
            if tensor.role.startswith("past_"):
                shapes[tensor.name] = ShapeRange((1, 2, 1, 8), CACHE_SHAPE, CACHE_SHAPE)
        found.append(shapes)
    return tuple(found)


@pytest.fixture
def engine(folder, reference):
    return lone_engine(folder, reference.spec, profiles(reference.spec))


@pytest.fixture
def session(device, engine, reference):
    session = TensorRtSession("language_model", reference.spec, engine)
    yield session
    session.close()


def logits_of(session, rows: np.ndarray, cache: KVCache, slices: list[int]) -> list[np.ndarray]:
    """Logits after each slice."""
    stage, start, found = DecoderStage(session), 0, []
    for length in slices:
        found.append(stage.append(rows[start : start + length], cache))
        start += length
    return found


@pytest.mark.parametrize("slices", [[40], [39, 1], [1] * 12, [17, 3, 20], [5, 1, 1, 1, 1, 1, 7, 1, 1, 1, 1, 1]])
def test_slices_give_what_onnx_runtime_gives(session, reference, rows, slices):
    found = logits_of(session, rows, KVCache(session, 16), slices)
    expected = logits_of(reference, rows, KVCache(reference, 16), slices)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def greedy(session, rows: np.ndarray, steps: int) -> list[int]:
    """Ids, each token's row chosen by its id."""
    stage, cache = LanguageModel(session), KVCache(session)
    ids = [int(np.argmax(stage.prefill(rows[:9], cache)))]
    for _ in range(steps):
        ids.append(int(np.argmax(stage.step(rows[ids[-1] : ids[-1] + 1], cache))))
    return ids


def test_greedy_ids_over_many_steps_which_become_a_graph(session, device, reference, rows):
    assert greedy(session, rows, 80) == greedy(reference, rows, 80)
    assert session.captured
    assert device.counts["launches"] >= 70


def test_where_capturing_is_refused_steps_go_on_one_by_one(session, device, reference, rows):
    device.refuse_capture = True
    assert greedy(session, rows, 20) == greedy(reference, rows, 20)
    assert not session.captured
    assert device.counts["launches"] == 0


def test_capturing_waits_until_the_engine_is_ready(session, device, rows):
    device.capturable = False
    cache = KVCache(session, CONTEXT)
    logits_of(session, rows, cache, [1] * 6)
    assert not session.captured
    device.capturable = True
    logits_of(session, rows, cache, [1])
    assert session.captured


def test_an_interrupted_capture_leaves_the_stream_usable(session, device, reference, rows, monkeypatch):
    execute = "tensorrt_stand_in.library.Context.execute_async_v3"

    def interrupted(*_):
        raise KeyboardInterrupt

    cache = KVCache(session, CONTEXT)
    logits_of(session, rows, cache, [3, 1, 1])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(execute, interrupted)
        logits_of(session, rows[5:], cache, [1])
    assert cache.length == 5
    found = logits_of(session, rows[5:], cache, [1, 1, 1, 1])
    expected = logits_of(reference, rows, KVCache(reference, CONTEXT), [3, 1, 1, 1, 1, 1, 1])[3:]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_a_prompt_between_steps_leaves_the_graph_as_it_is(session, device, rows):
    cache = KVCache(session, CONTEXT)
    logits_of(session, rows, cache, [3, *[1] * 6])
    launches, mallocs = device.counts["launches"], device.counts["mallocs"]
    logits_of(session, rows, cache, [40, *[1] * 3])
    assert device.counts["launches"] == launches + 3
    assert device.counts["mallocs"] - mallocs <= 3  # the longer prompt's own buffers


def test_the_cache_never_comes_to_the_host(session, device, rows):
    cache = KVCache(session, CONTEXT)
    logits_of(session, rows, cache, [30, *[1] * 10])
    assert device.counts["dtoh_bytes"] == 11 * VOCABULARY * 4
    assert device.counts["htod_bytes"] == 40 * WIDTH * 4 + 11 * 8


def test_an_empty_cache_is_zeros(session, device):
    """What lies behind the length has no weight; but NaN, which fresh memory may hold, is NaN times nothing, too."""
    cache = session.create_cache(24)
    for address in cache.bound().addresses.values():
        assert not device.memory(address, 2 * 24 * 8 * 4).any()
    cache.write({"key.1": np.ones((1, 2, 5, 8), np.float32)})
    found = cache.read(7)["key.1"]
    assert found[:, :, :5].all()
    assert not found[:, :, 5:].any()


def test_buffers_are_made_once(session, device, rows):
    cache = KVCache(session, CONTEXT)
    logits_of(session, rows, cache, [8, 1, 1])
    before = device.counts["mallocs"]
    cache.rewind(3)
    logits_of(session, rows, cache, [8, 4, 1, 1, 2, 1, 1])
    assert device.counts["mallocs"] == before


def test_rewind_resize_and_resume(session, reference, rows):
    found = []
    for one in (session, reference):
        cache = KVCache(one, step=16)
        logits_of(one, rows, cache, [10, 1, 1, 1, 1, 20])
        cache.rewind(7)
        logits_of(one, rows[60:], cache, [3, 1, 1, 1])
        snapshot = cache.snapshot()
        other = KVCache(one, step=16)
        logits_of(one, rows[20:], other, [40, 1])
        other.resume(snapshot)
        assert (other.length, other.capacity) == (cache.length, cache.capacity)
        found.append((logits_of(one, rows[30:], other, [30, 1, 1, 1, 1]), snapshot, logits_of(one, rows, cache, [1])))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=TOLERANCE)
    np.testing.assert_allclose(found[0][2], found[1][2], atol=TOLERANCE)
    for name, values in found[1][1].contents.items():
        np.testing.assert_allclose(found[0][1].contents[name], values, atol=TOLERANCE)


def test_two_conversations_take_turns(session, reference, rows):
    found = []
    for one in (session, reference):
        caches = [KVCache(one, CONTEXT), KVCache(one, CONTEXT)]
        steps = []
        for start in range(0, 24, 4):
            for cache in caches:
                steps += logits_of(one, rows[start + (cache is caches[1]) * 30 :], cache, [1, 1, 1, 1])
        found.append(steps)
    np.testing.assert_allclose(found[0], found[1], atol=TOLERANCE)


def test_what_a_conversation_leaves_is_used_by_the_next(session, device, rows):
    for _ in range(5):
        cache = KVCache(session, CONTEXT)
        logits_of(session, rows, cache, [5, 1])
        del cache
    assert device.counts["mallocs"] < 4 + 2 * 8 + 8


def test_a_full_context_is_refused_and_nothing_changes(session, rows):
    cache = KVCache(session, 16)
    logits_of(session, rows, cache, [40, 40, CONTEXT - 82])
    with pytest.raises(ContextFullError):
        logits_of(session, rows, cache, [3])
    assert cache.length == CONTEXT - 2


def test_prompts_longer_than_the_engine_takes_go_in_slices(session, reference, rows):
    assert session.max_positions == LONGEST
    found = LanguageModel(session).prefill(rows[:90], KVCache(session))
    expected = LanguageModel(reference).prefill(rows[:90], KVCache(reference))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_a_call_outside_the_profile_names_limit_and_flag(session, rows):
    with pytest.raises(
        BackendError, match=r"'language_model': 'embeddings' has 41 in dimension 1; .* 1 to 40"
    ) as caught:
        logits_of(session, rows, KVCache(session), [41])
    assert "--max-prompt 41" in caught.value.fix


def test_other_inputs_than_the_graphs(session):
    with pytest.raises(BackendError, match=r"stage 'language_model' failed: its inputs .* differ in .*cache_length"):
        session.run({})


def test_run_without_a_cache_gives_the_outputs_that_are_asked_for(device, folder, reference):
    spec = reference.spec
    feeds = {"embeddings": np.ones((1, 2, WIDTH), np.float32), "cache_length": np.zeros(1, np.int64)}
    empty = np.zeros((1, 2, 4, 8), np.float32)
    feeds |= {tensor.name: empty for tensor in spec.inputs if tensor.role.startswith("past_")}
    session = TensorRtSession("language_model", spec, lone_engine(folder, spec, profiles(spec)))
    try:
        assert set(session.run(feeds, ["logits"])) == {"logits"}
        found = session.run(feeds)
        for name, values in reference.run(feeds).items():
            np.testing.assert_allclose(found[name], values, atol=TOLERANCE)
    finally:
        session.close()


def test_an_input_that_tensorrt_reads_on_the_host(device, folder, reference, rows):
    matched = lone_engine(folder, reference.spec, profiles(reference.spec), host_inputs=("cache_length",))
    session = TensorRtSession("language_model", reference.spec, matched)
    try:
        assert greedy(session, rows, 12) == greedy(reference, rows, 12)
        assert not session.captured  # a graph would keep the first length
    finally:
        session.close()


def test_every_layers_time_is_told_to_a_profiler(device, engine, reference, rows):
    class Times:
        def __init__(self):
            self.layers = []

        def report_layer_time(self, name, milliseconds):
            self.layers.append((name, milliseconds))

    times = Times()
    session = TensorRtSession("language_model", reference.spec, engine, profiler=times)
    logits_of(session, rows, KVCache(session), [4, 1, 1, 1, 1, 1])
    session.close()
    assert len(times.layers) == 6
