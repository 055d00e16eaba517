"""Conversations of several turns: captured as they were held, and held again as they were captured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.replay import replay
from sottovoce.runtime import Assistant, CapturedConversation, CaptureFolder, ReplyDone
from sottovoce.runtime.conversation_set.item import EvaluationItem

REPLY_TOKENS = 8


@pytest.fixture(scope="module")
def assistant(tiny_bundle: Path) -> Iterator[Assistant]:
    with Assistant.open(tiny_bundle, threads=1, verify_hashes=False) as ready:
        yield ready


@pytest.fixture(scope="module")
def held(assistant: Assistant, golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReplyDone]:
    """A folder that a conversation of three turns was captured into, and the end of its last reply."""
    folder = tmp_path_factory.mktemp("captured")
    conversation = assistant.conversation("Be brief.", greedy=True, max_new_tokens=REPLY_TOKENS, speech=False)
    captured = CapturedConversation(CaptureFolder.open(folder, assistant.bundle), conversation.options)
    samples = np.random.default_rng(0).normal(0, 0.1, 16000)
    asked = [
        {"audio": golden_dir / "speech.wav", "images": [golden_dir / "picture.png"]},
        {"text": "What is it?", "audio": (np.round(samples * 32768).astype(np.int16), 16000)},
        {"text": "And now?"},
    ]
    for question in asked:
        *_, done = conversation.ask(**question)
        assert captured.add(conversation.question, done) is None
    return folder, done


@pytest.fixture(scope="module")
def item(held: tuple[Path, ReplyDone]) -> EvaluationItem:
    [item] = read_evaluation_set(held[0])
    return item


def test_the_last_reply_comes_again_token_for_token(
    assistant: Assistant, held: tuple[Path, ReplyDone], item: EvaluationItem
) -> None:
    folder, done = held
    assert len(item.history) == 4
    assert len(done.tokens) == REPLY_TOKENS
    assert replay(assistant, item, folder, speech=False).tokens == done.tokens


@pytest.mark.parametrize("lost", ["system", "captured", "first", "audio", "images"])
def test_all_that_is_captured_of_it_is_needed(
    assistant: Assistant, held: tuple[Path, ReplyDone], item: EvaluationItem, lost: str
) -> None:
    """That the reply comes again proves something: without any one part, another comes."""
    first, *others = item.history
    changed = {
        "system": replace(item, system=None),
        "captured": replace(item, captured=None),
        "first": replace(item, history=tuple(others)),
        "audio": replace(item, history=(replace(first, audio=None), *others)),
        "images": replace(item, history=(replace(first, images=()), *others)),
    }
    assert replay(assistant, changed[lost], held[0], speech=False).tokens != held[1].tokens
