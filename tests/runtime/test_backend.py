"""ONNX Runtime's failures are named, and a graph must be what the manifest says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_decoder import WIDTH, small_decoder

from sottovoce.runtime import cores
from sottovoce.runtime.backends.half_precision import multiplies_half_precision
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.onnxruntime_options import PROVIDER
from sottovoce.runtime.errors import BackendError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("decoder")


@pytest.fixture(scope="module")
def session(folder):
    return small_decoder(folder)


def test_a_damaged_graph(session, tmp_path):
    damaged = tmp_path / "language_model.onnx"
    damaged.write_bytes(b"\x08\x08 this is no graph")
    with pytest.raises(BackendError, match="stage 'language_model' cannot load the graph") as caught:
        OnnxRuntimeSession("language_model", session.spec, damaged)
    assert caught.value.file == str(damaged)
    assert caught.value.fix


def test_weights_that_are_not_there(session, folder, tmp_path):
    copy = tmp_path / "language_model.onnx"
    copy.write_bytes((folder / session.spec.file).read_bytes())
    with pytest.raises(BackendError, match="cannot load the graph"):
        OnnxRuntimeSession("language_model", session.spec, copy)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_graph_with_other_names_than_the_manifest(session, folder, side):
    first, *others = getattr(session.spec, side)
    spec = replace(session.spec, **{side: (replace(first, name="renamed"), *others)})
    with pytest.raises(BackendError, match=f"graph's {side} and the manifest's differ in .*renamed"):
        OnnxRuntimeSession("language_model", spec, folder / spec.file)


def test_run_gives_outputs_by_name(session):
    feeds = {"embeddings": np.zeros((1, 2, WIDTH), dtype=np.float32), "cache_length": np.zeros(1, dtype=np.int64)}
    empty = np.zeros((1, 2, 4, 8), dtype=np.float32)
    feeds |= {tensor.name: empty for tensor in session.spec.inputs if tensor.role.startswith("past_")}
    assert set(session.run(feeds)) == {tensor.name for tensor in session.spec.outputs}
    assert set(session.run(feeds, ["logits"])) == {"logits"}


def test_a_missing_feed(session):
    with pytest.raises(BackendError, match="stage 'language_model' failed"):
        session.run({})


def test_a_stage_without_cache(session, folder):
    plain = OnnxRuntimeSession("codec", replace(session.spec, cache=None), folder / session.spec.file)
    with pytest.raises(BackendError, match="stage 'codec' has no cache"):
        plain.create_cache(8)


def test_a_closed_session(folder):
    closed = small_decoder(folder)
    closed.close()
    with pytest.raises(BackendError, match="failed"):
        closed.run({})


def test_the_probe_for_half_precision_is_a_graph():
    """An engine that cannot read the probe would raise; on x86 there are no float16 products."""
    assert multiplies_half_precision(PROVIDER) in (True, False)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8), ("", 8)],
)
def test_a_containers_share_of_cores(tmp_path, monkeypatch, quota, expected):
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(cores, "QUOTA_V2", tmp_path / "cpu.max")
    monkeypatch.setattr(cores, "QUOTA_V1", tmp_path / "absent")
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: range(8))
    assert cores.available_cores() == expected


def test_a_share_of_cores_in_the_older_files(tmp_path, monkeypatch):
    (tmp_path / "quota").write_text("300000\n")
    (tmp_path / "period").write_text("100000\n")
    monkeypatch.setattr(cores, "QUOTA_V2", tmp_path / "absent")
    monkeypatch.setattr(cores, "QUOTA_V1", tmp_path / "quota")
    monkeypatch.setattr(cores, "PERIOD_V1", tmp_path / "period")
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: range(8))
    assert cores.available_cores() == 3
    (tmp_path / "quota").write_text("-1\n")
    assert cores.available_cores() == 8
