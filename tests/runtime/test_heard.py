"""From samples played to words heard."""

from __future__ import annotations

import numpy as np
import pytest

from sottovoce.runtime.speech.heard import SpokenReply
from sottovoce.runtime.text.speech_text import SpeechPiece

TEXT = "Good morning, dear friend. It is seven."
PIECES = ((0, 13), (13, 26), (26, 39))


def spoken(*samples: int, complete: bool = True) -> SpokenReply:
    """The first pieces of TEXT as so many samples each; `complete` is about the last."""
    reply = SpokenReply()
    for (start, end), count in zip(PIECES, samples, strict=False):
        piece = reply.begin(SpeechPiece(TEXT[start:end].strip().lower(), start, end))
        piece.samples, piece.complete = count, True
    reply.pieces[-1].complete = complete
    return reply


@pytest.mark.parametrize(
    ("played", "heard"),
    [
        (0, ""),
        (3, ""),
        (500, "Good"),
        (640, "Good"),
        (720, "Good morning,"),
        (1000, "Good morning,"),
        (1100, "Good morning,"),
        (1700, "Good morning, dear"),
        (2000, "Good morning, dear friend."),
        (2700, "Good morning, dear friend. It is"),
        (2999, TEXT),
        (3000, TEXT),
        (9999, TEXT),
    ],
)
def test_whole_words_up_to_what_was_played(played, heard):
    assert spoken(1000, 1000, 1000).heard(TEXT, played) == heard


def test_a_piece_in_the_making_is_taken_at_the_pace_of_those_before():
    """300 samples of the second piece are there, which at the first one's pace will have 1000."""
    reply = spoken(1000, 300, complete=False)
    assert reply.heard(TEXT, 1150) == "Good morning,"
    assert reply.heard(TEXT, 1250) == "Good morning, dear"
    assert reply.heard(TEXT, 1600) == "Good morning, dear"


def test_silence_before_and_behind_a_piece_says_nothing():
    reply = SpokenReply()
    piece = reply.begin(SpeechPiece("good morning", 0, 13))
    for part in (np.zeros(400), np.full(500, 0.1), np.full(500, -0.1), np.full(600, 1e-3)):
        piece.append(part.astype(np.float32))
    piece.complete = True
    assert reply.samples == 2000
    assert reply.heard(TEXT, 500) == ""  # a tenth of the sound, a quarter of the samples
    assert reply.heard(TEXT, 700) == "Good"
    assert reply.heard(TEXT, 1200) == "Good morning,"
    assert reply.heard(TEXT, 1400) == "Good morning,"


def test_text_that_was_not_spoken_was_not_heard():
    assert spoken(1000).heard(TEXT, 5000) == "Good morning,"
    assert SpokenReply().heard(TEXT, 5000) == ""


def test_samples_are_counted():
    assert spoken(1000, 300).samples == 1300
