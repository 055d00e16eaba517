"""Which graphs the kernels compute, and that a trained model says the same through them as through others."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from kernel_graphs import BlockedWeights, needs_kernels, session

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.quantize import QuantizeJob, quantize
from sottovoce.demos.first_answer import TRAINED
from sottovoce.export.export import ExportOptions, export
from sottovoce.runtime.backends import onnxruntime as backend
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.onnxruntime_options import INTEGER_WEIGHTS
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.kernels.fused_graph import OWN_DOMAIN, fused_graph
from sottovoce.runtime.kernels.library import compiled_kernels, kernels_for, usable_kernels
from sottovoce.runtime.manifest import GraphSpec, StageName, TensorSpec
from sottovoce.runtime.profiling.layers.events import Run
from sottovoce.runtime.profiling.layers.multiply_adds import multiply_adds
from sottovoce.runtime.profiling.layers.profiled_session import ProfiledSession
from sottovoce.runtime.stages.decoder import DecoderStage

DECODERS: tuple[StageName, ...] = ("language_model", "speech_codes")
STEPS = 60
FUSED = {"language_model": {"AttentionBlock", "GatedBlock"}, "speech_codes": {"GatedBlock"}}
"""As it is profiled. The second's attention sees all positions of a call, and is spelled otherwise."""
LAYERS = {"language_model": {"DecoderLayers": 1}, "speech_codes": {"GatedBlock": 4}}
"""As it runs."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("kernels") / "miniature.bundle"
    export(TRAINED.checkpoint, path, ExportOptions(target="cpu"))
    return Bundle.open(path)


@pytest.fixture(scope="module", params=["int8-weights", "int4-weights:32"])
def quantized(exported: Bundle, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("quantized") / "miniature.bundle"
    plan = parse_plan(",".join(f"{stage}={request.param}" for stage in DECODERS))
    quantize(QuantizeJob(exported, plan), BundleWriter(path, force=False))
    return Bundle.open(path)


def can_compile(folder: Path) -> bool:
    """Whether there is a C compiler with its headers, for the kind of machine that the kernels are for."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or shutil.which("cc") is None:
        return False
    (folder / "tried.c").write_text("#include <stdlib.h>\n#include <immintrin.h>\n")
    return subprocess.run(["cc", "-c", "tried.c"], cwd=folder, capture_output=True, check=False).returncode == 0


def test_they_are_compiled_where_there_is_a_compiler(tmp_path: Path) -> None:
    if not can_compile(tmp_path):
        pytest.skip("no C compiler for Linux on x86-64")
    assert compiled_kernels() is not None


@needs_kernels
def test_graphs_in_float32_with_a_cache_are_theirs(exported: Bundle) -> None:
    for stage in exported.manifest.graphs:
        spec = exported.graph(stage)
        taken = kernels_for(spec, exported.file(spec.file))
        assert taken == (usable_kernels() if stage in DECODERS else None), stage


def _changed(spec: GraphSpec, **changes: object) -> GraphSpec:
    assert spec.cache is not None
    return replace(spec, cache=replace(spec.cache, **changes))


@needs_kernels
def test_other_caches_and_floats_are_not(exported: Bundle) -> None:
    spec = exported.graph("language_model")
    path = exported.file(spec.file)
    others = [
        _changed(spec, dtype="float16"),
        _changed(spec, dtype="int8"),
        _changed(spec, head_size=8),
        _changed(spec, head_size=144),
        replace(spec, precision="fp16"),
    ]
    assert [kernels_for(other, path) for other in others] == [None] * len(others)


@needs_kernels
def test_a_graph_that_does_not_name_the_domain_is_not(exported: Bundle, tmp_path: Path) -> None:
    spec = exported.graph("language_model")
    graph = exported.file(spec.file).read_bytes()
    (tmp_path / "graph.onnx").write_bytes(graph.replace(b"com.microsoft", b"org.elsewhere"))
    assert kernels_for(spec, tmp_path / "graph.onnx") is None


@needs_kernels
@pytest.mark.parametrize("stage", DECODERS)
def test_the_miniature_says_the_same(stage: StageName, exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, tokens = _says(exported, stage)
    monkeypatch.setattr(backend, "kernels_for", lambda spec, path: None)
    theirs, other_tokens = _says(exported, stage)
    assert tokens == other_tokens
    assert len(set(tokens)) > 3
    assert np.abs(ours - theirs).max() <= 2e-5 * np.abs(theirs).max()


@needs_kernels
@pytest.mark.parametrize("stage", DECODERS)
def test_integers_are_as_near_to_exact_products_as_others(
    stage: StageName, quantized: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both round the rows to 8 bits; what unrounded rows would give is ONNX Runtime's accuracy level 1."""
    ours, _ = _says(quantized, stage)
    monkeypatch.setattr(backend, "kernels_for", lambda spec, path: None)
    theirs, _ = _says(quantized, stage)
    monkeypatch.setitem(INTEGER_WEIGHTS, "session.qdq_matmulnbits_accuracy_level", "1")
    exact, _ = _says(quantized, stage)
    if np.array_equal(theirs, exact):
        pytest.skip("this ONNX Runtime (before 1.32) has no kernel for such weights, and multiplies floats")
    assert 0 < _rms(ours - exact) <= 1.1 * _rms(theirs - exact)
    assert _rms(ours - exact) <= 0.02 * _rms(exact)


@needs_kernels
@pytest.mark.parametrize("stage", DECODERS)
def test_its_layers_run_fused(stage: StageName, quantized: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = quantized.graph(stage)
    path = quantized.file(spec.file)
    model = onnx.load_from_string(fused_graph(path, 2) or b"")
    found = Counter(node.op_type for node in model.graph.node if node.domain == OWN_DOMAIN)
    assert found == LAYERS[stage]
    monkeypatch.setattr(OnnxRuntimeSession, "_load_with", lambda *_: pytest.fail("ONNX Runtime did not take it"))
    OnnxRuntimeSession(stage, spec, path, threads=2)


@needs_kernels
@pytest.mark.parametrize("stage", DECODERS)
def test_a_profile_is_of_the_graph_that_runs(stage: StageName, quantized: Bundle, tmp_path: Path) -> None:
    fused, plain = (_profiled(quantized, stage, tmp_path, fuses=fuses) for fuses in (True, False))
    ours, theirs = ({operator.operator for operator in run.operators} for run in (fused, plain))
    assert ours & {"AttentionBlock", "GatedBlock"} == FUSED[stage]
    assert not theirs & {"AttentionBlock", "GatedBlock"}
    counted = [[multiply_adds(operator, filled=5) for operator in run.operators] for run in (fused, plain)]
    assert None not in counted[0] + counted[1]
    assert sum(counted[0]) == sum(counted[1]) > 0


@needs_kernels
def test_what_they_refuse_others_compute(exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = BlockedWeights(4, 96, 50, 32)
    (tmp_path / "product.onnx").write_bytes(weights.graph(zero_point=7))
    spec = replace(
        exported.graph("codec"),
        inputs=(TensorSpec("rows", "rows", "float32", (1, "count", 96)),),
        outputs=(TensorSpec("result", "result", "float32", (1, "count", 50)),),
    )
    monkeypatch.setattr(backend, "kernels_for", lambda spec, path: usable_kernels())
    loaded = OnnxRuntimeSession("codec", spec, tmp_path / "product.onnx", threads=1)
    rows = np.random.default_rng(2).normal(size=(1, 3, 96)).astype(np.float32)
    (expected,) = session(weights.graph(zero_point=7), ours=False).run(None, {"rows": rows})
    assert loaded.run({"rows": rows})["result"] == pytest.approx(
        expected, abs=0.01
    )  # one of them rounds its rows to 8 bits


def _profiled(bundle: Bundle, stage: StageName, folder: Path, *, fuses: bool) -> Run:
    """One call of five positions."""
    spec = bundle.graph(stage)
    with pytest.MonkeyPatch.context() as patched:
        if not fuses:
            patched.setattr(ProfiledSession, "_fused", lambda self, threads: None)
        session = ProfiledSession(stage, spec, bundle.file(spec.file), 2, folder)
    model = DecoderStage(session)
    model.append(np.ones((5, 256), np.float32), model.create_cache())
    [run] = session.runs()
    return run


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _says(bundle: Bundle, stage: StageName) -> tuple[np.ndarray, list[int]]:
    """Logits behind a prompt in two slices and behind each step after it, and the likeliest tokens."""
    spec = bundle.graph(stage)
    model = DecoderStage(OnnxRuntimeSession(stage, spec, bundle.file(spec.file), threads=2))
    cache, random = model.create_cache(), np.random.default_rng(3)
    rows = random.normal(size=(40 + STEPS, 256)).astype(np.float32)
    model.append(rows[:17], cache)
    found = [model.append(rows[17:40], cache)]
    found += [model.append(rows[place : place + 1], cache) for place in range(40, 40 + STEPS)]
    logits = np.concatenate([np.atleast_2d(one) for one in found])
    return logits, [int(token) for token in logits.argmax(axis=1)]
