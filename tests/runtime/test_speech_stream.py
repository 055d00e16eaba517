"""The chunk and cut rules against the reference's streamed segments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sottovoce.runtime.manifest import PieceSpec
from sottovoce.runtime.speech.stream import CutRule, SpeechStream

SAMPLES_PER_CODE = 600
WINDOW, SEARCH = 2401, 1200


def stand_in_codec(codes: Sequence[int]) -> np.ndarray:
    """Code c → 600 samples of c/64 · sin(2π · 220 · i / 24000), i counted inside the code."""
    wave = np.sin(2 * np.pi * 220 * np.arange(SAMPLES_PER_CODE) / 24000)
    return np.concatenate([code / 64 * wave for code in codes]).astype(np.float32)


def stream_of(piece: PieceSpec, decode=stand_in_codec) -> SpeechStream:
    return SpeechStream(decode, SAMPLES_PER_CODE, piece, CutRule(WINDOW, SEARCH, piece.threshold))


def segments(stream: SpeechStream, codes: Sequence[int]) -> list[np.ndarray]:
    found = [stream.append(code) for code in codes]
    return [segment for segment in [*found, stream.finish()] if segment is not None]


def piece_of(golden_json, which: str) -> PieceSpec:
    settings = golden_json["codec"][which]
    return PieceSpec(settings["chunk"], settings["padding"], settings["threshold"])


@pytest.mark.parametrize("which", ["first", "later"])
def test_cut_lengths_are_the_references(golden, golden_json, which):
    codes = golden["codec.cut_codes"].tolist()
    found = segments(stream_of(piece_of(golden_json, which)), codes)
    assert [len(segment) for segment in found] == golden_json["codec"][which]["cut_segment_lengths"]
    np.testing.assert_array_equal(np.concatenate(found), stand_in_codec(codes))


@pytest.mark.parametrize("count", [1, 5, 9, 10, 11, 29, 30, 31, 49, 50, 51, 90, 91, 131])
def test_every_code_becomes_its_samples_once(count):
    codes = [(7 * place) % 64 for place in range(count)]
    found = segments(stream_of(PieceSpec(20, 10, 0.1)), codes)
    np.testing.assert_array_equal(np.concatenate(found), stand_in_codec(codes))


def test_context_reaches_both_sides_of_each_chunk():
    seen: list[list[int]] = []

    def decode(codes: Sequence[int]) -> np.ndarray:
        seen.append(list(codes))
        return stand_in_codec(codes)

    segments(stream_of(PieceSpec(4, 2, 0.0), decode), list(range(1, 13)))
    assert seen == [[1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7, 8, 9, 10], [7, 8, 9, 10, 11, 12]]


def test_first_segment_does_not_wait_for_the_rest():
    stream = stream_of(PieceSpec(20, 10, 0.1))
    assert [stream.append(0) is not None for _ in range(30)].index(True) == 29


def test_nothing_in_nothing_out():
    assert stream_of(PieceSpec(20, 10, 0.1)).finish() is None


def test_a_finished_stream_begins_anew():
    stream = stream_of(PieceSpec(20, 10, 0.1))
    codes = [5] * 47
    first = segments(stream, codes)
    second = segments(stream, codes)
    assert [len(segment) for segment in first] == [len(segment) for segment in second]
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(second))


def test_reset_drops_what_was_kept():
    stream = stream_of(PieceSpec(20, 10, 0.0))
    for code in [9] * 35:
        assert stream.append(code) is None
    assert stream.kept_samples == 20 * SAMPLES_PER_CODE
    stream.reset()
    assert stream.finish() is None


def test_no_window_fits_a_short_chunk():
    assert CutRule(WINDOW, SEARCH, 1.0).find(np.zeros(WINDOW - 1, dtype=np.float32)) is None


def test_the_first_of_equally_quiet_windows_is_taken():
    samples = np.zeros(12000, dtype=np.float32)
    assert CutRule(WINDOW, SEARCH, 0.1).find(samples) == 6000 - SEARCH


def test_a_loud_middle_is_not_cut():
    assert CutRule(WINDOW, SEARCH, 0.1).find(np.ones(12000, dtype=np.float32)) is None


ONSET = (PieceSpec(3, 1, 0.0), PieceSpec(2, 4, 0.0), PieceSpec(5, 4, 0.0))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9, 12, 14, 20, 39, 40, 60])
def test_an_onset_is_given_out_whole_and_soon_and_loses_nothing(count):
    codes = [(7 * place) % 64 for place in range(count)]
    piece = PieceSpec(20, 4, 0.1)
    stream = SpeechStream(stand_in_codec, SAMPLES_PER_CODE, piece, CutRule(WINDOW, SEARCH, 0.1), ONSET)
    given = [0 if segment is None else len(segment) for segment in map(stream.append, codes)]
    assert [place + 1 for place, samples in enumerate(given) if samples][:3] == [n for n in (4, 9, 14) if n <= count]
    again = SpeechStream(stand_in_codec, SAMPLES_PER_CODE, piece, CutRule(WINDOW, SEARCH, 0.1), ONSET)
    np.testing.assert_array_equal(np.concatenate(segments(again, codes)), stand_in_codec(codes))


def test_after_an_onset_the_context_on_the_left_is_as_wide_as_there_is():
    seen: list[int] = []

    def decode(codes: Sequence[int]) -> np.ndarray:
        seen.append(len(codes))
        return stand_in_codec(codes)

    piece = PieceSpec(20, 4, 0.1)
    segments(SpeechStream(decode, SAMPLES_PER_CODE, piece, CutRule(WINDOW, SEARCH, 0.1), ONSET), list(range(60)))
    assert seen[:4] == [3 + 1, 3 + 2 + 4, 4 + 5 + 4, 4 + 20 + 4]
