"""Smaller bundles: sizes, contracts and answers of each precision, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.multiply_adds import CALLS_A_TURN, count_multiply_adds
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.quantize import REPORT_FILE, QuantizeJob, QuantizeReport, quantize
from sottovoce.calibration.quantization.sites import weight_sites
from sottovoce.calibration.ranges.range_file import Ranges
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cli import main
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import STAGES, StageName
from sottovoce.runtime.model import Model


def made(source: Path, plan: str, output: Path, ranges: Ranges | None = None) -> QuantizeReport:
    return quantize(QuantizeJob(Bundle.open(source), parse_plan(plan), ranges), BundleWriter(output, force=True))


def embeddings_of(bundle: Path, features: np.ndarray) -> np.ndarray:
    with Assistant(model := Model(Bundle.open(bundle))):
        return model.audio_encoder(features)


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first.reshape(-1).astype(np.float64), second.reshape(-1).astype(np.float64)
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


@pytest.mark.parametrize(("plan", "closeness"), [("int8-weights", 0.9995), ("int8", 0.995)], ids=["w8", "w8a8"])
def test_a_bundle_in_integers_is_smaller_and_close(
    plan: str, closeness: float, tiny_bundle: Path, tiny_ranges: Ranges, golden: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:  # fmt: skip
    report = made(tiny_bundle, plan, tmp_path / "small.bundle", tiny_ranges)
    # Tables of positions and the graphs' own nodes are as large as weights at this size; the miniature shows the bar.
    assert report.bytes_after < 0.45 * report.bytes_before
    assert all(change.weights_share > 0.98 for change in report.stages)
    bundle = Bundle.open(tmp_path / "small.bundle")
    for stage in STAGES:
        assert bundle.graph(stage).precision == plan
        assert bundle.graph(stage).inputs == Bundle.open(tiny_bundle).graph(stage).inputs
    assert bundle.manifest.quantization is not None
    assert bundle.manifest.quantization.source_sha256 == Bundle.open(tiny_bundle).sha256
    features = golden["audio.fbank"]
    assert cosine(embeddings_of(tmp_path / "small.bundle", features), embeddings_of(tiny_bundle, features)) > closeness


def test_every_product_of_an_int8_encoder_has_two_int8_factors(
    tiny_bundle: Path, tiny_ranges: Ranges, tmp_path: Path
) -> None:
    report = made(tiny_bundle, "int8", tmp_path / "small.bundle", tiny_ranges)
    shares = {change.stage: change.multiply_adds_share for change in report.stages}
    for stage in ("audio_encoder", "vision_encoder", "speech_text", "codec"):
        assert shares[stage] is not None
        assert shares[stage] >= 0.9, stage
    model = onnx.load(str(tmp_path / "small.bundle" / "graphs" / "audio_encoder.onnx"), load_external_data=False)
    for node in model.graph.node:
        if node.op_type in ("Softmax", "LayerNormalization", "Add"):
            assert not any(name.endswith((".rounded", ".quantized")) for name in node.input), node.name


def test_the_multiply_adds_of_a_turn_are_the_stages_weighted_by_their_calls(
    tiny_bundle: Path, tiny_ranges: Ranges, tmp_path: Path
) -> None:
    assert made(tiny_bundle, "int8-weights", tmp_path / "weights.bundle").turn_multiply_adds_share is None
    report = made(tiny_bundle, "int8,language_model=fp16", tmp_path / "small.bundle", tiny_ranges)
    bundle = Bundle.open(tmp_path / "small.bundle")
    counted = {stage: count_multiply_adds(bundle.path, bundle.graph(stage)) for stage in CALLS_A_TURN}
    total = sum(calls * counted[stage].total for stage, calls in CALLS_A_TURN.items())
    int8 = sum(calls * counted[stage].int8 for stage, calls in CALLS_A_TURN.items())
    assert counted["language_model"].int8 == 0
    assert report.turn_multiply_adds_share == pytest.approx(int8 / total)
    assert json.loads((bundle.path / REPORT_FILE).read_text())["turn_multiply_adds_share"] == pytest.approx(
        int8 / total
    )
    # The speech decoder's text comes in 16 frames, not in an utterance's hundreds: a product's every weight 16 times.
    sites = weight_sites(StageGraph(Bundle.open(tiny_bundle), "speech_text"))
    weights = sum(site.size for site in sites if site.is_product)
    assert 16 * weights <= counted["speech_text"].total < 20 * weights


@pytest.mark.parametrize("stage", ["language_model", "audio_encoder"])
def test_onnx_runtime_multiplies_integers_where_several_products_read_one_value(
    stage: StageName, tiny_bundle: Path, tiny_ranges: Ranges, tmp_path: Path
) -> None:
    """Query, key and value projections read the same activations, and so do a gate and what it gates."""
    made(tiny_bundle, f"{stage}=int8", tmp_path / "small.bundle", tiny_ranges)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    path = tmp_path / "small.bundle" / Bundle.open(tiny_bundle).graph(stage).file
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(str(tmp_path / "optimized.onnx"), load_external_data=False).graph.node
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in nodes) >= 7
    dequantized = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    assert not [
        node.name for node in nodes if node.op_type in ("MatMul", "Gemm") and set(node.input[:2]) <= dequantized
    ]


def test_a_convolution_before_a_relu_is_an_integer_kernel_and_gives_the_same_steps(
    tiny_bundle: Path, tiny_ranges: Ranges, tmp_path: Path
) -> None:
    made(tiny_bundle, "audio_encoder=int8", tmp_path / "small.bundle", tiny_ranges)
    path = tmp_path / "small.bundle" / Bundle.open(tiny_bundle).graph("audio_encoder").file
    nodes = onnx.load(str(path), load_external_data=False).graph.node
    makers = {name: node for node in nodes for name in node.output}
    relus = [node for node in nodes if node.op_type == "Relu" and node.input[0].endswith(".rounded")]
    convolutions = {makers[makers[makers[relu.input[0]].input[0]].input[0]].op_type for relu in relus}
    assert convolutions == {"Conv"}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kernels = [
        node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx"), load_external_data=False).graph.node
    ]
    assert kernels.count("QLinearConv") >= 1
    for relu in relus:  # the same step before and after, so that nothing is lost
        scale = makers[relu.input[0]].input[1]
        after = [node for node in nodes if node.op_type == "QuantizeLinear" and node.input[1] == scale]
        assert len(after) >= 2


def test_products_with_massive_activations_keep_them_in_floating_point(
    tiny_bundle: Path, tiny_ranges: Ranges, tmp_path: Path
) -> None:
    massive = "layers.1.mlp.product"
    seen = tiny_ranges.of("language_model", massive)
    peaks = seen.channel_peaks.copy()
    peaks[5] = 1e4 * peaks.max()
    statistics = {**tiny_ranges.statistics, ("language_model", massive): replace(seen, channel_peaks=peaks)}
    plan = "language_model=int8"
    made(tiny_bundle, plan, tmp_path / "usual.bundle", tiny_ranges)
    made(tiny_bundle, plan, tmp_path / "massive.bundle", replace(tiny_ranges, statistics=statistics))
    usual, changed = (Bundle.open(tmp_path / f"{name}.bundle").graph("language_model") for name in ("usual", "massive"))
    assert usual.quantization is not None
    assert changed.quantization is not None
    left = set(changed.quantization.kept) - set(usual.quantization.kept)
    assert left == {f"{massive} × layers.1.mlp.down_proj.weight"}
    graph = onnx.load(str(tmp_path / "massive.bundle" / changed.file), load_external_data=False).graph
    product = next(node for node in graph.node if node.output[0] == "layers.1.mlp.down_proj.projected")
    assert list(product.input) == [massive, "layers.1.mlp.down_proj.weight.dequantized"]
    assert changed.quantization.multiply_adds_share < usual.quantization.multiply_adds_share


def test_four_bit_decoders_answer_nearly_alike(tiny_bundle: Path, tiny_ranges: Ranges, tmp_path: Path) -> None:
    plan = "language_model=int4-weights,speech_codes=int4-weights:32"
    report = made(tiny_bundle, plan, tmp_path / "small.bundle", tiny_ranges)
    changes = {change.stage: change for change in report.stages}
    assert changes["language_model"].weights_share > 0.95
    assert changes["codec"].precision == "fp32"
    assert changes["codec"].bytes_after == changes["codec"].bytes_before
    logits = []
    for path in (tiny_bundle, tmp_path / "small.bundle"):
        with Assistant(model := Model(Bundle.open(path))):
            rows = model.token_embeddings.rows(list(range(20, 60)))
            logits.append(model.language_model.prefill(rows, model.language_model.create_cache()))
    # Random weights have no redundancy, and each layer's error is the next one's input.
    assert cosine(*logits) > 0.8


def test_ranges_of_another_graph_are_refused(tiny_bundle: Path, tiny_ranges: Ranges, tmp_path: Path) -> None:
    record = replace(tiny_ranges.record, graphs={**tiny_ranges.record.graphs, "codec": "0" * 64})
    with pytest.raises(SottovoceError, match="another graph of stage 'codec'"):
        made(tiny_bundle, "codec=int8", tmp_path / "small.bundle", replace(tiny_ranges, record=record))
    assert not (tmp_path / "small.bundle").exists()


def test_int8_activations_need_ranges(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", str(tiny_bundle), "--precision", "int8", "-o", str(tmp_path / "small.bundle")]) == 1
    assert "sottovoce calibrate" in capsys.readouterr().err
    assert not (tmp_path / "small.bundle").exists()


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ("int7", "int4-weights"),
        ("ears=int8", "audio_encoder"),
        ("codec=int8,codec=fp16", "twice"),
        ("int4-weights:48", "int4-weights:32 or int4-weights:128"),
        ("kv_cache=int4", "fp16, int8"),
    ],
)
def test_unknown_words_are_answered_with_the_known_ones(
    plan: str, says: str, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", str(tiny_bundle), "--precision", plan, "-o", str(tmp_path / "small.bundle")]) == 1
    assert says in capsys.readouterr().err


def test_a_quantized_stage_is_not_quantized_again(tiny_bundle: Path, tmp_path: Path) -> None:
    made(tiny_bundle, "codec=int8-weights", tmp_path / "once.bundle")
    with pytest.raises(SottovoceError, match="quantized already"):
        made(tmp_path / "once.bundle", "codec=int4-weights", tmp_path / "twice.bundle")


def test_half_precision_and_small_caches(tiny_bundle: Path, tiny_ranges: Ranges, tmp_path: Path) -> None:
    made(tiny_bundle, "fp16,kv_cache=int8", tmp_path / "small.bundle", tiny_ranges)
    bundle = Bundle.open(tmp_path / "small.bundle")
    assert {bundle.graph(stage).precision for stage in STAGES} == {"fp16"}
    caches = [bundle.graph(stage).cache for stage in ("language_model", "speech_codes")]
    assert [cache.dtype for cache in caches if cache is not None] == ["int8", "int8"]
    assert bundle.manifest.token_embeddings.dtype == "float16"
    logits = []
    for path in (tiny_bundle, tmp_path / "small.bundle"):
        with Assistant(model := Model(Bundle.open(path))):
            rows = model.token_embeddings.rows(list(range(20, 60)))
            logits.append(model.language_model.prefill(rows, model.language_model.create_cache()))
    assert cosine(*logits) > 0.99


def test_a_cache_alone_may_become_smaller(tiny_bundle: Path, tmp_path: Path) -> None:
    report = made(tiny_bundle, "kv_cache=fp16", tmp_path / "small.bundle")
    assert {change.precision for change in report.stages} == {"fp32"}
    cache = Bundle.open(tmp_path / "small.bundle").graph("speech_codes").cache
    assert cache is not None
    assert cache.dtype == "float16"


def test_the_cost_in_answers_is_measured_and_travels_with_the_bundle(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set whose right reply is what the bundle says: all right before, and the four-bit one errs."""
    with Assistant.open(tiny_bundle) as assistant:
        *_, done = assistant.conversation(greedy=True, speech=False, max_new_tokens=8).ask("Hello <there>.")
    asked = {"task": "typed_question", "text": "Hello <there>.", "reply": done.text.strip(), "state": done.state}
    line = {**asked, "captured": {"greedy": True, "max_new_tokens": 8}}
    (tmp_path / "set.jsonl").write_text(json.dumps(line) + "\n")
    page = tmp_path / "report.html"
    arguments = ["quantize", str(tiny_bundle), "--precision", "language_model=int4-weights", "--data", str(tmp_path)]
    assert main([*arguments, "-o", str(tmp_path / "small.bundle"), "--report", str(page), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    quality = printed["quality"]
    assert quality["reply_exact_before"] == 1.0
    assert quality["reply_exact_after"] == quality["same_replies"] == 1.0 - len(quality["misses"])
    bundle = Bundle.open(tmp_path / "small.bundle")
    assert bundle.manifest.quality["reply_exact_before"] == 1.0
    stored = json.loads((bundle.path / REPORT_FILE).read_text(encoding="utf-8"))
    assert stored == {key: value for key, value in printed.items() if key != "bundle"}
    text = page.read_text(encoding="utf-8")
    assert "language_model" in text
    assert "<there>" not in text, "what was asked is text, not markup"
