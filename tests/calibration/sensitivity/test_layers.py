"""Weights are in layers that people know by name, traced ones too; the layer that rounding hurts is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.plan import parse_plan
from sottovoce.calibration.quantization.quantize import QuantizeJob
from sottovoce.calibration.quantization.sites import weight_sites
from sottovoce.calibration.quantization.stage_quantizer import holds_integers
from sottovoce.calibration.ranges.range_file import Ranges
from sottovoce.calibration.sensitivity.layer_meter import LayerMeter
from sottovoce.calibration.sensitivity.layers import layer_name, planned_layers
from sottovoce.calibration.sensitivity.teacher import Conversations, Teacher
from sottovoce.calibration.sensitivity.teacher_forcing import forced_logits, hold, kl_divergence, log_probabilities
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.manifest import STAGES
from sottovoce.runtime.model import Model
from sottovoce.runtime.progress import SilentProgress


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("layers.11.self_attn.q_proj.weight", "layers.11.self_attn"),
        ("head.weight", "head"),
        ("encoder.encoder.enc.1.encoders.0.feed_forward.w_1.bias", "encoder.encoder.enc.1.encoders.0.feed_forward"),
        ("decoder.generator.resblocks.0.convs1.2.weight", "decoder.generator.resblocks.0.convs1"),
        ("speech_text", "speech_text"),
    ],
)
def test_a_layer_is_named_by_the_parent_of_its_modules(path: str, name: str) -> None:
    assert layer_name(path) == name


def test_every_weight_is_in_one_layer_with_a_name(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle, verify_hashes=False)
    layers = planned_layers(bundle, parse_plan("int8-weights"))
    for stage in STAGES:
        weights = [name for layer in layers if layer.stage == stage for name in layer.weights]
        sites = weight_sites(StageGraph(bundle, stage))
        assert sorted(weights) == sorted(site.name for site in sites if holds_integers(site))
    names = {(layer.stage, layer.name): len(layer.weights) for layer in layers}
    assert len(names) == len(layers)
    assert names["language_model", "layers.1.mlp"] == 3
    assert names["language_model", "head"] == 1
    assert names["audio_encoder", "encoder.encoder.enc.1.encoders.0.self_attn"] == 5
    assert names["vision_encoder", "encoder.mm_projector"] == 2
    assert names["speech_text", "decoder.layers_pre_nn.1"] == 7
    assert not any(layer.name.startswith("val_") for layer in layers)
    only = planned_layers(bundle, parse_plan("language_model=int4-weights,codec=fp16"))
    assert {layer.stage for layer in only} == {"language_model"}


def test_divergence_of_distributions() -> None:
    dice = np.random.default_rng(0)
    one, other = (log_probabilities(dice.normal(0, 3, 50).astype(np.float32)) for _ in range(2))
    assert np.exp(one).sum() == pytest.approx(1, abs=1e-5)
    assert kl_divergence(one, one) == pytest.approx(0, abs=1e-6)
    assert kl_divergence(one, other) == pytest.approx(float(np.sum(np.exp(one) * (one - other))), rel=1e-4)


def test_given_replies_are_what_the_bundle_would_say(tiny_bundle: Path, typed_set: Path) -> None:
    """Greedy replies are the likeliest token at every place, earlier turns in the same cache included."""
    follow_up = read_evaluation_set(typed_set)[-1]
    with Assistant(model := Model(Bundle.open(tiny_bundle, verify_hashes=False), threads=1)) as assistant:
        given = hold(assistant, follow_up, typed_set)
        likeliest = [int(logits.argmax()) for logits in forced_logits(model, given, typed_set)]
    assert len(given.turns) == 2
    assert len(likeliest) == given.positions
    place = 0
    for turn in given.turns:
        assert tuple(likeliest[place : place + len(turn.tokens)]) == turn.tokens
        place += turn.positions


def test_the_layer_that_rounding_hurts_is_found(hurt_bundle: Path, typed_set: Path, tmp_path: Path) -> None:
    job = QuantizeJob(Bundle.open(hurt_bundle, verify_hashes=False), parse_plan("language_model=int4-weights"))
    data = Conversations(read_evaluation_set(typed_set)[-2:], typed_set, tmp_path)
    layers = planned_layers(job.source, job.plan)
    everything = [name for layer in layers for name in layer.weights]
    meter = LayerMeter(job, data, SilentProgress())
    costs = {}
    for layer in layers:
        others = [name for name in everything if name not in layer.weights]
        costs[layer.name] = meter.measure(layer, others).value
    teacher = Teacher(Model(job.source), data, 1000)
    teacher.listen(SilentProgress())
    assert teacher.divergence_of(Model(job.source)) == pytest.approx(0, abs=1e-6)
    meter.close()
    ranked = sorted(costs, key=lambda name: -costs[name])
    assert ranked[0] == "layers.1.mlp"
    assert costs[ranked[0]] > 3 * costs[ranked[1]]
    assert min(costs.values()) > 0


def test_every_stage_has_a_measure(tiny_bundle: Path, tiny_ranges: Ranges, tmp_path: Path) -> None:
    """A spoken question about a picture goes through all of them; weights and activations in INT8."""
    job = QuantizeJob(Bundle.open(tiny_bundle, verify_hashes=False), parse_plan("int8"), tiny_ranges)
    folder = tiny_ranges.path.parent
    layers = planned_layers(job.source, job.plan)
    meter = LayerMeter(job, Conversations(read_evaluation_set(folder)[:1], folder, tmp_path), SilentProgress())
    for stage in STAGES:
        first, *others = [layer for layer in layers if layer.stage == stage]
        found = meter.measure(first, [name for layer in others for name in layer.weights])
        assert found.measure == ("relative_error" if first.speaks else "kl"), stage
        assert 0 < found.value < 0.1, (stage, found.value)
    meter.close()


def test_a_stage_that_no_conversation_uses_is_not_called_insensitive(
    tiny_bundle: Path, typed_set: Path, tmp_path: Path
) -> None:
    job = QuantizeJob(Bundle.open(tiny_bundle, verify_hashes=False), parse_plan("vision_encoder=int8-weights"))
    meter = LayerMeter(job, Conversations(read_evaluation_set(typed_set)[:1], typed_set, tmp_path), SilentProgress())
    layer = planned_layers(job.source, job.plan)[0]
    with pytest.raises(InputError, match=r"no picture or clip in the 1 conversations.*'vision_encoder'"):
        meter.measure(layer, [])
    meter.close()
