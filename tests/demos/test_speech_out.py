"""Stage 3 of the miniature: sentences, codes, batches and trainings that resume to the same curve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sottovoce.calibration.edit_distance import edit_distance
from sottovoce.demos.miniature.settings import Workspace
from sottovoce.demos.miniature.speech_out.acoustic_units import (
    SAMPLES_PER_CODE,
    AcousticUnits,
    UnitSettings,
    find_units,
    k_means,
    nearest,
)
from sottovoce.demos.miniature.speech_out.codec_training import (
    MINIATURE_CODEC,
    CodecTrainer,
    CodecTraining,
    train_codec,
)
from sottovoce.demos.miniature.speech_out.listener import plain_words
from sottovoce.demos.miniature.speech_out.measuring import held_out_utterances
from sottovoce.demos.miniature.speech_out.packing import write_codec, write_speech_decoder
from sottovoce.demos.miniature.speech_out.pronunciation import Pronounced, PronunciationCorpus, phonemes_of
from sottovoce.demos.miniature.speech_out.reading_place import reading_places, words_of_codes, words_of_tokens
from sottovoce.demos.miniature.speech_out.replies import split_replies, spoken_pieces
from sottovoce.demos.miniature.speech_out.sentences import practice_sentences, spoken_number
from sottovoce.demos.miniature.speech_out.sound_sources import TrainingStates
from sottovoce.demos.miniature.speech_out.speech_batches import IGNORED, BatchRecipe, SpeechCorpus
from sottovoce.demos.miniature.speech_out.speech_decoder_training import (
    MINIATURE_SPEECH_DECODER,
    SpeechDecoderTrainer,
    SpeechDecoderTraining,
    train_speech_decoder,
)
from sottovoce.demos.miniature.speech_out.spoken_codes import SpokenText, encode_utterances, read_spoken, write_spoken
from sottovoce.demos.miniature.speech_out.training_state import save_state, segment_at
from sottovoce.demos.miniature.speech_out.voice import Utterance, read_shards, write_shard
from sottovoce.demos.miniature.speech_out.voice_stream import VoiceStream, spoken_phonemes
from sottovoce.export.modules.codec import CodecDecoder
from sottovoce.runtime.errors import SottovoceError

TINY_UNITS = UnitSettings(
    codes=16, spectral_size=4, context_size=8, phonetic_size=3, phonetic_weight=1.0, rounds=10, samples=1_000
)
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
TINY_DECODER = replace(MINIATURE_SPEECH_DECODER, hidden_size=16, intermediate_size=24, num_heads=2, num_codes=64)


def _utterances(count: int = 4) -> list[Utterance]:
    draw = np.random.default_rng(5)
    made = []
    for index in range(count):
        length = 5_000 + 700 * index
        samples = (draw.normal(0, 2_000, length)).astype(np.int16)
        phonemes = np.array([1, 120, 33, 122, 10], dtype=np.int16)
        made.append(Utterance(f"sentence {'abcd'[index % 4]}", samples, phonemes, np.full(5, length / 5, np.float32)))
    return made


def test_sentences_repeat_with_the_seed_and_differ_from_each_other() -> None:
    sentences = practice_sentences(2_000, seed=7)
    assert sentences == practice_sentences(2_000, seed=7)
    assert sentences != practice_sentences(2_000, seed=8)
    bodies = {sentence.rstrip(".,?!") for sentence in sentences}
    assert len(bodies) == len(sentences)
    letters = {character for sentence in sentences for character in sentence}
    assert letters <= set("abcdefghijklmnopqrstuvwxyz -.,?!")
    assert letters >= set("abcdefghijklmnopqrstuvwxyz")


def test_excluded_sentences_are_not_practised() -> None:
    unwanted = frozenset(sentence.rstrip(".,?!") for sentence in practice_sentences(300, seed=1))
    assert not unwanted & {sentence.rstrip(".,?!") for sentence in practice_sentences(300, seed=1, exclude=unwanted)}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety-nine"),
        (300, "three hundred"),
        (7041, "seven thousand forty-one"),
    ],
)
def test_numbers_are_spelled(value: int, words: str) -> None:
    assert spoken_number(value) == words


def test_pieces_are_cut_as_the_runtime_cuts_them() -> None:
    assert spoken_pieces("Okay, yes, the lamp is off. Fine") == ["okay,", "yes, the lamp is off.", "fine"]


def test_held_out_replies_are_never_trained_on() -> None:
    replies = [f"The answer is {spoken_number(value)}." for value in range(400)]
    texts = split_replies(replies)
    assert not set(texts.training) & set(texts.held_out)
    assert len(texts.training) + len(texts.held_out) == 400
    assert 5 <= len(texts.held_out) <= 40
    assert split_replies(replies[::-1]).training == texts.training


def test_shards_come_back_as_they_were(tmp_path: Path) -> None:
    utterances = _utterances()
    write_shard(tmp_path / "shard-0000.npz", utterances)
    for written, read in zip(utterances, read_shards(tmp_path), strict=True):
        assert read.text == written.text
        np.testing.assert_array_equal(read.samples, written.samples)
        np.testing.assert_array_equal(read.phonemes, written.phonemes)


def test_stress_and_length_belong_to_their_vowel() -> None:
    assert spoken_phonemes(np.array([15, 120, 33, 122, 10])).tolist() == [15, 33, 33, 33, 10]


def test_a_stream_knows_its_phonemes() -> None:
    stream = VoiceStream(_utterances(2))
    assert stream.phonemes_at(np.array([10, 1_500, 4_900, 5_010])).tolist() == [1, 33, 10, 1]


def _tones(count: int = 4) -> list[Utterance]:
    """Sounds of four tones in different orders, the tone being the phoneme."""
    made = []
    for index in range(count):
        order = np.random.default_rng(index).permutation(4)
        places = np.arange(2_400) / 24_000
        samples = np.concatenate([6_000 * np.sin(2 * np.pi * 300 * 2**tone * places) for tone in order])
        made.append(Utterance("tones", samples.astype(np.int16), (order + 20).astype(np.int16), np.full(4, 2_400.0)))
    return made


@pytest.fixture(scope="module")
def units() -> AcousticUnits:
    return find_units(_tones(), TINY_UNITS)


def test_units_tell_sounds_apart(units: AcousticUnits) -> None:
    """In the middle of a tone the code says which tone it is."""
    codes_of_tone: dict[int, set[int]] = {}
    for utterance, item in zip(_tones(), encode_utterances(units, _tones()), strict=True):
        assert len(item.codes) == 16
        for place, phoneme in enumerate(utterance.phonemes.tolist()):
            codes_of_tone.setdefault(phoneme, set()).update(item.codes[4 * place + 1 : 4 * place + 3].tolist())
    tones = list(codes_of_tone.values())
    assert len(tones) == 4
    assert all(not first & second for index, first in enumerate(tones) for second in tones[:index])


def test_units_repeat_with_the_seed(units: AcousticUnits) -> None:
    again = find_units(_tones(), TINY_UNITS)
    for name, tensor in units.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_every_sample_has_a_code(units: AcousticUnits) -> None:
    spoken = encode_utterances(units, _utterances())
    assert [len(item.codes) for item in spoken] == [-(-len(u.samples) // SAMPLES_PER_CODE) for u in _utterances()]
    assert all(item.codes.min() >= 0 and item.codes.max() < TINY_UNITS.codes for item in spoken)


def test_centres_are_found() -> None:
    points = torch.tensor([[0.0, 0.1], [0.0, -0.1], [5.0, 5.1], [5.0, 4.9]])
    centres = k_means(points, 2, 10, torch.Generator().manual_seed(0))
    assert sorted(round(float(value)) for value in centres[:, 0]) == [0, 5]
    assert nearest(points, centres).tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])


def test_a_killed_codec_training_resumes_to_the_same_curve(units: AcousticUnits, tmp_path: Path) -> None:
    utterances = _tones()
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


def _spoken(count: int) -> list[SpokenText]:
    draw = np.random.default_rng(3)
    lengths = draw.integers(4, 12, count)
    return [
        SpokenText("abcdefgh"[: length // 2 + 1], *(draw.integers(0, 64, length).astype(np.int16) for _ in range(2)))
        for length in lengths
    ]


def _tokenize(text: str) -> list[int]:
    return [ord(character) - ord("a") for character in text]


def test_spoken_texts_come_back_as_they_were(tmp_path: Path) -> None:
    spoken = _spoken(5)
    write_spoken(tmp_path / "spoken.npz", spoken)
    for written, read in zip(spoken, read_spoken(tmp_path / "spoken.npz"), strict=True):
        assert read.text == written.text
        np.testing.assert_array_equal(read.codes, written.codes)


def test_every_sentence_is_met_once_a_pass_and_ends() -> None:
    spoken = _spoken(23)
    corpus = SpeechCorpus(spoken, _tokenize, TINY_DECODER, BatchRecipe(positions=60, wrong_codes=0.0))
    met = 0
    for step in range(corpus.batches_in_a_pass):
        batch = corpus.batch(step)
        met += len(batch.text_ids)
        for row, length in enumerate(batch.code_lengths.tolist()):
            assert batch.targets[row, length] == TINY_DECODER.end_id
            assert (batch.targets[row, length + 1 :] == IGNORED).all()
            assert torch.equal(batch.codes[row, :length], batch.targets[row, :length])
            assert (batch.codes[row, length:] == TINY_DECODER.padding_id).all()
    assert met == 23


def test_wrong_codes_are_in_the_inputs_only() -> None:
    spoken = _spoken(40)
    corpus = SpeechCorpus(spoken, _tokenize, TINY_DECODER, BatchRecipe(positions=2_000, wrong_codes=0.5))
    batch = corpus.batch(0)
    real = batch.codes != TINY_DECODER.padding_id
    changed = (batch.codes != batch.targets[:, :-1])[real].float().mean()
    assert 0.3 < float(changed) < 0.6


def test_a_killed_decoder_training_resumes_to_the_same_curve(tmp_path: Path) -> None:
    recipe = SpeechDecoderTraining(
        steps=5, text_only_steps=2, report_every=1, model=TINY_DECODER, batches=BatchRecipe(positions=80)
    )
    spoken = _spoken(30)
    embeddings = torch.randn(26, 16, generator=torch.Generator().manual_seed(1))

    def corpus() -> SpeechCorpus:
        return SpeechCorpus(spoken, _tokenize, TINY_DECODER, recipe.batches)

    pronunciation = PronunciationCorpus([Pronounced("abcd", np.array([5, 6, 7]))] * 3, _tokenize)
    whole = SpeechDecoderTrainer(recipe, embeddings)
    train_speech_decoder(whole, corpus(), pronunciation, corpus(), tmp_path / "whole")
    killed = SpeechDecoderTrainer(recipe, embeddings)
    killed_corpus = corpus()
    for _ in range(3):
        killed.step(killed_corpus, pronunciation)
    state = killed.state()
    resumed = SpeechDecoderTrainer(recipe, embeddings)
    resumed.resume(state)
    resumed_corpus = corpus()
    for _ in range(2):
        resumed.step(resumed_corpus, pronunciation)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_text_alone_teaches_the_spelling() -> None:
    """Two words and their sounds, learned by heart in a few steps."""
    recipe = SpeechDecoderTraining(
        steps=300, text_only_steps=300, pronunciation_batch=8, peak_learning_rate=5e-3, model=TINY_DECODER
    )
    pair = [Pronounced("abc", np.array([5, 6, 7, 8])), Pronounced("cab", np.array([8, 8, 9]))]
    corpus = PronunciationCorpus(pair, _tokenize)
    trainer = SpeechDecoderTrainer(recipe, torch.randn(26, 16, generator=torch.Generator().manual_seed(1)))
    speech = SpeechCorpus(_spoken(3), _tokenize, TINY_DECODER, recipe.batches)
    for _ in range(120):
        figures = trainer.step(speech, corpus)
    assert set(figures) == {"pronunciation"}
    assert figures["pronunciation"] < 0.2
    trainer.model.eval()
    for item in pair:
        batch = PronunciationCorpus([item], _tokenize).batch(0, 1)
        assert phonemes_of(trainer.pronunciation_logits(batch)[0], 3) == item.phonemes.tolist()


def test_sentences_with_more_phonemes_than_slots_are_left_out() -> None:
    fits, fits_not = np.array([1, 2, 3, 4]), np.array([1, 1, 2, 3])
    assert len(PronunciationCorpus([Pronounced("a", fits), Pronounced("a", fits_not)], _tokenize)) == 1


def test_packed_folders_are_read_by_the_exporter(tmp_path: Path) -> None:
    from sottovoce.export.checkpoint.config_file import ConfigFile
    from sottovoce.export.checkpoint.speech_config import read_codec_config, read_speech_decoder_config
    from sottovoce.export.modules.speech_decoder import SpeechDecoder

    write_codec(tmp_path / "codec", CodecDecoder(MINIATURE_CODEC))
    model = SpeechDecoder(MINIATURE_SPEECH_DECODER)
    write_speech_decoder(tmp_path / "decoder", model, MINIATURE_SPEECH_DECODER)
    speech = read_speech_decoder_config(ConfigFile(tmp_path / "decoder" / "model.json"), 256)
    assert speech == MINIATURE_SPEECH_DECODER
    assert read_codec_config(ConfigFile(tmp_path / "codec" / "model.json"), speech) == MINIATURE_CODEC
    state = torch.load(tmp_path / "decoder" / "final.pt", weights_only=True)["model"]
    assert {name: tensor.dtype for name, tensor in state.items()} == dict.fromkeys(model.state_dict(), torch.float16)
    codec = torch.load(tmp_path / "codec" / "final.pt", weights_only=True)
    assert set(codec) == {"generator", "quantizer"}
    assert (tmp_path / "codec" / "final.pt").stat().st_size < 6_000_000


def test_word_errors_count_the_fewest_changes() -> None:
    assert edit_distance(["the", "lamp", "is", "on"], ["the", "lamp", "is", "on"]) == 0
    assert edit_distance(["the", "lamp", "is", "on"], ["a", "lamp", "on"]) == 2
    assert edit_distance([], ["one", "two"]) == 2


def test_heard_numbers_are_words() -> None:
    assert plain_words("7 plus 5 is 12.") == ["seven", "plus", "five", "is", "twelve"]
    assert plain_words("Sixty-three, the 3rd of May!") == ["sixty", "three", "the", "third", "of", "may"]
    assert plain_words("1,250%") == ["one", "thousand", "two", "hundred", "fifty", "percent"]


def test_replies_cover_the_curriculum() -> None:
    from sottovoce.demos.miniature.curriculum import questions
    from sottovoce.demos.miniature.speech_out.stage import curriculum_replies

    replies = curriculum_replies()
    assert {exchange.reply for exchange in questions()} <= set(replies)
    assert len(replies) == len(set(replies)) > 4_000
    assert replies == curriculum_replies()


def test_listening_needs_something_to_listen_to(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(SottovoceError, match="no state of the codec"):
        TrainingStates(workspace)
    with pytest.raises(SottovoceError, match="no held-out sentences"):
        held_out_utterances(workspace, 3)
    write_shard(tmp_path / "voice" / "replies-held-out" / "shard-0000.npz", _utterances())
    with pytest.raises(SottovoceError, match="no held-out sentences"):
        held_out_utterances(workspace, 3)


def test_codes_and_tokens_know_their_words() -> None:
    phonemes = np.array([1, 33, 33, 3, 24, 24, 3, 3, 31, 10, 2])
    assert words_of_codes(phonemes).tolist() == [-100, 0, 0, -100, 1, 1, -100, -100, 2, -100, -100]
    letters = [ord(character) for character in "ab c def"]

    def tokenize(text: str) -> list[int]:
        return [ord(character) for character in text]

    assert tokenize("ab c def") == letters
    words = words_of_tokens("ab c def", tokenize)
    assert words is not None
    assert words.tolist() == [0, 0, 1, 1, 2, 2, 2, 2]
    assert reading_places("ab c def", phonemes, tokenize) is not None
    assert reading_places("ab c", phonemes, tokenize) is None


def test_the_reading_head_learns_its_place() -> None:
    """Only the hint is trained: the head's attention on the right word goes up, to where it can be."""
    recipe = SpeechDecoderTraining(text_only_steps=0, model=TINY_DECODER, batches=BatchRecipe(positions=200))
    phonemes = np.array([33] * 4 + [3] + [24] * 4)
    codes = np.array([1, 2, 3, 4, 0, 5, 6, 7, 8])
    corpus = SpeechCorpus(
        [SpokenText("ab cd", codes, phonemes)] * 2,
        lambda text: [ord(c) % 26 for c in text],
        TINY_DECODER,
        recipe.batches,
    )
    trainer = SpeechDecoderTrainer(recipe, torch.randn(26, 16, generator=torch.Generator().manual_seed(1)))
    batch = corpus.batch(0)
    assert batch.code_words[0].tolist() == [0, 0, 0, 0, -100, 1, 1, 1, 1, -100]
    optimizer = torch.optim.Adam(trainer.parameters, lr=1e-2)
    losses = []
    for _ in range(60):
        trainer.losses(batch)
        loss = trainer._reading.loss(batch.token_words, batch.code_words)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > 0.8
    assert losses[-1] < 0.2
