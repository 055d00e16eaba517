"""Which of a bundle's engines are used, and why others are not; nothing that is not what was built is loaded."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys

import pytest
from tensorrt_stand_in.installing import stand_in

from sottovoce.runtime import backends
from sottovoce.runtime.backends import check_backend, open_session
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.tensorrt import TensorRtSession
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines import machine
from sottovoce.runtime.errors import BackendError

STAGE = "speech_text"


@pytest.fixture
def copied(built, tmp_path) -> Bundle:
    """One that a test may change."""
    path = tmp_path / "tiny.bundle"
    shutil.copytree(built.path, path)
    return Bundle.open(path)


def test_with_no_gpu_and_nothing_built_auto_is_onnx_runtime(built, tiny_bundle, monkeypatch):
    assert check_backend("auto") == "onnxruntime"
    assert check_backend("auto", built) == "onnxruntime"  # no GPU here
    monkeypatch.setattr(backends, "may_run_engines", lambda: True)
    assert check_backend("auto", built) == "tensorrt"
    assert check_backend("auto", Bundle.open(tiny_bundle)) == "onnxruntime"


def test_looking_for_a_gpu_needs_its_device_and_the_libraries(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "DEVICES_FOLDER", tmp_path)
    monkeypatch.setattr(machine, "_is_installed", lambda _: True)
    assert not machine.may_run_engines()
    (tmp_path / "nvidia0").touch()
    assert machine.may_run_engines()
    monkeypatch.setattr(machine, "_is_installed", lambda name: name == "pycuda")
    assert not machine.may_run_engines()


def changed(bundle: Bundle, edit) -> None:
    """Change what is written down of the stage's engine."""
    path = bundle.path / "engines" / "local" / "engines.json"
    record = json.loads(path.read_text())
    edit(record["engines"][STAGE])
    path.write_text(json.dumps(record))


def stale(engine):
    engine["fingerprint"]["graph_sha256"] = "1" * 64


def other_system(engine):
    engine["fingerprint"]["platform"] = "linux-riscv64"


def other_library(engine):
    engine["fingerprint"]["library"] = "tensorrt_rtx"


def other_size(engine):
    engine["bytes"] += 1


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (stale, "built from another graph of stage 'speech_text'"),
        (other_system, "built for linux-riscv64, this is "),
        (other_library, r"built with tensorrt_rtx, which is not installed here \(tensorrt 10.13.3.9 is\)"),
        (other_size, "bytes, its record says"),
    ],
)
def test_what_does_not_fit_is_not_used_and_the_reason_is_said_once(device, copied, caplog, edit, why):
    changed(copied, edit)
    with caplog.at_level(logging.WARNING, "sottovoce"):
        for _ in range(2):
            assert isinstance(open_session(copied, STAGE, "tensorrt"), OnnxRuntimeSession)
    [remark] = caplog.messages
    assert "ONNX Runtime instead of an engine" in remark
    with pytest.raises(BackendError, match=why) as caught:
        open_session(copied, STAGE, "tensorrt", require_engine=True)
    assert "one is required" in caught.value.message
    assert "sottovoce build" in caught.value.fix
    assert device.counts["mallocs"] == 0


@pytest.mark.parametrize(
    ("here", "why"),
    [
        ({"version": "10.3.0"}, "built with tensorrt 10.13.3.9, here is 10.3.0"),
        ({"compute_capability": (8, 7)}, "built for compute capability 8.9, this GPU has 8.7"),
        ({"gpus": 0}, "no GPU can be used through CUDA: cuInit failed: no CUDA-capable device"),
    ],
)
def test_another_machine(monkeypatch, built, here, why):
    with stand_in(monkeypatch, **here), pytest.raises(BackendError, match=why):
        open_session(built, STAGE, require_engine=True)


def test_no_library(device, built, monkeypatch):
    monkeypatch.setattr("sottovoce.runtime.backends.tensorrt.installed_libraries", lambda: ())
    with pytest.raises(
        BackendError, match="no library that runs engines is installed: tensorrt or tensorrt_rtx"
    ) as caught:
        open_session(built, STAGE, "tensorrt", require_engine=True)
    assert "sottovoce[gpu]" in caught.value.fix


def test_no_pycuda(built, monkeypatch):
    monkeypatch.setattr("sottovoce.runtime.backends.tensorrt.installed_libraries", lambda: ("tensorrt",))
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(BackendError, match="pycuda cannot be imported") as caught:
        open_session(built, STAGE, "tensorrt", require_engine=True)
    assert "pip install pycuda" in caught.value.fix


def test_a_library_that_is_a_stub(device, built, monkeypatch):
    monkeypatch.delattr("tensorrt.Builder")
    with pytest.raises(BackendError, match="'tensorrt' is there, but is not TensorRT"):
        open_session(built, STAGE, "tensorrt", require_engine=True)


def test_nothing_built(device, tiny_bundle):
    with pytest.raises(BackendError, match="this bundle has no engines") as caught:
        open_session(Bundle.open(tiny_bundle), STAGE, "auto", require_engine=True)
    assert "sottovoce build" in caught.value.fix


def test_an_engine_is_required_of_a_backend_without_any():
    with pytest.raises(BackendError, match="the backend 'onnxruntime' has none"):
        check_backend("onnxruntime", require_engine=True)
    with pytest.raises(BackendError, match="unknown backend 'abacus'"):
        check_backend("abacus", require_engine=True)


# Files that are not what was built: the hash is compared before the library sees them


def damage(bundle: Bundle, keep_record: bool = True) -> None:
    path = bundle.path / "engines" / "local" / f"{STAGE}.engine"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    if not keep_record:
        changed(bundle, lambda engine: engine.update(sha256=hashlib.sha256(data).hexdigest()))


def test_a_damaged_engine_never_reaches_the_library(device, copied, monkeypatch):
    damage(copied)
    monkeypatch.setattr("tensorrt.Runtime", None)
    with pytest.raises(BackendError, match=r"SHA-256 is .* it was changed or damaged") as caught:
        open_session(copied, STAGE, "tensorrt", require_engine=True)
    assert caught.value.file.endswith("speech_text.engine")
    assert isinstance(open_session(copied, STAGE, "tensorrt"), OnnxRuntimeSession)


def test_an_engine_that_the_library_cannot_read(device, copied):
    damage(copied, keep_record=False)
    with pytest.raises(BackendError, match=r"could not load its engine .* cannot read the engine; magic tag"):
        open_session(copied, STAGE, "tensorrt", require_engine=True)
    assert device.leaks() == []


def test_a_record_that_cannot_be_read(device, copied):
    (copied.path / "engines" / "local" / "engines.json").write_text("{")
    with pytest.raises(BackendError, match="the record of the engines cannot be read"):
        open_session(copied, STAGE, "tensorrt", require_engine=True)
    assert isinstance(open_session(copied, STAGE, "tensorrt"), OnnxRuntimeSession)


def test_a_graph_with_other_tensors_than_the_engine(device, copied):
    session = open_session(copied, "codec", "tensorrt")
    matched = session._matched
    session.close()
    with pytest.raises(BackendError, match=r"the engine's inputs and the manifest's differ in .*frames"):
        TensorRtSession("codec", copied.graph(STAGE), matched)
    assert device.leaks() == []
