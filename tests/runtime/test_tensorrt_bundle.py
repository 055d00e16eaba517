"""A bundle's engines on the stand-in for TensorRT: what they compute, and what becomes of failures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from short_bundle import shortened
from stage_feeds import FEED_FORWARD, feeds_of, rows_of
from tensorrt_stand_in.installing import stand_in

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import open_session
from sottovoce.runtime.backends.tensorrt import TensorRtSession
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.model import Model
from sottovoce.runtime.reply import ReplyDone
from sottovoce.runtime.stages.decoder import DecoderStage

STAGE = "speech_text"
QUESTION = "what is the capital of france"


@pytest.mark.parametrize("stage", FEED_FORWARD)
def test_stages_give_what_onnx_runtime_gives(device, built, stage):
    feeds = feeds_of(built, stage)
    session, reference = open_session(built, stage, "tensorrt"), open_session(built, stage, threads=1)
    assert isinstance(session, TensorRtSession)
    try:
        for _ in range(3):
            found, expected = session.run(feeds), reference.run(feeds)
            assert set(found) == set(expected)
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, atol=1e-5)
        [first, *_] = found
        assert set(session.run(feeds, [first])) == {first}
    finally:
        session.close()


def answered(bundle: Bundle, backend: str, **options) -> list[list[int]]:
    """Tokens of two turns, one with speech."""
    found = []
    with Assistant(Model(shortened(bundle), backend, threads=1, **options)) as assistant:
        conversation = assistant.conversation(greedy=True, max_new_tokens=12)
        for question in (QUESTION, "and of italy"):
            *_, done = conversation.ask(question)
            assert isinstance(done, ReplyDone)
            found.append(list(done.tokens))
    return found


def test_a_conversation_gives_the_same_ids(device, built):
    assert answered(built, "tensorrt", require_engine=True) == answered(built, "onnxruntime")
    assert device.counts["executions"] > 20
    assert device.leaks() == []


def test_language_and_speech_are_computed_at_once_on_streams_of_their_own(device, built):
    """While the next words are found, the last ones are spoken, each in its own thread."""
    stages = ("language_model", "speech_codes")
    sessions = [open_session(built, stage, "tensorrt") for stage in stages]
    references = [open_session(built, stage, threads=1) for stage in stages]
    gpu = sessions[0]._gpu
    assert gpu.lane("language_model") is gpu.lane("audio_encoder") is gpu.lane("vision_encoder")
    assert gpu.lane("speech_codes") is gpu.lane("codec") is gpu.lane("speech_text") is not gpu.lane("language_model")

    def logits(session, stage):
        decoder, cache = DecoderStage(session), KVCache(session, 16)
        return [decoder.append(row[None], cache) for row in rows_of(built, stage, 40)]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(logits, sessions, stages))
    for session, values, expected in zip(sessions, found, map(logits, references, stages), strict=True):
        np.testing.assert_allclose(values, expected, atol=1e-5)
        session.close()


def test_out_of_gpu_memory(monkeypatch, built, caplog):
    with stand_in(monkeypatch, total_bytes=300_000) as device:
        session = open_session(built, "speech_codes", "tensorrt")
        with pytest.raises(BackendError, match=r"'speech_codes' could not make a cache .* out of GPU memory") as caught:
            session.create_cache(4096)
        assert "quantize the bundle" in caught.value.fix
        used = device.used_bytes
        assert used == 0  # all of a cache or nothing
        small = session.create_cache(8)
        with pytest.raises(BackendError, match="could not grow its cache to 4000 positions"):
            small.resize(4000, 4)
        assert small.capacity == 8
        assert small.read(8)
        session.close()


def test_a_device_that_is_lost_keeps_the_history(device, built):
    assistant = Assistant(Model(shortened(built), "tensorrt", threads=1, require_engine=True))
    with assistant:
        conversation = assistant.conversation(greedy=True, max_new_tokens=12, speech=False)
        *_, done = conversation.ask(QUESTION)
        history = list(conversation.history)
        device.lost_after = device.counts["executions"] + 3
        with pytest.raises(BackendError, match=r"the GPU was lost .* the conversation's history is kept") as caught:
            for _ in conversation.ask("and of italy"):
                pass
        assert "start sottovoce again" in caught.value.fix
        assert list(conversation.history)[: len(history)] == history
        assert history[-1].text == done.text
        with pytest.raises(BackendError, match="'language_model'"):
            for _ in conversation.ask("hello"):
                pass


def test_an_exception_in_between_leaves_nothing_behind(device, built):
    class Stop(Exception):
        pass

    with pytest.raises(Stop), Assistant(Model(shortened(built), "tensorrt", threads=1)) as assistant:
        assistant.load()  # in other threads than this, which closes
        for _ in assistant.conversation(greedy=True, max_new_tokens=12).ask(QUESTION):
            raise Stop
    assert device.counts["executions"] > 0


def test_an_engine_that_fails_names_the_stage_and_what_the_log_says(device, built, monkeypatch):
    session = open_session(built, STAGE, "tensorrt")
    monkeypatch.setattr(
        "tensorrt_stand_in.library.Context.execute_async_v3", lambda self, _: self._refuse("no kernel image")
    )
    with pytest.raises(BackendError, match=r"'speech_text' failed on the GPU stand-in: .* no kernel image"):
        session.run(feeds_of(built, STAGE))
    session.close()
    with pytest.raises(BackendError, match="is closed"):
        session.run(feeds_of(built, STAGE))
    session.close()


def test_a_cache_outlives_its_session(device, built):
    session = open_session(built, "language_model", "tensorrt")
    cache = session.create_cache(16)
    session.close()
    for use in (lambda: cache.read(3), lambda: cache.resize(32, 0), lambda: cache.write({}), cache.bound):
        with pytest.raises(BackendError, match="'language_model' is closed"):
            use()
    with pytest.raises(BackendError, match="is closed"):
        session.create_cache(16)
    with pytest.raises(BackendError, match="has no cache"):
        open_session(built, STAGE).create_cache(8)
