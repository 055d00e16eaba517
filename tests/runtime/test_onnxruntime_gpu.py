"""ONNX Runtime's GPU providers: what is said where one is missing, and the cache on the device (here, of the CPU)."""

from __future__ import annotations

import sys
import types

import numpy as np
import onnxruntime
import pytest
from small_decoder import CONTEXT, WIDTH, small_decoder

from sottovoce.runtime.backends import onnxruntime as onnxruntime_backend
from sottovoce.runtime.backends import open_session
from sottovoce.runtime.backends.onnxruntime_gpu import PROVIDERS, OnnxRuntimeGpuSession, Provider
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.stages.decoder import DecoderStage

HERE = Provider("CPUExecutionProvider", "nothing", device="cpu")
"""The device's cache and its bindings are the same calls on the CPU."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("decoder")


@pytest.fixture(scope="module")
def reference(folder):
    return small_decoder(folder)


@pytest.fixture
def session(folder, reference):
    session = OnnxRuntimeGpuSession("language_model", reference.spec, folder / reference.spec.file, HERE, 1)
    yield session
    session.close()


@pytest.mark.parametrize("backend", list(PROVIDERS))
def test_a_provider_that_is_not_here_says_what_to_install(tiny_bundle, backend):
    provider = PROVIDERS[backend]
    with pytest.raises(
        BackendError, match=f"'codec': ONNX Runtime's provider {provider.name} is not available"
    ) as caught:
        open_session(Bundle.open(tiny_bundle), "codec", backend)
    assert "pip install onnxruntime" in caught.value.fix
    assert "--backend onnxruntime" in caught.value.fix


def test_a_provider_that_does_not_start(folder, reference, monkeypatch):
    """Its own libraries are missing: ONNX Runtime goes on with the CPU, and only its log says so."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    onnxruntime_session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, options, providers: onnxruntime_session(path, options)
    )
    with pytest.raises(BackendError, match=r"it did not start; CPUExecutionProvider did"):
        OnnxRuntimeGpuSession("codec", reference.spec, folder / reference.spec.file, PROVIDERS["cuda"])


def test_a_plug_in_that_finds_no_gpu(folder, reference, monkeypatch):
    plugin = types.ModuleType("onnxruntime_ep_nv_tensorrt_rtx")
    plugin.get_ep_name, plugin.get_library_path = lambda: "NvTensorRTRTXExecutionProvider", lambda: "nowhere.so"
    monkeypatch.setitem(sys.modules, plugin.__name__, plugin)
    registered = []
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", lambda *names: registered.append(names))
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [])
    for _ in range(2):
        with pytest.raises(BackendError, match="it finds no GPU"):
            OnnxRuntimeGpuSession("codec", reference.spec, folder / reference.spec.file, PROVIDERS["nv-tensorrt-rtx"])
    assert registered == [("NvTensorRTRTXExecutionProvider", "nowhere.so")]


def test_the_cache_gives_what_the_cpus_gives(session, reference):
    rows = np.random.default_rng(2).standard_normal((CONTEXT, WIDTH)).astype(np.float32)
    found = []
    for one in (session, reference):
        cache, stage = KVCache(one, step=16), DecoderStage(one)
        logits = [stage.append(rows[:13], cache), *(stage.append(rows[n : n + 1], cache) for n in range(13, 25))]
        snapshot = cache.snapshot()
        cache.rewind(6)
        logits.append(stage.append(rows[40:44], cache))
        other = KVCache(one, step=16)
        other.resume(snapshot)
        logits.append(stage.append(rows[50:51], other))
        found.append(logits)
    np.testing.assert_allclose(found[0], found[1], atol=2e-6)


def test_the_cache_is_updated_in_place(session, reference):
    cache = KVCache(session, step=32)
    addresses = {name: value.data_ptr() for name, value in cache._buffers._buffers.items()}
    DecoderStage(session).append(np.ones((5, WIDTH), np.float32), cache)
    for name, value in cache._buffers._buffers.items():
        assert value.data_ptr() == addresses[name]
        assert value.numpy()[:, :, :5].any()
        assert not value.numpy()[:, :, 5:].any()
    assert not session.widened


def test_a_gpu_gets_none_of_the_processors_kernels(folder, reference, monkeypatch):
    monkeypatch.setattr(onnxruntime_backend, "kernels_for", lambda spec, path: folder / "nowhere.so")
    path = folder / reference.spec.file
    OnnxRuntimeGpuSession("language_model", reference.spec, path, HERE, 1).close()
    with pytest.raises(BackendError, match=r"nowhere\.so"):
        onnxruntime_backend.OnnxRuntimeSession("language_model", reference.spec, path, 1)


def test_a_stage_without_a_cache(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    spec = bundle.graph("codec")
    session = OnnxRuntimeGpuSession("codec", spec, bundle.file(spec.file), HERE, 1)
    with pytest.raises(BackendError, match="stage 'codec' has no cache"):
        session.create_cache(8)
    assert session.run({"codes": np.zeros((1, 3), np.int64)})
