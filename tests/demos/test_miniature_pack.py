"""Packing, sets and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.demos.miniature.augmentation import disturb, disturbance
from sottovoce.demos.miniature.card import SPEECH_ROWS, Measurements
from sottovoce.demos.miniature.commands import main
from sottovoce.demos.miniature.learner import Learner
from sottovoce.demos.miniature.lessons import FRONT_END
from sottovoce.demos.miniature.model import AUDIO, VISION, build_audio_encoder
from sottovoce.demos.miniature.pack import pack
from sottovoce.demos.miniature.prompts import SYSTEM, Ask, PromptWriter
from sottovoce.demos.miniature.sets import SetWriter
from sottovoce.demos.miniature.settings import Workspace
from sottovoce.demos.miniature.speech_out.acoustic_units import AcousticUnits, UnitSettings
from sottovoce.demos.miniature.speech_out.speech_decoder_training import MINIATURE_SPEECH_DECODER
from sottovoce.demos.miniature.speech_out.stage import SpeechOutRecipe, SpeechOutStage
from sottovoce.demos.miniature.speech_out.training_state import save_state
from sottovoce.demos.miniature.tokenizer import prepare
from sottovoce.demos.miniature.voices import HELD_OUT_FLITE, HELD_OUT_VARIANTS, TRAINING_FLITE
from sottovoce.demos.miniature.warm_start import PackedWeights
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.modules.audio_encoder import AudioEncoder
from sottovoce.export.modules.speech_decoder import SpeechDecoder
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.features.images import pixels, read_image


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """States as trainings leave them, though nothing has been learned."""
    made = Workspace(tmp_path_factory.mktemp("work"))
    writer = PromptWriter(prepare(made), VISION.tokens_per_tile)
    torch.manual_seed(3)
    learner, encoder = Learner(np.load(made.embeddings), writer.blank), build_audio_encoder()
    encoder.encoder.global_cmvn.mean.copy_(torch.linspace(6, 12, 80))
    encoder.encoder.global_cmvn.istd.copy_(torch.linspace(0.2, 0.4, 80))
    save_state(made.states / "language" / "state.pt", {"learner": learner.state_dict()})
    save_state(made.states / "encoder" / "state.pt", {"encoder": encoder.state_dict()})
    return made


@pytest.fixture(scope="module")
def packed(workspace: Workspace) -> Path:
    pack(workspace, workspace.checkpoint, untrained_speech=True)
    return workspace.checkpoint


def test_the_exporters_reader_finds_what_was_trained(workspace: Workspace, packed: Path) -> None:
    checkpoint = Checkpoint.open(packed)
    assert checkpoint.config.vision == VISION
    assert checkpoint.config.audio == AUDIO
    assert not checkpoint.config.pad_to_square
    encoder = AudioEncoder(checkpoint.config.audio)
    encoder.load_state_dict({name: tensor.float() for name, tensor in checkpoint.component_state("audio").items()})
    trained = torch.load(workspace.states / "encoder" / "state.pt", weights_only=True)["encoder"]
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, trained[name].half().float()), name
    table = checkpoint.tensor("model.embed_tokens.weight")
    assert table.dtype == torch.float16
    assert np.array_equal(table.float().numpy(), np.load(workspace.embeddings)), "the shared table is exact in fp16"


def test_training_goes_on_from_what_was_packed(workspace: Workspace, packed: Path) -> None:
    weights = PackedWeights(packed)
    trained = torch.load(workspace.states / "language" / "state.pt", weights_only=True)["learner"]
    assert weights.learner["learner"].keys() == trained.keys()
    for name, tensor in weights.learner["learner"].items():
        assert torch.equal(tensor, trained[name].half().float()), name
    assert weights.encoder["encoder"].keys() == build_audio_encoder().state_dict().keys()
    SpeechDecoder(MINIATURE_SPEECH_DECODER).load_state_dict(weights.speech_decoder)


def test_what_makes_the_codes_lies_beside_the_checkpoint_and_is_taken_from_there(
    workspace: Workspace, packed: Path, tmp_path: Path
) -> None:
    with pytest.raises(SottovoceError, match="checkpoint-units"):
        _ = PackedWeights(packed).units
    units = AcousticUnits(UnitSettings())
    with torch.no_grad():
        units.centres.normal_()
    (workspace.root / "codec").mkdir()
    units.write(workspace.root / "codec" / "units.safetensors")
    target = tmp_path / "packed"
    pack(workspace, target, untrained_speech=True)
    elsewhere = Workspace(tmp_path / "elsewhere")
    brought = SpeechOutStage(elsewhere, SpeechOutRecipe()).find_units(PackedWeights(target))
    assert torch.equal(brought.centres, units.centres.half().float())
    again = SpeechOutStage(elsewhere, SpeechOutRecipe()).find_units()
    assert torch.equal(again.centres, brought.centres)


def test_without_a_voice_nothing_is_packed(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(SottovoceError, match="speech decoder"):
        pack(workspace, tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == [], "whole or not at all"


def test_the_card_holds_what_was_measured(workspace: Workspace, packed: Path, tmp_path: Path) -> None:
    assert "Not measured yet." in (packed / "README.md").read_text(encoding="utf-8")
    row = {"value": 0.971, "low": 0.95, "high": 0.98, "count": 200}
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"tasks": {"typed_question": row}, "questions_ignored": 0.004}))
    target = tmp_path / "again"
    heard = tmp_path / "heard.json"
    rates = {key: {"word_error_rate": 0.08, "minus_voice": 0.04} for key in SPEECH_ROWS}
    heard.write_text(json.dumps({"sentences": 80, "words": 500, **rates}))
    pack(workspace, target, untrained_speech=True, measured=Measurements(scores, scores, heard))
    card = (target / "README.md").read_text(encoding="utf-8")
    assert "| typed question | reply exact | ≥ 99 % | 97.1 % | 95.0 % to 98.0 % | 200 | 97.1 % |" in card
    assert "| reply's speech | 8.0 % | +4.0 points | 10 points |" in card
    scores.write_text("{}")
    for wrong in (Measurements(scores=scores), Measurements(listening=scores)):
        with pytest.raises(SottovoceError, match=r"not the scores|not what a listener heard"):
            pack(workspace, tmp_path / "third", untrained_speech=True, measured=wrong)
    assert not (tmp_path / "third").exists()


def test_greedy_replies_do_not_depend_on_company(workspace: Workspace) -> None:
    """Replies of a batch of prompts of different lengths are those of each prompt alone."""
    writer = PromptWriter(prepare(workspace), VISION.tokens_per_tile)
    learner = Learner(np.load(workspace.embeddings), writer.blank).eval()
    rows = [writer.prompt(SYSTEM, (), Ask(text)) for text in ("hello", "what is two plus two", "thank you")]
    none = torch.zeros(0, 3, 1, 1)
    together = learner.answer(rows, none, None, writer.end_of_turn, steps=5)
    assert together == [learner.answer([row], none, None, writer.end_of_turn, steps=5)[0] for row in rows]


def test_sets_are_read_by_the_evaluator(tmp_path: Path) -> None:
    tasks = ("typed_question", "picture_caption", "picture_question", "clip_question")
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert len(list(SetWriter(folder, seed=5).write(tasks, 3))) == 12
    items = read_evaluation_set(tmp_path / "a")
    assert [item.task for item in items] == [task for task in tasks for _ in range(3)]
    assert (tmp_path / "a" / "set.jsonl").read_bytes() == (tmp_path / "b" / "set.jsonl").read_bytes()
    picture = read_image(tmp_path / "a" / items[3].images[0])
    assert picture.size == (112, 112)
    assert pixels([picture], FRONT_END).shape == (1, 3, 112, 112)


def test_held_out_voices_are_no_training_voices() -> None:
    assert not set(HELD_OUT_FLITE) & set(TRAINING_FLITE)
    assert set(HELD_OUT_VARIANTS) == {"f3", "m5", "croak", "Andy", "steph"}
    assert set(HELD_OUT_FLITE) == {"slt", "rms"}


def test_disturbed_speech_stays_within_full_scale_and_depends_on_the_dice_alone() -> None:
    tone = np.sin(np.arange(16000) / 20).astype(np.float32)
    heard = [disturb(tone, np.random.default_rng(seed), [tone]) for seed in range(30)]
    assert all(np.abs(one).max() <= 1.0 and np.isfinite(one).all() for one in heard)
    assert np.array_equal(heard[3], disturb(tone, np.random.default_rng(3), [tone]))
    assert len({len(one) for one in heard}) > 10, "speed and silence vary"
    for seed in range(12):
        noise = disturbance(np.random.default_rng(seed))
        assert 0.5 < len(noise) / 16000 < 3.1
        assert np.isfinite(noise).all()


def test_questions_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["questions", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {
        "question": "what is seven plus five",
        "reply": "Seven plus five is twelve.",
        "task": "sums",
    }.items() <= next(one for one in listed if one["question"] == "what is seven plus five").items()
    assert set(listed[0]) == {"question", "reply", "task", "held_out"}


@pytest.mark.parametrize("arguments", ["train --stage 4", "train --stage 1 --part joint", "pak", "evaluate"])
def test_wrong_usage_is_two(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.split()) == 2
    assert capsys.readouterr().err


def test_training_without_speech_names_the_file_and_the_command(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--stage", "2", "--work", str(workspace.root)]) == 1
    assert "shard-0000.npz" in (err := capsys.readouterr().err)
    assert "miniature data" in err


def test_a_set_with_a_missing_file_is_refused(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list(SetWriter(tmp_path, seed=1).write(("picture_caption",), 2))
    (tmp_path / "picture-0000.png").unlink()
    assert main(["evaluate", "--work", str(workspace.root), "--set", str(tmp_path)]) == 1
    assert "set.jsonl:1" in capsys.readouterr().err


@pytest.mark.slow
def test_spoken_sets_and_shards_with_real_synthesizers(tmp_path: Path) -> None:
    from sottovoce.demos.miniature.speech_in import make_shard, read_shard, write_shard

    list(
        SetWriter(tmp_path / "set", seed=2).write(
            ("spoken_question", "spoken_question_new_synthesizer", "not_addressed"), 3
        )
    )
    voices = {item.voice for item in read_evaluation_set(tmp_path / "set")}
    allowed = {*(f"flite:{name}" for name in HELD_OUT_FLITE), "noise"}
    assert all(voice in allowed or str(voice).split("+")[1] in HELD_OUT_VARIANTS for voice in voices)
    shard = make_shard(4, 0, size=8, noises=1)
    write_shard(tmp_path / "shard-0000.npz", shard)
    again = read_shard(tmp_path / "shard-0000.npz")
    assert [one.exchange for one in again] == [one.exchange for one in shard]
    assert all(
        np.array_equal(a.features, b.features) for a, b in zip(again, make_shard(4, 0, size=8, noises=1), strict=True)
    )
    assert not any(one.exchange.held_out for one in shard)
