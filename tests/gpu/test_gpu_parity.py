"""On a GPU: every graph's engine gives what ONNX Runtime gives on the CPU, and a whole conversation the same ids."""

from __future__ import annotations

import numpy as np
import pytest
from stage_feeds import DECODERS, FEED_FORWARD, feeds_of, rows_of

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends import open_session
from sottovoce.runtime.backends.tensorrt import TensorRtSession
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.model import Model
from sottovoce.runtime.reply import ReplyDone
from sottovoce.runtime.stages.decoder import DecoderStage

COSINE, RELATIVE_ERROR = 0.999, 0.03
"""The CPU widens float16 to float32, the GPU multiplies it as it is."""
QUESTIONS = ("what is the capital of france", "and of italy", "what is seven plus five")


def check_close(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    assert found.shape == expected.shape, what
    first, second = (values.astype(np.float64).ravel() for values in (found, expected))
    assert np.isfinite(first).all(), what
    cosine = first @ second / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-30)
    error = np.abs(first - second).max() / np.abs(second).max()
    assert cosine >= COSINE, f"{what}: cosine {cosine:.6f}"
    assert error <= RELATIVE_ERROR, f"{what}: largest error {error:.4f} of the largest value"


@pytest.mark.parametrize("stage", FEED_FORWARD)
def test_a_graph_without_a_cache(gpu_bundle, stage):
    feeds = feeds_of(gpu_bundle, stage)
    session = open_session(gpu_bundle, stage, require_engine=True)
    reference = open_session(gpu_bundle, stage, "onnxruntime")
    try:
        for _ in range(2):
            found = session.run(feeds)
        for name, expected in reference.run(feeds).items():
            if expected.size:
                check_close(found[name], expected, f"{stage} {name}")
    finally:
        session.close()


@pytest.mark.parametrize("stage", DECODERS)
def test_a_decoder_over_a_prompt_and_steps(gpu_bundle, stage):
    rows = rows_of(gpu_bundle, stage, 60)
    session = open_session(gpu_bundle, stage, require_engine=True)
    reference = open_session(gpu_bundle, stage, "onnxruntime")
    assert isinstance(session, TensorRtSession)
    try:
        caches = [KVCache(session), KVCache(reference)]
        for start, end in ((0, 24), *((n, n + 1) for n in range(24, 50)), (50, 60)):
            found, expected = (
                DecoderStage(one).append(rows[start:end], cache)
                for one, cache in zip((session, reference), caches, strict=True)
            )
            check_close(found, expected, f"{stage}, positions {start} to {end}")
        assert session.captured or end == 60  # the last call was a prompt, which is no graph
        snapshot = caches[0].snapshot()
        other = KVCache(session)
        other.resume(snapshot)
        first, second = (DecoderStage(session).append(rows[:1], cache) for cache in (caches[0], other))
        np.testing.assert_array_equal(first, second)
    finally:
        session.close()


def test_greedy_ids_of_a_conversation(gpu_bundle):
    replies = []
    for backend, required in (("tensorrt", True), ("onnxruntime", False)):
        with Assistant(Model(gpu_bundle, backend, require_engine=required)) as assistant:
            conversation = assistant.conversation(greedy=True, speech=False, max_new_tokens=60)
            said = []
            for question in QUESTIONS:
                *_, done = conversation.ask(question)
                assert isinstance(done, ReplyDone)
                said.append(list(done.tokens))
            replies.append(said)
    assert replies[0] == replies[1]


def test_a_step_becomes_one_launch(gpu_bundle):
    session = open_session(gpu_bundle, "language_model", require_engine=True)
    assert isinstance(session, TensorRtSession)
    try:
        cache, stage = KVCache(session), DecoderStage(session)
        for row in rows_of(gpu_bundle, "language_model", 6):
            stage.append(row[None], cache)
        assert session.captured
    finally:
        session.close()
