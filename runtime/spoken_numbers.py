"""Numbers and symbols as a voice says them, in the language of the text around them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from num2words import num2words

from sottovoce.runtime.errors import InputError

MAX_DIGITS = 15
"""Longer runs of digits are no quantities (they are codes, telephone numbers) and are read digit by digit."""

CHINESE_DIGITS = "零一二三四五六七八九"
CHINESE_UNITS = ("", "十", "百", "千")
CHINESE_GROUPS = ("", "万", "亿", "万亿")


@dataclass(frozen=True)
class SpokenWords:
    """The words a language has for what digits do not say. {} is where the number goes."""

    point: str
    minus: str
    symbols: Mapping[str, str]
    currencies: Mapping[str, str]
    percent: str = "{} percent"
    degrees: str = "{} degrees"
    oh_clock: str = "{} o'clock"
    oh_minutes: str = "{} oh {}"


ENGLISH = SpokenWords(
    point="point",
    minus="minus",
    symbols={"+": "plus", "=": "equals", "&": "and", "@": "at", "×": "times", "÷": "divided by", "<": "less than"}
    | {">": "greater than", "/": "over", "#": "number"},
    currencies={"$": "{} dollars", "€": "{} euros", "£": "{} pounds", "¥": "{} yen"},
)
CHINESE = SpokenWords(
    point="点",
    minus="负",
    symbols={"+": "加", "=": "等于", "&": "和", "×": "乘", "÷": "除以", "<": "小于", ">": "大于"},
    currencies={"$": "{}美元", "€": "{}欧元", "£": "{}英镑", "¥": "{}元"},
    percent="百分之{}",
    degrees="{}度",
    oh_clock="{}点",
    oh_minutes="{}点零{}",
)
# Other languages have their numbers from num2words; symbols between numbers are left out rather than said in English.
NUMBERS_ONLY = SpokenWords("", "-", {}, {c: "{}" for c in "$€£¥"}, "{} %", "{} °", "{}", "{} {}")
WORDS: dict[str, SpokenWords] = {"en": ENGLISH, "zh": CHINESE}

_NUMBER = r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_TIME = re.compile(r"(?<![\d:.])(\d{1,2}):(\d{2})(?![\d:])")
_MONEY = re.compile(rf"([$€£¥])\s?({_NUMBER})")
_PERCENT = re.compile(rf"({_NUMBER})\s?[%％]")
_DEGREES = re.compile(rf"({_NUMBER})\s?°\s?(?:[CF]\b)?")
_ORDINAL = re.compile(r"\b(\d{1,12})(?:st|nd|rd|th)\b")
_SIGNED = re.compile(rf"(?<![0-9A-Za-z.)])[-−](?=(?:{_NUMBER}))")
_PRODUCT = re.compile(r"(?<=\d)\s?\*\s?(?=\d)")
_PLAIN = re.compile(_NUMBER)


def language_of(text: str, default: str = "en") -> str:
    """The language to say numbers in, by script: kana is Japanese, hangul Korean, Han Chinese, Cyrillic Russian, …"""
    for pattern, language in _SCRIPTS:
        if pattern.search(text):
            return language
    return default


_SCRIPTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[\u3040-\u30ff]"), "ja"),
    (re.compile(r"[\uac00-\ud7af]"), "ko"),
    (re.compile(r"[\u3400-\u9fff]"), "zh"),
    (re.compile(r"[\u0400-\u04ff]"), "ru"),
    (re.compile(r"[\u0600-\u06ff]"), "ar"),
    (re.compile(r"[\u0e00-\u0e7f]"), "th"),
)


def spell_out(text: str, language: str) -> str:
    """Replace digits and the symbols around them by words.

    Raises:
        InputError: a language that numbers cannot be said in.
    """
    words = WORDS.get(language, NUMBERS_ONLY)
    say = _speaker(language, words)
    text = _PRODUCT.sub(" × ", text)
    text = _TIME.sub(lambda m: _time(m[1], m[2], say, words), text)
    text = _SIGNED.sub(f"{words.minus} " if language != "zh" else words.minus, text)
    text = _MONEY.sub(lambda m: _money(m[1], m[2], say, words), text)
    text = _PERCENT.sub(lambda m: words.percent.format(say(m[1])), text)
    text = _DEGREES.sub(lambda m: words.degrees.format(say(m[1])), text)
    if language == "en":
        text = _ORDINAL.sub(lambda m: _ordinal(int(m[1])), text)
    text = _PLAIN.sub(lambda m: say(m[0]), text)
    for symbol, word in words.symbols.items():
        text = text.replace(symbol, f" {word} " if language != "zh" else word)
    return text


def _speaker(language: str, words: SpokenWords) -> Callable[[str], str]:
    def say(number: str) -> str:
        whole, _, fraction = number.replace(",", "").partition(".")
        if len(whole) > MAX_DIGITS or (len(whole) > 1 and whole[0] == "0"):
            return _separator(language).join(_digits(whole + fraction, language))
        spoken = _integer(int(whole), language)
        if not fraction:
            return spoken
        if words.point:
            parts = [spoken, words.point, *_digits(fraction, language)]
            return _separator(language).join(parts)
        return str(num2words(f"{whole}.{fraction}", lang=language))

    return say


def _separator(language: str) -> str:
    return "" if language == "zh" else " "


def _digits(digits: str, language: str) -> list[str]:
    return [_integer(int(digit), language) for digit in digits]


def _integer(value: int, language: str) -> str:
    if language == "zh":
        return chinese_integer(value)
    try:
        # A voice does not say the commas and hyphens of the written form; the pieces are split at commas, too.
        return str(num2words(value, lang=language)).replace(",", "").replace("-", " ")
    except NotImplementedError as problem:
        fix = "use a language code that num2words has, such as en, de, fr, es"
        raise InputError(f"numbers cannot be said in the language {language!r}", fix=fix) from problem


def _ordinal(value: int) -> str:
    return str(num2words(value, to="ordinal", lang="en")).replace(",", "").replace("-", " ")


def _money(sign: str, amount: str, say: Callable[[str], str], words: SpokenWords) -> str:
    whole, _, cents = amount.partition(".")
    if words is ENGLISH and len(cents) == 2:
        return f"{words.currencies[sign].format(say(whole))} {say(str(int(cents)))}" if int(cents) else _money(sign, whole, say, words)
    return words.currencies[sign].format(say(amount))


def _time(hours: str, minutes: str, say: Callable[[str], str], words: SpokenWords) -> str:
    hour, minute = str(int(hours)), int(minutes)
    if int(hours) > 23 or minute > 59:
        return f"{hours} {minutes}"
    if minute == 0:
        return words.oh_clock.format(say(hour))
    if minute < 10:
        return words.oh_minutes.format(say(hour), say(str(minute)))
    joint = words.point if words is CHINESE else " "
    return f"{say(hour)}{joint}{say(str(minute))}"


def chinese_integer(value: int) -> str:
    """A non-negative integer below 10^16 in Chinese: groups of four digits, one 零 for each run of skipped places."""
    if value == 0:
        return CHINESE_DIGITS[0]
    groups: list[int] = []
    while value:
        value, group = divmod(value, 10_000)
        groups.append(group)
    spoken, skipped = "", False
    for index in range(len(groups) - 1, -1, -1):
        group = groups[index]
        if group == 0:
            skipped = bool(spoken)
            continue
        if spoken and (skipped or group < 1000):
            spoken += CHINESE_DIGITS[0]
        spoken += _chinese_group(group) + CHINESE_GROUPS[index]
        skipped = False
    return spoken.removeprefix("一") if spoken.startswith("一十") else spoken


def _chinese_group(group: int) -> str:
    spoken, zero = "", False
    for place in range(3, -1, -1):
        digit = group // 10**place % 10
        if digit == 0:
            zero = bool(spoken)
            continue
        spoken += (CHINESE_DIGITS[0] if zero else "") + CHINESE_DIGITS[digit] + CHINESE_UNITS[place]
        zero = False
    return spoken
