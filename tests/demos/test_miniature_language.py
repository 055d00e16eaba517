"""Tokenizer, prompts, stretched text, and trainings that go on where they stopped."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from sottovoce.calibration.edit_distance import edit_distance
from sottovoce.demos.miniature.curriculum import questions
from sottovoce.demos.miniature.encoder_training import (
    EncoderRecipe,
    EncoderTrainer,
    ctc_path,
    token_loss,
    token_scores,
)
from sottovoce.demos.miniature.joint_training import JointRecipe, JointTrainer, Segment
from sottovoce.demos.miniature.language_training import LanguageRecipe, LanguageTrainer, Phase
from sottovoce.demos.miniature.lessons import Mixture, Teacher
from sottovoce.demos.miniature.pack import newest_states
from sottovoce.demos.miniature.pictures import COLORS, SHAPES, draw_picture
from sottovoce.demos.miniature.prompts import AUDIO_ID, IGNORED, IMAGE_ID, Ask, PromptWriter, Sound, stretched, typed
from sottovoce.demos.miniature.settings import Workspace
from sottovoce.demos.miniature.speech_batches import Disturbance, SpeechData, disturb
from sottovoce.demos.miniature.speech_in import Exchange, Spoken, shard_path, write_shard
from sottovoce.demos.miniature.speech_out.training_state import load_state, save_state
from sottovoce.demos.miniature.tokenizer import (
    FRAMING,
    MAX_PIECE_BYTES,
    SPECIAL_TOKENS,
    draw_embeddings,
    save_tokenizer,
    train_tokenizer,
)
from sottovoce.demos.miniature.vision_training import (
    CAPTION_WORDS,
    KINDS,
    LONGEST_CAPTION,
    PLACE_COLORS,
    VisionRecipe,
    VisionTrainer,
    caption_labels,
    place_labels,
    token_order,
)
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.manifest import PromptSpec, StateTokens
from sottovoce.runtime.text.prompt import AUDIO_ID as RUNTIME_AUDIO
from sottovoce.runtime.text.prompt import IMAGE_ID as RUNTIME_IMAGE
from sottovoce.runtime.text.prompt import PromptBuilder, UserContent
from sottovoce.runtime.text.tokenizer import Tokenizer as RuntimeTokenizer

SPEC = PromptSpec("<|im_start|>", "<|im_end|>", "", "", "", StateTokens())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer()


@pytest.fixture(scope="module")
def writer(tokenizer: Tokenizer) -> PromptWriter:
    return PromptWriter(tokenizer, tokens_per_image=16)


@pytest.fixture(scope="module")
def table(tokenizer: Tokenizer) -> np.ndarray:
    return draw_embeddings(tokenizer.get_vocab_size())


def test_pieces_are_short_and_nothing_is_lost(tokenizer: Tokenizer) -> None:
    long = {token for token in tokenizer.get_vocab() if len(token) > MAX_PIECE_BYTES} - set(SPECIAL_TOKENS)
    whole = {tokenizer.encode(text).tokens[0] for text in FRAMING}
    assert all(len(tokenizer.encode(text).ids) == 1 for text in FRAMING)
    # What remains are the steps on the way to a whole framing word.
    assert all(any(word.startswith(token) or token in word for word in whole) for token in long)
    for one in questions():
        for text in (one.question, one.reply, typed(one.question, random.Random(1))):
            assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_saved_files_give_the_same_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_tokenizer(tokenizer, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
    }  # fmt: skip
    again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "<|im_start|>user\nwhat is 7 plus five?<|im_end|>\n☞Twelve, née Zwölf."
    assert again.encode(text).ids == tokenizer.encode(text).ids
    assert train_tokenizer().to_str() == tokenizer.to_str(), "the same corpus gives the same pieces"


def test_a_prompt_is_the_chat_text_with_placeholders(writer: PromptWriter, tokenizer: Tokenizer) -> None:
    ask = Ask(Sound(3), images=2)
    row = writer.lesson("Be kind.", [(Ask("what is two plus two"), "☜Four.")], ask, "☞Yes.")
    before = (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nwhat is two plus two<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    expected = [*tokenizer.encode(before + "☜Four.<|im_end|>\n<|im_start|>user\n").ids, *[IMAGE_ID] * 32,
                *tokenizer.encode("\n").ids, *[AUDIO_ID] * 3,
                *tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n☞Yes.<|im_end|>").ids]  # fmt: skip
    assert row.ids == expected
    learned = [label for label in row.labels if label != IGNORED]
    assert learned == tokenizer.encode("☞Yes.<|im_end|>").ids
    assert row.ids[-len(learned) :] == learned, "labels stand under their own tokens"


def test_stretched_text_reads_back_as_its_tokens(writer: PromptWriter, table: np.ndarray) -> None:
    ids = writer.encode(" turn on the kitchen light")
    for seed in range(20):
        sound = stretched(ids, writer.blank, table, np.random.default_rng(seed), errors=0.0)
        assert sound.vectors is not None
        assert sound.vectors.shape == (sound.length, 256)
        nearest = token_scores(torch.from_numpy(sound.vectors)[None], torch.from_numpy(table)).argmax(-1)[0]
        assert tuple(ctc_path(nearest, writer.blank)) == ids


def test_tied_ctc_is_least_where_the_embeddings_are_the_words(writer: PromptWriter, table: np.ndarray) -> None:
    ids = writer.encode(" what color is snow")
    rows = torch.from_numpy(table)
    spelled = rows[[token for pair in zip(ids, [writer.blank] * len(ids), strict=True) for token in pair]][None]
    sizes = torch.tensor([spelled.shape[1]])
    right = token_loss(spelled, sizes, [ids], rows, writer.blank)
    other = token_loss(spelled, sizes, [writer.encode(" what color is coal")], rows, writer.blank)
    assert right < 0.05
    assert other > 10 * right


def test_edit_distance() -> None:
    assert edit_distance([1, 2, 3], [1, 2, 3]) == 0
    assert edit_distance([1, 2, 3], []) == 3
    assert edit_distance([1, 2, 3, 4], [2, 3, 5]) == 2


def _trained(trainer: LanguageTrainer | EncoderTrainer | VisionTrainer, steps: int) -> list[float]:
    return [trainer.step()["loss"] for _ in range(steps)]


def test_language_training_resumes_to_the_same_curve(writer: PromptWriter, table: np.ndarray, tmp_path: Path) -> None:
    recipe = LanguageRecipe(phases=(Phase(9, Mixture(typed=2, stretched=2, pictures=1, clips=1, noises=1)),))
    whole = _trained(LanguageTrainer(recipe, writer, table), 3)
    first = LanguageTrainer(recipe, writer, table)
    assert _trained(first, 1) == whole[:1]
    save_state(tmp_path / "state.pt", first.state())
    second = LanguageTrainer(recipe, writer, table)
    second.load(load_state(tmp_path / "state.pt") or {})
    assert _trained(second, 2) == whole[1:]
    assert torch.equal(second.learner.llm.model.embed_tokens.weight, torch.from_numpy(table)), "the table is frozen"


def test_vision_training_resumes_and_hands_over(writer: PromptWriter, table: np.ndarray, tmp_path: Path) -> None:
    recipe = VisionRecipe(batch_size=4)
    whole = _trained(VisionTrainer(recipe), 3)
    first = VisionTrainer(recipe)
    _trained(first, 2)
    save_state(tmp_path / "state.pt", first.state())
    state = load_state(tmp_path / "state.pt") or {}
    second = VisionTrainer(recipe)
    second.load(state)
    assert _trained(second, 1) == whole[2:]
    language = LanguageTrainer(LanguageRecipe(), writer, table)
    language.start_from(state)
    assert torch.equal(language.learner.vision.mm_projector[0].weight, first.vision.mm_projector[0].weight)


def test_every_caption_can_be_learned_word_by_word() -> None:
    draw = random.Random(6)
    for i in range(600):
        caption = draw_picture(draw, held_out=i % 5 == 0, side=16).caption
        labels = caption_labels(caption)
        assert len(labels) == LONGEST_CAPTION
        assert " ".join(CAPTION_WORDS[label] for label in labels).strip() == caption.lower().rstrip(".")


def test_place_labels_lie_where_the_colors_are() -> None:
    draw = random.Random(7)
    side = 112 // 4
    for _ in range(60):
        picture = draw_picture(draw, held_out=False, side=112)
        labels = place_labels(picture)
        cells = np.zeros_like(labels)
        cells[token_order()] = labels
        values = np.asarray(picture.image, dtype=int)
        for cell, (kind, color) in enumerate(cells):
            patch = values[cell // 4 * side : (cell // 4 + 1) * side, cell % 4 * side : (cell % 4 + 1) * side]
            if kind and len(picture.shapes) == 1 and KINDS[kind] in SHAPES:
                colored = np.abs(patch - COLORS[PLACE_COLORS[color]]).sum(-1) < 40
                assert colored.any(), picture.caption
        for shape in picture.shapes:
            kind, color = cells[min(3, int(shape.y * 4)) * 4 + min(3, int(shape.x * 4))]
            assert (KINDS[kind], PLACE_COLORS[color]) == (shape.kind, shape.color)


def _write_shards(folder: Path, count: int) -> None:
    dice = np.random.default_rng(8)
    for number in range(count):
        spoken = [
            Spoken(dice.normal(8, 3, (int(dice.integers(60, 110)), 80)).astype(np.float16), exchange, "test")
            for exchange in questions()[number * 30 : number * 30 + 12]
        ]
        write_shard(
            shard_path(folder, number), [*spoken, Spoken(spoken[0].features, Exchange("", "", "noise", False), "noise")]
        )


def test_encoder_training_resumes_across_the_arrival_of_more_speech(
    writer: PromptWriter, table: np.ndarray, tmp_path: Path
) -> None:
    _write_shards(tmp_path, 2)
    recipe = EncoderRecipe(growth=((0, 1), (2, 2)), batch_size=3, clean_steps=1, tokens_from=1)
    whole = _trained(EncoderTrainer(recipe, SpeechData(tmp_path, 1), writer, table), 4)
    first = EncoderTrainer(recipe, SpeechData(tmp_path, 1), writer, table)
    _trained(first, 3)
    save_state(tmp_path / "state.pt", first.state())
    second = EncoderTrainer(recipe, SpeechData(tmp_path, 1), writer, table)
    second.load(load_state(tmp_path / "state.pt") or {})
    assert _trained(second, 1) == whole[3:]


def test_joint_training_takes_over_both_states_and_resumes(
    writer: PromptWriter, table: np.ndarray, tmp_path: Path
) -> None:
    _write_shards(tmp_path, 1)
    data = SpeechData(tmp_path, 1)
    language, encoder = (
        LanguageTrainer(LanguageRecipe(), writer, table),
        EncoderTrainer(EncoderRecipe(), data, writer, table),
    )
    recipe = JointRecipe(
        segments=(Segment(40, 1e-3, heard=3),),
        mixture=Mixture(typed=1, stretched=1, pictures=1, clips=0, noises=0),
    )
    whole = JointTrainer(recipe, data, writer, table)
    whole.start_from(language.state(), encoder.state())
    assert torch.equal(whole.learner.llm.lm_head.weight, language.learner.llm.lm_head.weight)
    assert torch.equal(whole.audio.adpter.project.weight, encoder.encoder.adpter.project.weight)
    first = whole.step()
    save_state(tmp_path / "state.pt", whole.state())
    second = whole.step()
    again = JointTrainer(recipe, data, writer, table)
    again.load(load_state(tmp_path / "state.pt") or {})
    assert again.step() == second
    assert first != second


def _segments(*steps: int) -> tuple[Segment, ...]:
    return tuple(Segment(count, 1e-2, heard=3) for count in steps)


def test_what_is_packed_is_the_mean_of_the_weights_at_the_segments_ends(
    writer: PromptWriter, table: np.ndarray, tmp_path: Path
) -> None:
    _write_shards(tmp_path, 1)
    mixture = Mixture(typed=1, stretched=0, pictures=0, clips=0, noises=0)
    recipe = JointRecipe(mixture=mixture, segments=_segments(2, 1, 2))
    assert (recipe.steps, recipe.segment_ends) == (5, [2, 3, 5])
    trainer, ends = JointTrainer(recipe, SpeechData(tmp_path, 1), writer, table), []
    for step in range(1, 6):
        trainer.step()
        if step in (2, 3, 5):
            ends.append(trainer.audio.adpter.project.weight.detach().clone())
        if step == 4:  # a training that was killed knows the mean so far
            save_state(tmp_path / "states" / "joint" / "state.pt", trainer.state())
            trainer = JointTrainer(recipe, SpeechData(tmp_path, 1), writer, table)
            trainer.load(load_state(tmp_path / "states" / "joint" / "state.pt") or {})
    save_state(tmp_path / "states" / "joint" / "state.pt", trainer.state())
    _, encoder = newest_states(Workspace(tmp_path))
    assert encoder is not None
    assert not torch.allclose(ends[0], ends[2])
    assert torch.allclose(encoder["encoder"]["adpter.project.weight"], sum(ends) / 3, atol=1e-6)


def test_from_packed_weights_the_last_segment_alone_is_gone_through(
    writer: PromptWriter, table: np.ndarray, tmp_path: Path
) -> None:
    _write_shards(tmp_path, 1)
    mixture = Mixture(typed=1, stretched=0, pictures=0, clips=0, noises=0)
    recipe = JointRecipe(mixture=mixture, segments=_segments(20, 10, 2))
    trainer = JointTrainer(recipe, SpeechData(tmp_path, 1), writer, table)
    packed = trainer.audio.adpter.project.weight.detach().clone()
    trainer.begin_last_segment()
    while trainer.finished_steps < recipe.steps:
        trainer.step()
    end = trainer.audio.adpter.project.weight
    assert trainer.finished_steps == 32
    assert not torch.allclose(end, packed)
    assert trainer.mean is not None
    assert torch.allclose(trainer.mean["encoder"]["adpter.project.weight"], (2 * packed + end) / 3, atol=1e-6)


def test_what_is_known_by_heart_is_rehearsed_now_and_then(
    writer: PromptWriter, table: np.ndarray, tmp_path: Path
) -> None:
    _write_shards(tmp_path, 1)
    mixture = Mixture(typed=1, stretched=0, pictures=0, clips=0, noises=0)
    segments = (Segment(2, 1e-3, heard=2), Segment(4, 1e-3, heard=3, rehearse_every=3))
    trainer = JointTrainer(JointRecipe(mixture=mixture, segments=segments), SpeechData(tmp_path, 1), writer, table)
    figures = [trainer.step() for _ in range(6)]
    assert ["rehearsal_loss" in step for step in figures] == [True, True, False, True, False, False]
    assert all("reply_loss" in step for step in figures)


def test_missing_speech_is_named(tmp_path: Path) -> None:
    _write_shards(tmp_path, 1)
    with pytest.raises(SottovoceError, match=r"shard-0001\.npz") as refusal:
        SpeechData(tmp_path, 3)
    assert "miniature data" in str(refusal.value)


def test_warped_features_move_along_the_mel_axis() -> None:
    ramp = np.tile(np.arange(80, dtype=np.float32), (30, 1))
    still = Disturbance(mask_bins=0, mask_frames=0, shift_bins=0, stretch=0, noise_floor=0)
    assert np.allclose(disturb(ramp, still, np.random.default_rng(1)), ramp, atol=1e-4)
    moved = disturb(ramp, replace(still, shift_bins=3), np.random.default_rng(1))
    difference = (moved - ramp)[:, 10:70]
    assert np.allclose(difference, difference[0, 0], atol=1e-4), "a shift moves all bins alike"
    assert 0.1 < abs(float(difference[0, 0])) <= 3
    wider = disturb(ramp, replace(still, stretch=0.12), np.random.default_rng(2))[0, 10:70]
    assert np.allclose(np.diff(wider), np.diff(wider)[0], atol=1e-4)
    assert not np.isclose(np.diff(wider)[0], 1, atol=1e-3)


def test_a_conversation_of_lessons_reads_as_the_runtime_feeds_it_and_teaches_every_reply(
    writer: PromptWriter, table: np.ndarray, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    heard = stretched(writer.encode(" what is two plus two"), writer.blank, table, np.random.default_rng(0))
    lessons = [
        writer.lesson("Be brief.", (), Ask("what is one plus one"), "☜One plus one is two."),
        writer.lesson("Other.", (), Ask(heard), "☞Two plus two is four."),
        writer.lesson("Other.", ((Ask("hello"), "☜Hello."),), Ask("and who are you", images=1), "☜I am here."),
    ]
    whole = writer.conversation(lessons)

    save_tokenizer(tokenizer, tmp_path)
    builder = PromptBuilder(RuntimeTokenizer(tmp_path / "tokenizer.json"), SPEC)
    turns: list[tuple[UserContent, str]] = [
        (UserContent(text="what is one plus one"), "☜One plus one is two."),
        (UserContent(audio=True), "☞Two plus two is four."),
        (UserContent(text="hello"), "☜Hello."), (UserContent(tiles=1, text="and who are you"), "☜I am here."),
    ]  # fmt: skip
    fed = builder.system("Be brief.")
    for content, reply in turns:
        ids = builder.user(content)
        lengths = {RUNTIME_AUDIO: heard.length, RUNTIME_IMAGE: 16}
        fed += [one for token in ids for one in [token] * lengths.get(token, 1)] + builder.reply(reply)
        fed += builder.after_reply()
    assert whole.ids == fed[: -len(builder.after_reply())]
    taught = [token for token in whole.labels if token != IGNORED]
    assert taught == [token for lesson in lessons for token in lesson.labels if token != IGNORED]
    assert len(whole.labels) == len(whole.ids)
    assert whole.replies == 3


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_lessons_heard_together_keep_the_order_of_their_embeddings(
    writer: PromptWriter, table: np.ndarray, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sottovoce.demos.miniature.lessons.CONVERSATION_SHARE", share)
    exchanges = [one for one in questions() if one.task == "capitals"][:12]
    spoken = [Spoken(np.zeros((50, 80), np.float16), one, "x") for one in exchanges]
    lengths = list(range(5, 17))
    groups = Teacher(writer, table).listen(spoken, lengths, np.random.default_rng(3))
    assert len(groups) == (1 if share == 0 else 2)
    assert sum(group.embeddings for group in groups) == sum(lengths)
    heard = [sound.length for group in groups for row in group.lessons.rows for sound in row.sounds]
    assert heard == lengths
    assert sum(group.lessons.replies for group in groups) == len(exchanges)
