"""Bundles that are spoilt on purpose: the first value that is off is found, and the right thing is blamed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spoilt_bundle import (
    Change,
    Spoil,
    compared,
    computed_by,
    multiplied,
    rounded_coarsely,
    with_attribute,
    without_addition,
    without_bias,
)

from sottovoce.calibration.divergence.stage_calls import StageCall
from sottovoce.calibration.divergence.stage_replay import StageReplay
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.runtime.bundle import Bundle

LAYER = "layers.1"
PRODUCT = f"{LAYER}.mlp.product"
DOWN = f"{LAYER}.mlp.down_proj"


def test_a_scale_that_is_too_small_is_a_matter_of_range(int8_bundle: Path, spoil: Spoil) -> None:
    found = spoil(int8_bundle, {"language_model": multiplied(f"{PRODUCT}.scale", 1 / 50)})
    assert (found.stage, found.tensor) == ("language_model", f"{DOWN}.projected")
    assert (found.verdict.blame, found.verdict.at) == ("range", PRODUCT)
    numbers = found.verdict.numbers
    assert numbers["largest"] > 30 * numbers["holds"]
    assert numbers["clipped_share"] > 0.4
    assert "calibrate on data that holds such values" in found.verdict.advice
    assert found.error > found.allowed == 0.3


def test_a_scale_that_is_too_large_is_a_matter_of_scale(int8_bundle: Path, spoil: Spoil) -> None:
    found = spoil(int8_bundle, {"language_model": multiplied(f"{PRODUCT}.scale", 50)})
    assert (found.stage, found.tensor) == ("language_model", f"{DOWN}.projected")
    assert (found.verdict.blame, found.verdict.at) == ("scale", PRODUCT)
    assert found.verdict.numbers["clipped_share"] == 0
    assert found.verdict.numbers["step"] > 20 * found.verdict.numbers["step_needed"]


@pytest.mark.parametrize(("factor", "blame"), [(1 / 50, "range"), (50, "scale")])
def test_smoothed_activations_are_judged_in_their_own_units(
    factor: float, blame: str, int8_bundle: Path, spoil: Spoil
) -> None:
    """What a norm gives is divided in the smoothed graph: no divergence by itself, but its scale may be one."""
    name = f"{LAYER}.input_layernorm.normed"
    found = spoil(int8_bundle, {"language_model": multiplied(f"{name}.scale", factor)})
    assert found.tensor == f"{LAYER}.self_attn.qkv_proj.projected"
    assert (found.verdict.blame, found.verdict.at) == (blame, name)


def test_the_scale_of_a_cache_is_blamed_for_attention(int8_bundle: Path, spoil: Spoil) -> None:
    """Attention over an int8 cache gives steps: undone, until the steps are too small for what is in the cache."""

    def change(graph: StageGraph) -> None:
        for name in ("present.1.value.scale", "present.1.value.scale_by_head"):
            multiplied(name, 1 / 50)(graph)

    found = spoil(int8_bundle, {"language_model": change})
    assert found.tensor == f"{LAYER}.self_attn.context"
    assert (found.verdict.blame, found.verdict.at) == ("range", "present.1.value")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rounded_coarsely(f"{DOWN}.weight", 50), "needs"),
        (multiplied(f"{DOWN}.weight.scale", 50), "do not fit"),
    ],
    ids=["rounded with a step that is too large", "scales of another weight"],
)
def test_steps_of_a_weight_are_a_matter_of_scale(change: Change, says: str, weights_bundle: Path, spoil: Spoil) -> None:
    found = spoil(weights_bundle, {"language_model": change})
    assert (found.stage, found.tensor) == ("language_model", f"{DOWN}.projected")
    assert (found.verdict.blame, found.verdict.at) == ("scale", f"{DOWN}.weight")
    assert says in found.verdict.reason
    assert found.verdict.numbers["step"] > 20 * found.verdict.numbers["step_needed"]


@pytest.mark.parametrize(
    ("change", "tensor", "says"),
    [
        (computed_by(f"{LAYER}.mlp.swish", "Add"), f"{LAYER}.mlp.swish", "which has Add there"),
        (
            with_attribute(f"{LAYER}.post_attention_layernorm.normed", "epsilon", 10.0),
            f"{LAYER}.post_attention_layernorm.normed",
            "other inputs or attributes",
        ),
        (
            with_attribute(f"{LAYER}.self_attn.o_proj.weight.dequantized", "axis", 0),
            f"{LAYER}.self_attn.o_proj.projected",
            "along axis 1 its integers and scales give the reference's weight",
        ),
        (without_addition(f"{LAYER}.mlp.residual"), "layers.2.input_layernorm.normed", "other inputs or attributes"),
    ],
    ids=["another operator", "an attribute", "a weight's axis", "an addition dropped"],
)
def test_a_changed_graph_is_a_matter_of_the_op(
    change: Change, tensor: str, says: str, weights_bundle: Path, spoil: Spoil
) -> None:
    found = spoil(weights_bundle, {"language_model": change})
    assert (found.stage, found.tensor, found.verdict.blame) == ("language_model", tensor, "op")
    assert says in found.verdict.reason
    assert "quantize again" in found.verdict.advice


def test_a_bias_that_was_dropped_is_a_matter_of_the_op(weights_bundle: Path, spoil: Spoil) -> None:
    graph = StageGraph(Bundle.open(weights_bundle), "codec")
    biases = {
        node.output[0]: np.abs(graph.read(node.input[2])).max()
        for node in graph.nodes
        if node.op_type == "Conv" and len(node.input) > 2
    }
    value = max(biases, key=lambda name: biases[name])
    found = spoil(weights_bundle, {"codec": without_bias(value)})
    assert (found.stage, found.tensor, found.verdict.blame) == ("codec", value, "op")
    assert found.verdict.numbers["recomputed_error"] < found.allowed < found.verdict.numbers["engine_error"]


class FaultyReplay(StageReplay):
    """An engine that gets one value of integer graphs wrong."""

    value = f"{LAYER}.mlp.swish"
    only_when_fused = False

    def run(self, call: StageCall, *, with_cache: bool = False) -> dict[str, Any]:
        results = super().run(call, with_cache=with_cache)
        is_watched = any(output.role.startswith("observed") for output in self._session.spec.outputs)
        if self._session.spec.has_integer_weights and self.value in results and is_watched != self.only_when_fused:
            results[self.value] = results[self.value] * np.float32(1.5)
        return results


def test_an_engine_that_computes_wrongly_is_told_from_a_graph_that_says_so(
    weights_bundle: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sottovoce.calibration.divergence.stage_replay.StageReplay", FaultyReplay)
    found = compared(weights_bundle, tiny_bundle, steps=2).first_divergence
    assert found is not None
    assert (found.tensor, found.verdict.blame) == (FaultyReplay.value, "op")
    assert found.error == pytest.approx(0.5, abs=0.05)
    assert found.verdict.numbers["engine_error"] == pytest.approx(0.5, abs=0.05)
    assert found.verdict.numbers["recomputed_error"] < 0.1
    assert "kernel or fusion of ONNX Runtime" in found.verdict.advice


def test_a_fault_that_hides_while_values_are_looked_at_is_a_fusion(
    weights_bundle: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sottovoce.calibration.divergence.stage_replay.StageReplay", FaultyReplay)
    monkeypatch.setattr(FaultyReplay, "value", "logits")
    monkeypatch.setattr(FaultyReplay, "only_when_fused", True)
    found = compared(weights_bundle, tiny_bundle, steps=2).first_divergence
    assert found is not None
    assert (found.stage, found.tensor, found.verdict.blame) == ("language_model", "logits", "op")
    assert "fusion" in found.verdict.advice
