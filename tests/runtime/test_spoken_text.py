"""What is said of what is written: numbers, dates, money, formulas and markdown, in the language of the text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.manifest import PieceSpec, SpeechSpec, StateTokens
from sottovoce.runtime.text.speech_text import MAX_PIECE_CHARACTERS, SpeechPieces
from sottovoce.runtime.text.spoken_text import language_of, spoken_text

STATES = StateTokens()
PIECE = PieceSpec(20, 10, 0.1)
SPEECH = SpeechSpec(
    24000, 600, 64, 64, 65, 66, 67, 1000, 2, 1.0, 0, 32, PIECE, PIECE, 2401, 1200, ",.?!\n，。？！、", 5
)  # fmt: skip


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("3.50 and -4", "three point five zero and minus four"),
        ("1,234,567", "one million two hundred and thirty four thousand five hundred and sixty seven"),
        ("5kg, 1 kg, 3 km/h", "five kilograms, one kilogram, three kilometers an hour"),
        ("$1 and $1,234.56", "one dollar and one thousand two hundred and thirty four dollars fifty six"),
        ("£0.99, 20 €, $2 million", "ninety nine pence, twenty euros, two million dollars"),
        ("10%-20%", "ten percent to twenty percent"),
        ("10-20 people, $5–$10", "ten to twenty people, five dollars to ten dollars"),
        ("5-3=2 and 9 - 4", "five minus three equals two and nine minus four"),
        ("72°F", "seventy two degrees fahrenheit"),
        ("7:30 pm, 19:05, 12:00, 0:00", "seven thirty p m, nineteen oh five, twelve o'clock, midnight"),
        ("a 3:2 win", "a three to two win"),
        ("1st, 2nd, 23rd and No. 5", "first, second, twenty third and number five"),
        ("2024-05-17 or 5/17/2024", "may seventeenth twenty twenty four or may seventeenth twenty twenty four"),
        ("from 1939 to 1945, in 2005", "from nineteen thirty nine to nineteen forty five, in two thousand and five"),
        ("the 1990s", "the nineteen nineties"),
        ("2024 people", "two thousand and twenty four people"),
        ("½, 2¾ and 7/8", "one half, two and three quarters and seven eighths"),
        ("x² = 10^3 × y", "x squared equals ten cubed times y"),
        ("version 1.2.3", "version one point two point three"),
        (
            "agent 007, call 555-123-4567",
            "agent zero zero seven, call five five five one two three four five six seven",
        ),
        ("Write me@example.com, see https://www.a-b.org/c", "write me at example dot com, see a-b dot org slash c"),
        ("covid-19, 3D, AT&T, and/or", "covid-nineteen, three d, at and t, and or"),
        (r"$x^2$ is \frac{1}{2} \times 4", "x squared is one half times four"),
        ("Hello — “world” (it’s me)", "hello, world it's me"),
        ("| a | b |", "a b"),
        ("<b>Yes</b><br>no, a<b", "yes no, a less than b"),
        ("1️⃣ 👍🏽 ok 🇩🇪", "one ok"),
        ("...", ""),
        ("😀!", ""),
        ("☞", ""),
    ],
)
def test_english(written: str, spoken: str) -> None:
    assert spoken_text(written, STATES) == spoken


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("今天是2024年5月17日。", "今天是二零二四年五月十七日。"),
        ("下午3:05，2点", "下午三点零五分，两点"),
        ("我有2个，第2名，12个", "我有两个，第二名，十二个"),
        ("今天-5℃，湿度45.5％", "今天负五摄氏度，湿度百分之四十五点五"),
        ("共￥1,050元，1/2", "共一千零五十元，二分之一"),
        ("10~20人，比分3:2", "十到二十人，比分三比二"),
        ("电话13812345678", "电话一三八一二三四五六七八"),
        ("面积是x²，5+3=8", "面积是x的平方，五加三等于八"),
    ],
)
def test_chinese(written: str, spoken: str) -> None:
    assert spoken_text(written, STATES) == spoken


@pytest.mark.parametrize(
    ("language", "written", "spoken"),
    [
        ("de", "3,5 Grad, 1.000 und 20 %", "drei komma fünf grad, eintausend und zwanzig prozent"),
        ("fr", "3,5 et 20% à 10°C", "trois virgule cinq et vingt pour cent à dix degrés celsius"),
        ("es", "-4 + 3", "menos cuatro más tres"),
        ("it", "-4 e 3.5", "meno quattro e tre virgola cinque"),
        ("ja", "今日は3.5度", "今日は三点五度"),
    ],
)
def test_other_languages(language: str, written: str, spoken: str) -> None:
    assert spoken_text(written, STATES, language) == spoken


@pytest.mark.parametrize(
    ("text", "language"),
    [("Hello 你好", "zh"), ("今日は", "ja"), ("안녕", "ko"), ("привет", "ru"), ("hello", "en"), ("3.5", "xx")],
)
def test_the_script_tells_the_language(text: str, language: str) -> None:
    assert language_of(text, default="xx") == language


def pieces_of(*deltas: str, language: str | None = None) -> list[str]:
    pieces = SpeechPieces(SPEECH, STATES, language)
    found = [piece for delta in deltas for piece in pieces.append(delta)]
    return [piece.text for piece in found + pieces.finish()]


def test_a_number_alone_is_said_in_the_language_of_what_came_before() -> None:
    assert pieces_of("答案是这个数字，", "3.14159。") == ["答案是这个数字，", "三点一四一五九。"]


def test_a_language_without_numbers_is_refused_before_anything_is_said() -> None:
    with pytest.raises(InputError, match="'tlh'"):
        SpeechPieces(SPEECH, STATES, "tlh")


def test_addresses_and_numbers_stay_whole() -> None:
    assert pieces_of("Look at www.", "example.", "com now. It is 3.", "5.") == [
        "look at example dot com now.",
        "it is three point five.",
    ]


def test_full_width_marks_end_pieces() -> None:
    assert pieces_of("你好，世界很大。是吗？") == ["你好，世界很大。", "是吗？"]


def test_text_without_marks_is_cut_behind_a_word() -> None:
    pieces = SpeechPieces(SPEECH, STATES)
    found = pieces.append("word " * 100) + pieces.finish()
    assert max(piece.end - piece.start for piece in found) <= MAX_PIECE_CHARACTERS
    assert {word for piece in found for word in piece.text.split()} == {"word"}
    assert sum(len(piece.text.split()) for piece in found) == 100


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab12 30.,:/-%$€°²½^*_[](){}<>\n☞你好。，年@—~#=+x'\"|\\😀"), max_size=60), st.data())
def test_any_text_in_any_portions_gives_the_same_pieces_and_no_digits(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    portions = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole, parts = SpeechPieces(SPEECH, STATES), SpeechPieces(SPEECH, STATES)
    at_once = whole.append(text) + whole.finish()
    assert [piece for portion in portions for piece in parts.append(portion)] + parts.finish() == at_once
    assert not any(character.isdecimal() for piece in at_once for character in piece.text)
    assert [piece.start for piece in at_once] == sorted(piece.start for piece in at_once)
    assert all(before.end <= after.start for before, after in pairwise(at_once))
