"""A bundle's engines on the stand-in for TensorRT: which are used, why others are not, and what goes on without."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys

import numpy as np
import pytest
from short_bundle import shortened
from stage_feeds import FEED_FORWARD, feeds_of
from tensorrt_stand_in.installing import stand_in, write_engines

from sottovoce.runtime import backends
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import check_backend, open_session
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.tensorrt import TensorRtSession
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines import machine
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.model import Model
from sottovoce.runtime.reply import ReplyDone

STAGE = "speech_text"
QUESTION = "what is the capital of france"


@pytest.fixture(scope="module")
def built(tiny_bundle, tmp_path_factory) -> Bundle:
    """The tiny bundle with engines of all stages."""
    path = tmp_path_factory.mktemp("built") / "tiny.bundle"
    shutil.copytree(tiny_bundle, path)
    bundle = Bundle.open(path)
    write_engines(bundle)
    return bundle


@pytest.fixture
def copied(built, tmp_path) -> Bundle:
    """One that a test may change."""
    path = tmp_path / "tiny.bundle"
    shutil.copytree(built.path, path)
    return Bundle.open(path)


@pytest.fixture
def device(monkeypatch):
    with stand_in(monkeypatch) as device:
        yield device


@pytest.mark.parametrize("stage", FEED_FORWARD)
def test_stages_give_what_onnx_runtime_gives(device, built, stage):
    feeds = feeds_of(built, stage)
    session, reference = open_session(built, stage, "tensorrt"), open_session(built, stage, threads=1)
    assert isinstance(session, TensorRtSession)
    try:
        for _ in range(3):
            found, expected = session.run(feeds), reference.run(feeds)
            assert set(found) == set(expected)
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, atol=1e-5)
        [first, *_] = found
        assert set(session.run(feeds, [first])) == {first}
    finally:
        session.close()


def answered(bundle: Bundle, backend: str, **options) -> list[list[int]]:
    """Tokens of two turns, one with speech."""
    found = []
    with Assistant(Model(shortened(bundle), backend, threads=1, **options)) as assistant:
        conversation = assistant.conversation(greedy=True, max_new_tokens=12)
        for question in (QUESTION, "and of italy"):
            *_, done = conversation.ask(question)
            assert isinstance(done, ReplyDone)
            found.append(list(done.tokens))
    return found


def test_a_conversation_gives_the_same_ids(device, built):
    assert answered(built, "tensorrt", require_engine=True) == answered(built, "onnxruntime")
    assert device.counts["executions"] > 20
    assert device.leaks() == []


# Which engines are used


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
    monkeypatch.setattr("sottovoce.runtime.backends.tensorrt.installed_libraries", lambda: ("json",))
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setattr("json.__version__", "1", raising=False)
    with pytest.raises(BackendError, match="pycuda cannot be imported"):
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


# Failures while it runs


def test_out_of_gpu_memory(monkeypatch, built, caplog):
    with stand_in(monkeypatch, total_bytes=300_000) as device:
        session = open_session(built, "speech_codes", "tensorrt")
        with pytest.raises(BackendError, match=r"'speech_codes' could not make a cache .* out of GPU memory") as caught:
            session.create_cache(4096)
        assert "quantize the bundle" in caught.value.fix
        used = device.used_bytes
        assert used == 0  # all of a cache or nothing
        small = session.create_cache(8)
        with pytest.raises(BackendError, match="could not grow its cache to 4000 positions"):
            small.resize(4000, 4)
        assert small.capacity == 8
        assert small.read(8)
        session.close()


def test_a_device_that_is_lost_keeps_the_history(device, built):
    assistant = Assistant(Model(shortened(built), "tensorrt", threads=1, require_engine=True))
    with assistant:
        conversation = assistant.conversation(greedy=True, max_new_tokens=12, speech=False)
        *_, done = conversation.ask(QUESTION)
        history = list(conversation.history)
        device.lost_after = device.counts["executions"] + 3
        with pytest.raises(BackendError, match=r"the GPU was lost .* the conversation's history is kept") as caught:
            for _ in conversation.ask("and of italy"):
                pass
        assert "start sottovoce again" in caught.value.fix
        assert list(conversation.history)[: len(history)] == history
        assert history[-1].text == done.text
        with pytest.raises(BackendError, match="'language_model'"):
            for _ in conversation.ask("hello"):
                pass


def test_an_exception_in_between_leaves_nothing_behind(device, built):
    class Stop(Exception):
        pass

    with pytest.raises(Stop), Assistant(Model(shortened(built), "tensorrt", threads=1)) as assistant:
        assistant.load()  # in other threads than this, which closes
        for _ in assistant.conversation(greedy=True, max_new_tokens=12).ask(QUESTION):
            raise Stop
    assert device.counts["executions"] > 0


def test_an_engine_that_fails_names_the_stage_and_what_the_log_says(device, built, monkeypatch):
    session = open_session(built, STAGE, "tensorrt")
    monkeypatch.setattr(
        "tensorrt_stand_in.library.Context.execute_async_v3", lambda self, _: self._refuse("no kernel image")
    )
    with pytest.raises(BackendError, match=r"'speech_text' failed on the GPU stand-in: .* no kernel image"):
        session.run(feeds_of(built, STAGE))
    session.close()
    with pytest.raises(BackendError, match="is closed"):
        session.run(feeds_of(built, STAGE))
    session.close()


def test_a_cache_outlives_its_session(device, built):
    session = open_session(built, "language_model", "tensorrt")
    cache = session.create_cache(16)
    session.close()
    for use in (lambda: cache.read(3), lambda: cache.resize(32, 0), lambda: cache.write({}), cache.bound):
        with pytest.raises(BackendError, match="'language_model' is closed"):
            use()
    with pytest.raises(BackendError, match="is closed"):
        session.create_cache(16)
    with pytest.raises(BackendError, match="has no cache"):
        open_session(built, STAGE).create_cache(8)
