"""The whole runtime on the exported tiny checkpoint, against the reference's values."""

from __future__ import annotations

import numpy as np
import pytest

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.model import Model
from sottovoce.runtime.reply import AudioChunk
from sottovoce.runtime.speech.stream import CutRule, SpeechStream
from sottovoce.runtime.tensor_dump import TensorDump

ACTIVATION_BAR, WAVEFORM_BAR = 1e-4, 2e-5
MARGIN, HALF_MARGIN = 1e-3, 0.05
STEPS = 24


@pytest.fixture(scope="module")
def half_assistant(tiny_half_bundle):
    with Assistant(Model(Bundle.open(tiny_half_bundle), threads=1)) as ready:
        yield ready


def question(name: str, golden_dir) -> dict:
    speech, picture = golden_dir / "speech.wav", golden_dir / "picture.png"
    return {
        "text": {"text": "What is the time?"},
        "audio": {"audio": speech},
        "image_audio": {"audio": speech, "images": [picture]},
    }[name]


def answer(assistant: Assistant, name: str, golden_dir, dump: TensorDump | None = None) -> tuple[int, ...]:
    conversation = assistant.conversation(
        "You are a helpful assistant.", greedy=True, max_new_tokens=STEPS, speech=False, dump=dump
    )
    *_, done = conversation.ask(**question(name, golden_dir))
    return done.tokens


def close(found: np.ndarray, expected: np.ndarray, bar: float = ACTIVATION_BAR) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=bar)


@pytest.mark.parametrize("name", ["text", "audio", "image_audio"])
def test_ids_embeddings_and_logits_are_the_references(name, assistant, golden, golden_json, golden_dir):
    dump = TensorDump()
    tokens = answer(assistant, name, golden_dir, dump)
    expected, tensors = golden_json["llm"][name], dump.tensors()
    assert min(expected["margin"]) > MARGIN
    assert list(tokens) == expected["greedy"]
    assert tensors["llm.ids"].tolist() == expected["ids"]
    close(tensors["llm.embeddings"], golden[f"llm.{name}.embeddings"])
    close(tensors["llm.step_logits"], golden[f"llm.{name}.step_logits"])
    stages = {"audio.fbank", "audio.embeddings", "image.pixels", "image.embeddings"} & tensors.keys()
    assert len(stages) == {"text": 0, "audio": 2, "image_audio": 4}[name]
    for stage in stages:
        close(tensors[stage], golden[stage])


@pytest.mark.parametrize("name", ["text", "audio", "image_audio"])
def test_half_precision_says_the_same_where_the_reference_is_sure(name, half_assistant, golden_json, golden_dir):
    tokens = answer(half_assistant, name, golden_dir)
    expected = golden_json["llm"][name]
    for token, reference, margin in zip(tokens, expected["greedy"], expected["margin"], strict=True):
        if token != reference:
            assert margin <= HALF_MARGIN
            break  # what follows answers another text


def test_the_speech_decoder_says_the_references_codes(assistant, golden, golden_json):
    dump = TensorDump()
    list(assistant.say(golden_json["speech"]["text"], greedy=True, dump=dump))
    tensors = dump.tensors()
    close(tensors["speech.text_frames"], golden["speech.text_frames"])
    close(tensors["speech.nar"], golden["speech.nar"])
    steps = len(tensors["speech.step_logits"])
    assert steps >= 35
    close(tensors["speech.step_logits"], golden["speech.step_logits"][:steps])
    assert tensors["speech.codes"].tolist() == golden_json["speech"]["greedy_codes"][:steps]


def test_the_codec_gives_the_references_waveform(assistant, golden):
    close(assistant._model.codec(golden["codec.codes"]), golden["codec.waveform"], WAVEFORM_BAR)


@pytest.mark.parametrize("which", ["first", "later"])
def test_streamed_speech_is_the_references(which, assistant, golden, golden_json):
    spec = assistant.bundle.manifest.speech
    piece = spec.first_piece if which == "first" else spec.later_pieces
    expected = golden_json["codec"][which]
    assert (piece.chunk_codes, piece.padding_codes) == (expected["chunk"], expected["padding"])
    assert piece.threshold == expected["threshold"]
    rule = CutRule(spec.cut_window_samples, spec.cut_search_samples, piece.threshold)
    stream = SpeechStream(assistant._model.codec, spec.samples_per_code, piece, rule)
    segments = [stream.append(code) for code in golden["codec.codes"].tolist()] + [stream.finish()]
    segments = [segment for segment in segments if segment is not None]
    assert [len(segment) for segment in segments] == expected["segment_lengths"]
    close(np.concatenate(segments), golden[f"codec.stream_{which}"], WAVEFORM_BAR)


def test_speech_given_out_is_the_codes_decoded_at_once(assistant, golden_json):
    dump = TensorDump()
    *chunks, done = assistant.say(golden_json["speech"]["text"], greedy=True, dump=dump)
    assert done.reason == "stop"
    assert all(isinstance(chunk, AudioChunk) and chunk.samples.dtype == np.float32 for chunk in chunks)
    found = np.concatenate([chunk.samples for chunk in chunks])
    close(found, dump.tensors()["codec.waveform"], WAVEFORM_BAR)
