"""The speech decoder's batches, hints and training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sottovoce.demos.miniature.speech_out.pronunciation import Pronounced, PronunciationCorpus, phonemes_of
from sottovoce.demos.miniature.speech_out.reading_place import reading_places, words_of_codes, words_of_tokens
from sottovoce.demos.miniature.speech_out.speech_batches import IGNORED, BatchRecipe, SpeechCorpus
from sottovoce.demos.miniature.speech_out.speech_decoder_training import (
    MINIATURE_SPEECH_DECODER,
    SpeechDecoderTrainer,
    SpeechDecoderTraining,
    train_speech_decoder,
)
from sottovoce.demos.miniature.speech_out.spoken_codes import SpokenText, read_spoken, write_spoken

TINY_DECODER = replace(MINIATURE_SPEECH_DECODER, hidden_size=16, intermediate_size=24, num_heads=2, num_codes=64)


def _spoken(count: int) -> list[SpokenText]:
    draw = np.random.default_rng(3)
    lengths = draw.integers(4, 12, count)
    return [
        SpokenText("abcdefgh"[: length // 2 + 1], *(draw.integers(0, 64, length).astype(np.int16) for _ in range(2)))
        for length in lengths
    ]


def _tokenize(text: str) -> list[int]:
    return [ord(character) - ord("a") for character in text]


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


def test_spoken_texts_come_back_as_they_were(tmp_path: Path) -> None:
    spoken = _spoken(5)
    write_spoken(tmp_path / "spoken.npz", spoken)
    for written, read in zip(spoken, read_spoken(tmp_path / "spoken.npz"), strict=True):
        assert read.text == written.text
        np.testing.assert_array_equal(read.codes, written.codes)
