"""Acoustic units: how they are found, and that codes tell sounds apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from speech_fixtures import noises, tones

from sottovoce.demos.miniature.speech_out.acoustic_units import (
    SAMPLES_PER_CODE,
    AcousticUnits,
    UnitSettings,
    nearest,
)
from sottovoce.demos.miniature.speech_out.phoneme_listener import (
    HeardFrames,
    ListenerSizes,
    ListenerTrainer,
    ListenerTraining,
)
from sottovoce.demos.miniature.speech_out.spoken_codes import encode_utterances
from sottovoce.demos.miniature.speech_out.training_state import save_state
from sottovoce.demos.miniature.speech_out.unit_training import (
    UnitTrainer,
    UnitTraining,
    first_units,
    hear,
    k_means,
    train_units,
)

SIZES = ListenerSizes(phonetic_size=3, width=16, layers=1, dropout=0.1)
TINY = UnitTraining(
    steps=30,
    reader_alone=5,
    batch_size=2,
    cut_codes=8,
    k_means_rounds=10,
    report_every=1,
    low_precision=False,
    settings=UnitSettings(codes=16, spectral_size=4, listener=SIZES),
    listener=ListenerTraining(
        steps=60, batch_size=4, cut_codes=8, peak_learning_rate=1e-2, report_every=1, low_precision=False
    ),
)


@pytest.fixture(scope="module")
def heard() -> HeardFrames:
    return hear(tones(), TINY.settings)


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> AcousticUnits:
    return train_units(tones(), TINY, tmp_path_factory.mktemp("units"))


def test_units_tell_sounds_apart(units: AcousticUnits) -> None:
    """In the middle of a tone the code says which tone it is."""
    codes_of_tone: dict[int, set[int]] = {}
    for utterance, item in zip(tones(), encode_utterances(units, tones()), strict=True):
        assert len(item.codes) == 16
        for place, phoneme in enumerate(utterance.phonemes.tolist()):
            codes_of_tone.setdefault(phoneme, set()).update(item.codes[4 * place + 1 : 4 * place + 3].tolist())
    found = list(codes_of_tone.values())
    assert len(found) == 4
    assert all(not first & second for index, first in enumerate(found) for second in found[:index])


def test_units_repeat_with_the_seed(units: AcousticUnits, tmp_path: Path) -> None:
    again = train_units(tones(), TINY, tmp_path)
    for name, tensor in units.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_every_sample_has_a_code(units: AcousticUnits) -> None:
    spoken = encode_utterances(units, noises())
    assert [len(item.codes) for item in spoken] == [-(-len(u.samples) // SAMPLES_PER_CODE) for u in noises()]
    assert all(item.codes.min() >= 0 and item.codes.max() < TINY.settings.codes for item in spoken)


def test_centres_are_found() -> None:
    points = torch.tensor([[0.0, 0.1], [0.0, -0.1], [5.0, 5.1], [5.0, 4.9]])
    centres = k_means(points, 2, 10, torch.Generator().manual_seed(0))
    assert sorted(round(float(value)) for value in centres[:, 0]) == [0, 5]
    assert nearest(points, centres).tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])


def test_the_listener_learns_and_so_does_the_reader(heard: HeardFrames) -> None:
    listening = ListenerTrainer(TINY.listener, SIZES, heard)
    losses = [listening.step()["phoneme"] for _ in range(TINY.listener.steps)]
    assert losses[-1] < 0.3 * losses[0]
    trainer = UnitTrainer(TINY, heard, first_units(TINY, listening, heard))
    rows = [trainer.step() for _ in range(TINY.steps)]
    assert rows[-1]["phoneme"] < rows[0]["phoneme"]
    assert rows[-1]["mel"] < rows[0]["mel"]


def test_nothing_moves_while_the_reader_is_alone_and_all_moves_after(heard: HeardFrames) -> None:
    trainer = UnitTrainer(TINY, heard, first_units(TINY, ListenerTrainer(TINY.listener, SIZES, heard), heard))
    seen = [{name: tensor.clone() for name, tensor in trainer.units.named_parameters()}]
    for steps in (TINY.reader_alone, 3):
        for _ in range(steps):
            trainer.step()
        seen.append({name: tensor.clone() for name, tensor in trainer.units.named_parameters()})
    still, moved = ([not torch.equal(a[name], b[name]) for name in a] for a, b in pairwise(seen))
    assert not any(still)
    assert all(moved)


@pytest.mark.parametrize("killed_in", ["listener", "units"])
def test_a_killed_training_goes_on_to_the_same_units(
    units: AcousticUnits, heard: HeardFrames, tmp_path: Path, killed_in: str
) -> None:
    listening = ListenerTrainer(TINY.listener, SIZES, heard)
    for _ in range(20 if killed_in == "listener" else TINY.listener.steps):
        listening.step()
    save_state(tmp_path / "listener" / "state.pt", listening.state())
    if killed_in == "units":
        trainer = UnitTrainer(TINY, heard, first_units(TINY, listening, heard))
        for _ in range(12):
            trainer.step()
        save_state(tmp_path / "units" / "state.pt", trainer.state())
    resumed = train_units(tones(), TINY, tmp_path)
    for name, tensor in units.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_written_units_give_the_same_codes_wherever_they_are_read(units: AcousticUnits, tmp_path: Path) -> None:
    units.write(tmp_path / "first.safetensors")
    read = AcousticUnits.read(tmp_path / "first.safetensors", TINY.settings)
    read.write(tmp_path / "second.safetensors")
    assert (tmp_path / "first.safetensors").read_bytes() == (tmp_path / "second.safetensors").read_bytes()
    again = AcousticUnits.read(tmp_path / "second.safetensors", TINY.settings)
    for first, second in zip(encode_utterances(read, tones()), encode_utterances(again, tones()), strict=True):
        assert first.codes.tolist() == second.codes.tolist()


def test_more_sentences_than_are_drawn_for_the_first_centres(heard: HeardFrames) -> None:
    recipe = replace(TINY, k_means_samples=40)
    assert first_units(recipe, ListenerTrainer(TINY.listener, SIZES, heard), heard).centres.shape == (16, 7)
