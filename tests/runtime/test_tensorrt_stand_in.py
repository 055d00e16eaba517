"""The stand-in for TensorRT and pycuda catches what would go wrong on a GPU: the backend is broken, and tests fail."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
from small_decoder import WIDTH, small_decoder
from tensorrt_stand_in.device import Device, LogicError
from tensorrt_stand_in.installing import lone_engine, stand_in
from test_tensorrt_decoder import profiles

from sottovoce.runtime.backends import cuda_device, device_cache, engine_profile
from sottovoce.runtime.backends.tensorrt import TensorRtSession
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.stages.decoder import DecoderStage

TOLERANCE = 2e-6


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoder")
    reference = small_decoder(folder)
    return reference, lone_engine(folder, reference.spec, profiles(reference.spec))


@pytest.fixture
def device(monkeypatch) -> Device:
    with stand_in(monkeypatch, check_leaks=False) as device:
        yield device


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((20, WIDTH)).astype(np.float32)


def right_logits(decoder, rows) -> np.ndarray:
    """Whether the backend gives what ONNX Runtime gives, over a prompt and steps that become a graph."""
    reference, matched = decoder
    session = TensorRtSession("language_model", reference.spec, matched)
    found = []
    try:
        for one in (session, reference):
            cache, stage = KVCache(one, 16), DecoderStage(one)
            found.append([stage.append(rows[:7], cache), *(stage.append(rows[n : n + 1], cache) for n in range(7, 20))])
    finally:
        session.close()
    return bool(np.allclose(*found, atol=TOLERANCE))


def test_as_it_is_nothing_is_wrong(device, decoder, rows):
    assert right_logits(decoder, rows)
    assert device.leaks() == []


def test_results_that_are_not_waited_for(device, decoder, rows, monkeypatch):
    monkeypatch.setattr("pycuda.driver.Stream.synchronize", lambda _: None)
    with pytest.raises(BackendError, match="no numbers"):  # what nobody wrote yet is NaN
        right_logits(decoder, rows)


def test_feeds_that_are_overwritten_too_early(device, decoder, rows, monkeypatch):
    """Pinned memory is read when the copy is done, not when it is asked for."""
    enqueue = engine_profile.EngineProfile._enqueue

    def early(self, lane):
        enqueue(self, lane)
        for values in self._fed.values():
            values[...] = 0

    monkeypatch.setattr(engine_profile.EngineProfile, "_enqueue", early)
    assert not right_logits(decoder, rows)


def test_an_address_that_is_nobodys(device, decoder, rows, monkeypatch):
    address = cuda_device.DeviceBuffer.address
    wrong = property(lambda self: address.fget(self) + (1 << 16))
    monkeypatch.setattr(cuda_device.DeviceBuffer, "address", wrong)
    with pytest.raises(BackendError, match=r"illegal memory access: nothing is allocated at 0x7f"):
        right_logits(decoder, rows)


def test_a_buffer_that_is_too_small(device, decoder, rows, monkeypatch):
    allocate = cuda_device.CudaDevice.allocate
    monkeypatch.setattr(cuda_device.CudaDevice, "allocate", lambda self, size: allocate(self, size // 2))
    with pytest.raises(BackendError, match=r"illegal memory access: .* reach too far"):
        right_logits(decoder, rows)


def test_a_present_that_is_not_its_past(device, decoder, rows, monkeypatch):
    hold = device_cache.DeviceCache._hold

    def swapped(self, buffers, capacity):
        hold(self, buffers, capacity)
        one, other = self._memory.outputs["key.0"], self._memory.outputs["value.0"]
        addresses = dict(self._held.addresses)
        addresses[one], addresses[other] = addresses[other], addresses[one]
        self._held = engine_profile.HeldTensors(addresses, self._held.shapes, self._held.version)

    monkeypatch.setattr(device_cache.DeviceCache, "_hold", swapped)
    with pytest.raises(BackendError, match=r"'language_model' failed .* have different addresses"):
        right_logits(decoder, rows)


@pytest.mark.parametrize(("capacity", "problem"), [(32, "reach too far"), (1000, "does not take|dimension 2")])
def test_a_shape_that_is_not_the_caches(device, decoder, rows, monkeypatch, capacity, problem):
    bound = device_cache.DeviceCache.bound

    def other(self):
        held = bound(self)
        return replace(held, shapes=dict.fromkeys(held.shapes, (1, 2, capacity, 8)))

    monkeypatch.setattr(device_cache.DeviceCache, "bound", other)
    with pytest.raises(BackendError, match=problem):
        right_logits(decoder, rows)


def test_an_input_that_has_no_shape(device, decoder, rows, monkeypatch):
    library = importlib.import_module("tensorrt_stand_in.library")
    monkeypatch.setattr(library.Context, "set_input_shape", lambda *_: True)
    with pytest.raises(BackendError, match=r"the size of .* is not known before a run"):
        right_logits(decoder, rows)


def test_a_graph_that_outlives_its_buffers(device, decoder, rows, monkeypatch):
    """The cache grows from 16 to 32 positions; a graph of before writes where nothing is any more."""
    monkeypatch.setattr(engine_profile.EngineProfile, "_forget", lambda self: None)
    monkeypatch.setattr(device_cache.CacheMemory, "put_aside", lambda self, capacity, buffers: self._free(buffers))
    with pytest.raises(BackendError, match=r"illegal memory access|differ"):
        right_logits(decoder, rows)


@pytest.mark.parametrize("kept", ["device memory", "pinned memory", "context"])
def test_what_is_not_given_back(device, decoder, rows, monkeypatch, kept):
    match kept:
        case "device memory":
            monkeypatch.setattr(device_cache.CacheMemory, "free", lambda self: None)
        case "pinned memory":
            monkeypatch.setattr(cuda_device.PinnedBuffer, "free", lambda self: None)
        case "context":
            monkeypatch.setattr("sottovoce.runtime.backends.tensorrt.give_gpu_back", lambda: None)
    assert right_logits(decoder, rows)
    assert any(kept in leak for leak in device.leaks())


def test_memory_that_can_be_moved_is_not_copied_asynchronously(device, monkeypatch):
    import pycuda.driver

    context = pycuda.driver.Device(0).retain_primary_context()
    with pytest.raises(LogicError, match="context"):
        pycuda.driver.mem_alloc(16)
    context.push()
    memory, stream = pycuda.driver.mem_alloc(16), pycuda.driver.Stream()
    with pytest.raises(LogicError, match="not pinned"):
        pycuda.driver.memcpy_htod_async(int(memory), np.zeros(4, np.float32), stream)
    context.pop()
    assert len(device.leaks()) == 3  # the memory, the stream, the context
