"""INT8 in the built engine, by the parser's and the builder's own word; and that dropping Q/DQ does not go unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_bundles import drop_rounding, quantized

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines.build import BuildOptions, build_engines
from sottovoce.runtime.engines.layer_report import EngineLayer, engine_layers, layer_report
from sottovoce.runtime.engines.multiply_adds import CountedNetwork, Product
from sottovoce.runtime.engines.record import LayerReport
from sottovoce.runtime.manifest import StageName

TARGET = "rtx-8.9"
LEAST_INT8 = 0.9
STAGE: StageName = "vision_encoder"
ONELINE = (
    "Layers:\n"
    "Name: up+gate, LayerType: gemm, Inputs: [ { Name: a, Dimensions: [1,-1,8], Datatype: Int8, Format: (Linear) }], "
    "Constants: [ { Name: w, Dimensions: [8,8], Datatype: Int8, Format: (Linear) }], Outputs: [ { Name: b, Datatype: "
    "Half }], TacticName: t, StreamId: 0, "
    "Metadata: [ONNX Layer: up]\x1e[ONNX Layer: gate]\x1e[ONNX Layer: up.rounded]\n"
    "Name: tail, LayerType: kgen, Inputs: [ { Name: b, Datatype: Half, Format: (Linear) }], Constants: [], "
    "Outputs: [ { Name: c, Datatype: Int8 }], TacticName: t, "
    "Metadata: [ONNX Layer: up][ONNX Layer: down]\n"
    "\nI/O Tensors:\n Name: a, IOMode: Input, DataType: Int8\n"
)


def report_of(folder: Path, stage: StageName = STAGE) -> LayerReport:
    [engine] = build_engines(Bundle.open(folder), [TARGET], BuildOptions(stages=(stage,)))
    return engine.record.report


def multiplies_in_int8(report: LayerReport) -> bool:
    """Whether parser and builder both say that nearly all products are INT8."""
    shares = (report.int8_multiply_adds_share, report.fused_int8_multiply_adds_share)
    return all(share is not None and share >= LEAST_INT8 for share in shares)


@pytest.mark.usefixtures("rtx")
def test_weights_and_activations_multiply_in_int8(portable_bundle: Path, tmp_path: Path) -> None:
    report = report_of(quantized(portable_bundle, tmp_path / "q", STAGE, "int8"))
    assert multiplies_in_int8(report), report
    assert report.int8_products <= report.products


@pytest.mark.usefixtures("rtx")
def test_dropped_rounding_is_seen(portable_bundle: Path, tmp_path: Path) -> None:
    folder = quantized(portable_bundle, tmp_path / "q", STAGE, "int8")
    drop_rounding(folder, STAGE)
    report = report_of(folder)
    assert not multiplies_in_int8(report), report
    assert 0 < report.int8_products < report.products


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_integer_weights_alone_multiply_in_floating_point(
    precision: str, portable_bundle: Path, tmp_path: Path
) -> None:
    folder = quantized(portable_bundle, tmp_path / "q", "speech_codes", precision)  # type: ignore[arg-type]
    report = report_of(folder, "speech_codes")
    assert report.products > 0
    assert report.int8_products == 0
    assert report.int8_multiply_adds_share == report.fused_int8_multiply_adds_share == 0


def test_the_builders_list_of_layers_is_read() -> None:
    assert engine_layers([ONELINE]) == [
        EngineLayer("up+gate", ("up", "gate", "up.rounded"), multiplies=True, int8=True),
        EngineLayer("tail", ("up", "down"), multiplies=False, int8=False),
    ]
    assert engine_layers(["Layers:\nsomething else entirely"]) == []


def test_shares_are_of_multiply_adds() -> None:
    products = (Product("up", 60, True), Product("gate", 20, True), Product("down", 20, False))
    report = layer_report(CountedNetwork(products, 100), engine_layers([ONELINE]))
    assert (report.layers, report.int8_products, report.products) == (2, 2, 3)
    assert report.int8_multiply_adds_share == report.fused_int8_multiply_adds_share == 0.8
    assert report.attention_multiply_adds_share == 0.5
    unknown = layer_report(CountedNetwork(products, 0), [])
    assert unknown.fused_int8_multiply_adds_share is None
    assert layer_report(CountedNetwork((), 0), []).int8_multiply_adds_share is None
