"""The tokens of a reply into its text and its state."""

from __future__ import annotations

import pytest

from sottovoce.runtime.manifest import StateTokens
from sottovoce.runtime.reply import AudioChunk, ReplyDone, ReplyText, TextDelta
from sottovoce.runtime.text.tokenizer import Tokenizer

STATES = StateTokens()


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint) -> Tokenizer:
    return Tokenizer(tiny_checkpoint / "tokenizer.json")


def read(tokenizer: Tokenizer, text: str) -> tuple[ReplyText, str]:
    """The reply after all tokens of `text`, and all that it gave out."""
    reply = ReplyText(tokenizer, STATES)
    given = "".join(reply.append(token) for token in tokenizer.encode_plain(text)) + reply.finish()
    return reply, given


@pytest.mark.parametrize("text", ["Hello there.", "é and ü, 你好。", "  indented", "☎ is no state"])
def test_text_passes(tokenizer, text):
    reply, given = read(tokenizer, text)
    assert given == reply.text == text
    assert reply.state is None


@pytest.mark.parametrize("state", ["☞", "☟", "☜"])
@pytest.mark.parametrize("gap", ["", " ", "\n"])
def test_a_state_at_the_beginning_is_taken_off(tokenizer, state, gap):
    reply, given = read(tokenizer, f"{state}{gap}Hello ☞ there.")
    assert given == reply.text == "Hello ☞ there."
    assert reply.state == state


def test_a_state_alone_says_nothing(tokenizer):
    reply, given = read(tokenizer, "☟")
    assert (given, reply.text, reply.state) == ("", "", "☟")


def test_only_the_first_state_counts(tokenizer):
    reply, given = read(tokenizer, "☞☟Hello")
    assert (given, reply.state) == ("☟Hello", "☞")


def test_tokens_of_the_beginning_of_the_text(tokenizer):
    reply, _ = read(tokenizer, "☞Hello there.")
    count = reply.tokens_within(len("Hello"))
    assert tokenizer.decode(reply.tokens[:count]) == "☞Hello"
    assert reply.tokens_within(0) == len(tokenizer.encode_plain("☞"))
    assert reply.tokens_within(len(reply.text)) == len(reply.tokens)


def test_events_match_by_position():
    match TextDelta("a"):
        case TextDelta(text):
            assert text == "a"
    match ReplyDone("stop", {"total": 1.0}, "a"):
        case ReplyDone(reason, timings):
            assert (reason, timings["total"]) == ("stop", 1.0)
    match AudioChunk([], 3):
        case AudioChunk(samples, epoch):
            assert (samples, epoch) == ([], 3)
