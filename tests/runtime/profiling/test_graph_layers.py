"""Inside the graphs: ONNX Runtime's own profile, read whole, and multiply-adds that another counter agrees with."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from sottovoce.calibration.quantization.multiply_adds import count_multiply_adds
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.profiling.layers.events import Operator, read_runs
from sottovoce.runtime.profiling.layers.kinds import AROUND, OTHER, kind_of
from sottovoce.runtime.profiling.layers.multiply_adds import multiply_adds
from sottovoce.runtime.profiling.layers.profiled_session import ProfiledSession
from sottovoce.runtime.profiling.layers.turn_layers import ProfiledRun, graph_layers
from sottovoce.runtime.profiling.profiler import Profiled
from sottovoce.runtime.profiling.report import ProfileReport


def test_layers_of_each_graph_add_up_to_its_time(report: ProfileReport) -> None:
    names = {one.call for one in report.layers}
    assert names >= {"audio_encoder.call", "language_model.step", "speech_codes.step", "codec.call"}
    for graph in report.layers:
        assert sum(layer.milliseconds for layer in graph.layers) == pytest.approx(graph.milliseconds)
        assert {layer.kind for layer in graph.layers} >= {AROUND}
    codec = next(one for one in report.layers if one.call == "codec.call")
    assert next(layer for layer in codec.layers if layer.kind == "convolution").count > 0


def test_one_turn_is_counted_and_not_the_one_that_warmed_up(profiled: Profiled, report: ProfileReport) -> None:
    for graph in report.layers:
        assert graph.calls == sum(call.name == graph.call for call in profiled.turns[0].calls)


@pytest.mark.parametrize("stage", ["codec", "speech_text"])
def test_multiply_adds_are_those_that_the_graph_tells(tiny_bundle: Path, tmp_path: Path, stage: StageName) -> None:
    """The other counter reads the graph with `onnx` and runs it with sizes of its own, which are fed here, too."""
    bundle = Bundle.open(tiny_bundle)
    spec = bundle.graph(stage)
    [tensor] = spec.inputs
    sizes = (1, 64) if stage == "codec" else (1, 16, int(tensor.shape[2]))
    session = ProfiledSession(stage, spec, bundle.file(spec.file), 1, tmp_path)
    session.run({tensor.name: np.zeros(sizes, tensor.dtype)})
    [run] = session.runs()
    assert (
        graph_layers(stage, [ProfiledRun(stage, 1, run, 0.0)]).multiply_adds
        == count_multiply_adds(tiny_bundle, spec).total
    )


def test_a_decoders_products_by_hand() -> None:
    def one(operator: str, *inputs: tuple[int, ...], output: tuple[int, ...]) -> Operator:
        return Operator("node", operator, 0, 1, inputs, (output,))

    assert multiply_adds(one("MatMul", (1, 7, 64), (64, 32), output=(1, 7, 32))) == 7 * 64 * 32
    assert multiply_adds(one("Gemm", (64, 7), (32, 64), output=(7, 32))) == 7 * 64 * 32
    assert multiply_adds(one("MatMulNBits", (1, 1, 64), (32, 2, 16), output=(1, 1, 32))) == 64 * 32
    attention = one("Attention", (1, 4, 7, 16), (1, 2, 100, 16), (1, 2, 100, 16), output=(1, 4, 7, 16))
    assert multiply_adds(attention) == 2 * 4 * 7 * 16 * 100
    assert multiply_adds(one("Add", (7,), (7,), output=(7,))) == 0
    writes_cache = one("GroupQueryAttention", (1, 7, 64), (1, 7, 16), (1, 7, 16), (1, 1, 256, 16), output=(1, 7, 64))
    assert multiply_adds(writes_cache) is None
    assert multiply_adds(writes_cache, filled=100) == 2 * 7 * 64 * 100
    cache = (1, 2, 256, 16)
    weights = [(64,), (64, 64), (2, 128), (64, 32), (2, 64)]
    block = one("AttentionBlock", (1, 7, 64), *[(1, 7, 8)] * 4, (), *weights, cache, cache, (128,), output=(1, 7, 64))
    assert multiply_adds(block) is None
    assert multiply_adds(block, filled=100) == 7 * 64 * 128 + 2 * 7 * 64 * 100 + 7 * 64 * 64
    inner = [(64, 48), (2, 96), (64, 48), (2, 96), (96, 32), (3, 64)]
    assert multiply_adds(one("GatedBlock", (1, 7, 64), (64,), *inner, output=(1, 7, 64))) == 3 * 7 * 64 * 96
    assert multiply_adds(one("QLinearConv", (1, 2), (1,), output=(1, 2))) is None  # its weights are left out
    assert kind_of("SomethingNew") == OTHER


def test_attention_over_a_cache_counts_what_is_filled(tiny_bundle: Path, tmp_path: Path) -> None:
    """The miniature's and the tiny bundle's language model attend with ONNX Runtime's own operator."""
    bundle = Bundle.open(tiny_bundle)
    spec = bundle.graph("language_model")
    session = ProfiledSession("language_model", spec, bundle.file(spec.file), 1, tmp_path)
    cache = session.create_cache(64)
    [embeddings] = [tensor for tensor in spec.inputs if tensor.role == "embeddings"]
    for length, positions in ((0, 5), (5, 1)):
        fed = {embeddings.name: np.zeros((1, positions, int(embeddings.shape[2])), np.float32)}
        session.run_with_cache({**fed, "cache_length": np.array([length])}, cache)
    runs = zip(session.calls, session.runs(), strict=True)
    prefill, step = (
        graph_layers("a call", [ProfiledRun("a call", size, run, 0.0, cached + size)])
        for (_, size, cached), run in runs
    )
    assert prefill.uncounted == step.uncounted == ()
    assert 0 < (step.multiply_adds or 0) < (prefill.multiply_adds or 0)


def test_what_is_not_counted_is_said(tmp_path: Path) -> None:
    events = [
        {"cat": "Session", "name": "model_run", "ts": 10, "dur": 100},
        {"cat": "Node", "name": "a_kernel_time", "ts": 20, "dur": 30, "args": {
            "op_name": "GroupQueryAttention", "input_type_shape": [{"float": [1, 1, 8]}, {"float": [1, 1, 8]}],
            "output_type_shape": [{"float": [1, 1, 8]}]}},
        {"cat": "Node", "name": "before_any_run_kernel_time", "ts": 1, "dur": 3, "args": {"op_name": "Add"}},
    ]  # fmt: skip
    (tmp_path / "profile.json").write_text(json.dumps(events))
    [run] = read_runs(tmp_path / "profile.json")
    graph = graph_layers("language_model.step", [ProfiledRun("language_model.step", 1, run, 0.0)])
    assert graph.multiply_adds is None
    assert graph.uncounted == ("GroupQueryAttention",)
    assert [(layer.kind, layer.milliseconds) for layer in graph.layers] == [(AROUND, 0.07), ("attention", 0.03)]


@pytest.mark.parametrize(
    "text", ["", "[1]", '[{"name": "model_run"}]', '[{"cat": "Node", "name": "a_kernel_time"}]', "[" * 9999]
)
def test_a_profile_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(BackendError, match="cannot be read"):
        read_runs(tmp_path / "profile.json")


def test_no_profile_is_left_behind(profiled: Profiled) -> None:
    assert profiled.layer_runs
    assert not list(Path(tempfile.gettempdir()).glob("sottovoce-profile-*"))
