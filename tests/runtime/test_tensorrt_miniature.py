"""A spoken turn through the checkpoint that ships, in TensorRT's dialect and fp16, on the stand-in for TensorRT."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from tensorrt_stand_in.installing import stand_in, write_engines

from sottovoce.demos.first_answer import TRAINED
from sottovoce.runtime import Assistant, AudioChunk, ReplyDone
from sottovoce.runtime.bundle import Bundle

pytestmark = pytest.mark.slow
MAX_NEW_TOKENS = 60


@pytest.fixture
def miniature(portable_miniature, tmp_path):
    path = shutil.copytree(portable_miniature, tmp_path / "miniature.bundle")
    write_engines(Bundle.open(path))
    return path


def turn(path, backend: str, require_engine: bool) -> tuple[list[int], np.ndarray]:
    """Tokens and samples of a spoken question's answer."""
    speech, done = [], None
    with Assistant.open(path, backend, threads=1, require_engine=require_engine) as assistant:
        conversation = assistant.conversation(greedy=True, max_new_tokens=MAX_NEW_TOKENS)
        for event in conversation.ask(audio=TRAINED.question):
            if isinstance(event, AudioChunk):
                speech.append(event.samples)
            done = event
    assert isinstance(done, ReplyDone)
    return list(done.tokens), np.concatenate(speech)


def test_a_spoken_turn_gives_the_same_ids_and_sound(miniature, monkeypatch):
    expected, heard = turn(miniature, "onnxruntime", False)
    with stand_in(monkeypatch) as device:
        found, spoken = turn(miniature, "tensorrt", True)
        assert device.leaks() == []
    assert found == expected
    assert len(found) > 5
    assert spoken.shape == heard.shape
    assert np.abs(spoken - heard).max() < 1e-3
    assert device.counts["launches"] > 20
