"""The codec's training: from codes to sound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from speech_fixtures import tones

from sottovoce.demos.miniature.speech_out.acoustic_units import (
    AcousticUnits,
    UnitSettings,
)
from sottovoce.demos.miniature.speech_out.codec_training import (
    MINIATURE_CODEC,
    CodecTrainer,
    CodecTraining,
    train_codec,
)
from sottovoce.demos.miniature.speech_out.phoneme_listener import ListenerSizes
from sottovoce.demos.miniature.speech_out.spoken_codes import encode_utterances
from sottovoce.demos.miniature.speech_out.training_state import save_state, segment_at

TINY_CODEC = replace(
    MINIATURE_CODEC,
    num_codes=16,
    upsample_initial_channel=16,
    global_width=8,
    resblock_kernel_sizes=(3,),
    resblock_dilation_sizes=((1,),),
)
TINY_TRAINING = CodecTraining(
    segments=((2, 1e-3), (2, 1e-3)),
    batch_size=2,
    segment_codes=4,
    report_every=1,
    low_precision=False,
    codec=TINY_CODEC,
)


@pytest.fixture(scope="module")
def units() -> AcousticUnits:
    """Any: what is learned here is only how they are spoken."""
    torch.manual_seed(0)
    listener = ListenerSizes(phonetic_size=3, width=8, layers=1)
    made = AcousticUnits(UnitSettings(codes=16, spectral_size=4, listener=listener)).eval().requires_grad_(False)
    made.projection.normal_()
    made.centres.normal_()
    made.spectra.normal_()
    return made


def test_a_killed_codec_training_resumes_to_the_same_curve(units: AcousticUnits, tmp_path: Path) -> None:
    utterances = tones()
    spoken = encode_utterances(units, utterances)
    whole = CodecTrainer(TINY_TRAINING, units)
    train_codec(whole, utterances, spoken, tmp_path / "whole")
    killed = CodecTrainer(TINY_TRAINING, units)
    samples = np.concatenate([utterance.samples for utterance in utterances])
    codes = np.concatenate([item.codes for item in spoken])
    for _ in range(2):
        killed.step(samples, codes)
    save_state(tmp_path / "cut" / "state.pt", killed.state())
    resumed = CodecTrainer(TINY_TRAINING, units)
    train_codec(resumed, utterances, spoken, tmp_path / "cut")
    for name, tensor in whole.decoder.state_dict().items():
        assert torch.equal(tensor, resumed.decoder.state_dict()[name]), name
    assert (tmp_path / "cut" / "curve.png").stat().st_size > 0


def test_a_packed_codec_goes_through_the_last_segment_alone(units: AcousticUnits) -> None:
    recipe = replace(TINY_TRAINING, segments=((5, 1e-2), (3, 1e-3)))
    packed = CodecTrainer(replace(recipe, seed=9), units).decoder.state_dict()
    trainer = CodecTrainer(recipe, units)
    trainer.begin_last_segment(packed)
    assert (trainer.finished_steps, recipe.steps) == (5, 8)
    assert all(torch.equal(tensor, packed[name]) for name, tensor in trainer.decoder.state_dict().items())


def test_each_segment_begins_its_rate_anew() -> None:
    assert [segment_at(step, [3, 2]) for step in range(7)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)]
    rates = [replace(TINY_TRAINING, segments=((1000, 1e-2), (500, 1e-3))).rate_at(step) for step in (400, 999, 1400)]
    assert rates[0] == 1e-2
    assert rates[1] < 3e-4
    assert 2e-5 < rates[2] < 1e-3
