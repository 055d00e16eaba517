"""Integers in bundles for TensorRT 10.3: every graph stays within its published operator list."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from changed_bundle import change_stage, export_stage

from sottovoce.calibration.bundles.graph_contract import check_graph
from sottovoce.calibration.quantization.cache_precision import CacheScales, shrink_cache
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.stage_quantizer import StageQuantizer
from sottovoce.export.dialects import DIALECTS
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cli import main
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import STAGES, StageName

JETPACK6 = DIALECTS["jetpack6"]


@pytest.mark.parametrize("stage", ["language_model", "speech_codes"])
@pytest.mark.parametrize(("precision", "opset"), [("int8-weights", 20), ("int4-weights", 21)])
def test_decoders_with_integer_weights_keep_to_the_list(
    stage: StageName, precision: str, opset: int, tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """INT4 is in the list, and in the standard since opset 21 alone."""
    bundle = export_stage(tiny_checkpoint, Bundle.open(tiny_bundle), tmp_path / "a", stage, "jetpack6", "fp16")
    spec = StageQuantizer(bundle, stage, parse_plan(precision).of(stage)).write(tmp_path / "b")
    check_graph(tmp_path / "b", spec)
    JETPACK6.check_operators(tmp_path / "b" / spec.file)
    assert (spec.opset, spec.precision, spec.dialect) == (opset, precision, "jetpack6")
    assert spec.inputs == bundle.graph(stage).inputs


@pytest.mark.parametrize("stage", ["audio_encoder", "codec"])
def test_traced_graphs_with_integer_weights_keep_to_the_list(stage: StageName, tiny_bundle: Path, tmp_path: Path):
    bundle = Bundle.open(tiny_bundle)
    spec = StageQuantizer(bundle, stage, parse_plan("int8-weights").of(stage)).write(tmp_path)
    JETPACK6.check_operators(tmp_path / spec.file)
    assert spec.opset == 20


@pytest.mark.slow
def test_integer_products_leave_the_cache_as_it_is(
    tiny_checkpoint: Path, golden_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """W8A8 of the whole bundle: the factors of attention's products in decoders are no integers."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("speech.wav", "picture.png"):
        (data / name).write_bytes((golden_dir / name).read_bytes())
    captured = {"greedy": True, "max_new_tokens": 2}
    line = {"task": "spoken_picture_question", "audio": "speech.wav", "images": ["picture.png"], "reply": ""}
    (data / "set.jsonl").write_text(json.dumps({**line, "captured": captured}) + "\n")
    folder = tmp_path / "small.bundle"
    arguments = ["export", str(tiny_checkpoint), "-o", str(folder), "--target", "jetpack6", "--precision", "int8"]
    arguments += ["--context-length", "1024", "--data", str(data), "--allow-little-data"]
    assert main(arguments) == 0, capsys.readouterr().err
    bundle = Bundle.open(folder)
    for stage in STAGES:
        spec = bundle.graph(stage)
        JETPACK6.check_operators(bundle.file(spec.file))
        assert (spec.precision, spec.opset) == ("int8", 20)
        if spec.cache is None:
            continue
        nodes = onnx.load(str(bundle.file(spec.file)), load_external_data=False).graph.node
        dequantized = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
        attention = [
            node for node in nodes if node.op_type == "MatMul" and node.output[0].endswith(("scores", "context"))
        ]
        assert len(attention) == 2 * spec.cache.layers
        assert not any(dequantized & set(node.input) for node in attention)


def test_an_integer_cache_is_refused(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """TensorRT 10.3 publishes no ScatterND of INT8."""
    stage: StageName = "language_model"
    bundle = export_stage(tiny_checkpoint, Bundle.open(tiny_bundle), tmp_path / "a", stage, "jetpack6", "fp16")
    cache = bundle.graph(stage).cache
    assert cache is not None
    steps = [np.ones((cache.kv_heads, cache.head_size), np.float32)] * cache.layers
    with pytest.raises(SottovoceError, match=r"dialect 'jetpack6'.*Transpose") as problem:
        change_stage(bundle, stage, tmp_path / "b", lambda graph: shrink_cache(graph, CacheScales(steps, steps)))
    assert "portable" in str(problem.value.fix)
