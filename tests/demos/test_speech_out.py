"""What is said, the rendered voice, and what is packed and listened to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from speech_fixtures import noises

from sottovoce.calibration.edit_distance import edit_distance
from sottovoce.demos.miniature.settings import Workspace
from sottovoce.demos.miniature.speech_out.codec_training import (
    MINIATURE_CODEC,
)
from sottovoce.demos.miniature.speech_out.listener import plain_words
from sottovoce.demos.miniature.speech_out.measuring import held_out_utterances
from sottovoce.demos.miniature.speech_out.packing import write_codec, write_speech_decoder
from sottovoce.demos.miniature.speech_out.replies import split_replies, spoken_pieces
from sottovoce.demos.miniature.speech_out.sentences import practice_sentences, spoken_number
from sottovoce.demos.miniature.speech_out.sound_sources import TrainingStates
from sottovoce.demos.miniature.speech_out.speech_decoder_training import (
    MINIATURE_SPEECH_DECODER,
)
from sottovoce.demos.miniature.speech_out.voice import read_shards, write_shard
from sottovoce.demos.miniature.speech_out.voice_stream import VoiceStream, spoken_phonemes
from sottovoce.export.modules.codec import CodecDecoder
from sottovoce.runtime.errors import SottovoceError


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
    utterances = noises()
    write_shard(tmp_path / "shard-0000.npz", utterances)
    for written, read in zip(utterances, read_shards(tmp_path), strict=True):
        assert read.text == written.text
        np.testing.assert_array_equal(read.samples, written.samples)
        np.testing.assert_array_equal(read.phonemes, written.phonemes)


def test_stress_and_length_belong_to_their_vowel() -> None:
    assert spoken_phonemes(np.array([15, 120, 33, 122, 10])).tolist() == [15, 33, 33, 33, 10]


def test_a_stream_knows_its_phonemes() -> None:
    stream = VoiceStream(noises(2))
    assert stream.phonemes_at(np.array([10, 1_500, 4_900, 5_010])).tolist() == [1, 33, 10, 1]


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
    write_shard(tmp_path / "voice" / "replies-held-out" / "shard-0000.npz", noises())
    with pytest.raises(SottovoceError, match="no held-out sentences"):
        held_out_utterances(workspace, 3)
