"""Ways to spoil a quantized bundle, each as a change of one stage's graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from sottovoce.calibration.bundles.writer import BundleWriter
from sottovoce.calibration.divergence.compare import compare_bundles
from sottovoce.calibration.divergence.report import DivergenceReport, FirstDivergence
from sottovoce.calibration.divergence.stage_calls import StageInputs
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.quantize import QuantizeJob, quantize
from sottovoce.calibration.ranges.range_file import Ranges
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import StageName

Change = Callable[[StageGraph], None]
Changes = Mapping[StageName, Change]
Spoil = Callable[[Path, Changes], FirstDivergence]


def multiplied(name: str, factor: float) -> Change:
    return lambda graph: graph.edit(name, lambda values: (values * factor).astype(values.dtype))


def rounded_coarsely(weight: str, factor: int) -> Change:
    """As it would be with a step so many times as large."""

    def change(graph: StageGraph) -> None:
        multiplied(f"{weight}.scale", factor)(graph)
        graph.edit(weight, lambda values: np.rint(values / factor).astype(np.int8))

    return change


def computed_by(value: str, op: str) -> Change:
    def change(graph: StageGraph) -> None:
        node = graph.producer(value)
        assert node is not None
        node.op_type = op

    return change


def with_attribute(value: str, name: str, setting: float) -> Change:
    def change(graph: StageGraph) -> None:
        node = graph.producer(value)
        assert node is not None
        [attribute] = [entry for entry in node.attribute if entry.name == name]
        if attribute.HasField("f"):
            attribute.f = setting
        else:
            attribute.i = int(setting)

    return change


def without_bias(value: str) -> Change:
    def change(graph: StageGraph) -> None:
        node = graph.producer(value)
        assert node is not None
        del node.input[2:]

    return change


def without_addition(value: str) -> Change:
    """All who read the sum read its first summand."""

    def change(graph: StageGraph) -> None:
        node = graph.producer(value)
        assert node is not None
        graph.nodes.remove(node)
        graph.redirect(value, node.input[0])

    return change


def quantized(source: Path, plan: str, output: Path, ranges: Ranges | None = None) -> Path:
    quantize(QuantizeJob(Bundle.open(source), parse_plan(plan), ranges), BundleWriter(output, force=False))
    return output


def compared(found: Path, reference: Path, steps: int = 4) -> DivergenceReport:
    return compare_bundles(Bundle.open(found), Bundle.open(reference), StageInputs(steps=steps))
