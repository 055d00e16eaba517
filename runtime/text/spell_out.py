"""Dates, times, money, units, formulas: what is written with digits and signs into words, in one language."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from sottovoce.runtime.text.spoken_numbers import SpokenNumbers
from sottovoce.runtime.text.spoken_words import ENGLISH

Say = Callable[["re.Match[str]", SpokenNumbers], str]

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_MAGNITUDES = "thousand|million|billion|trillion"
_MINOR = {"$": ("cent", "cents"), "€": ("cent", "cents"), "£": ("penny", "pence")}
_FULL_WIDTH = str.maketrans(
    {
        **{chr(code): chr(code - 0xFEE0) for code in range(0xFF10, 0xFF5B) if chr(code).isalnum()},
        **dict(zip("％￥￡−＋－＝＄＃＆＠＜＞／～", "%¥£-+-=$#&@<>/~", strict=True)),
        **{"℃": "°C", "℉": "°F"},
    }
)
_SUPERSCRIPTS = {ord(sign): f"^{value}" for value, sign in zip("01456789", "⁰¹⁴⁵⁶⁷⁸⁹", strict=True)}
_CIRCLED = {code: f" {code - 0x245F} " for code in range(0x2460, 0x2474)}
_FRACTIONS = dict(zip("½⅓⅔¼¾⅛⅜⅝⅞", ("1/2", "1/3", "2/3", "1/4", "3/4", "1/8", "3/8", "5/8", "7/8"), strict=True))
_CHINESE_COUNTERS = "个只条张本位次种天块件杯人家岁点年周小倍米公"


def spell_out(text: str, language: str) -> str:
    """Replace digits and the signs around them by words.

    Args:
        text: a sentence without markdown.
        language: a code that num2words knows, or `zh`.

    Raises:
        InputError: a language that numbers cannot be said in.
    """
    text = text.translate(_FULL_WIDTH | _SUPERSCRIPTS | _CIRCLED)
    for sign, written in _FRACTIONS.items():
        text = re.sub(rf"(?<=\d)\s?{sign}", f" {written}", text).replace(sign, written)
    numbers, forms = _forms(language)
    for pattern, say in forms:
        text = pattern.sub(functools.partial(_apart, say=say, numbers=numbers), text)
    for sign, word in numbers.words.symbols.items():
        text = text.replace(sign, f" {word} " if numbers.words.spaced else word)
    return text


def _apart(match: re.Match[str], say: Say, numbers: SpokenNumbers) -> str:
    """What is said, with spaces where it would run into a word."""
    spoken = say(match, numbers)
    if not numbers.words.spaced:
        return spoken
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    return (" " if before.isalnum() else "") + spoken + (" " if after.isalnum() else "")


@functools.lru_cache(maxsize=16)
def _forms(language: str) -> tuple[SpokenNumbers, tuple[tuple[re.Pattern[str], Say], ...]]:
    """The written forms of a language with how each is said, in the order in which they are looked for."""
    numbers = SpokenNumbers(language)
    number, words = numbers.written, numbers.words
    signs = f"[{re.escape(''.join(words.currencies))}]" if words.currencies else "(?!)"
    units = "|".join(map(re.escape, sorted(words.units, key=len, reverse=True))) or "(?!)"
    term = rf"({number}|(?<![A-Za-z0-9])[A-Za-z])"
    forms: list[tuple[str, Say]] = [
        (r"(?:https?://|www\.)\S*[^\s.,!?;:)]|[\w.+-]+@[\w-]+(?:\.[\w-]+)+", _address),
        (r"(?<![\d/-])(?P<y>\d{4})[-/](?P<m>\d{1,2})[-/](?P<d>\d{1,2})(?![\d/-])", _date),
        (r"(?<![\d/-])(?P<m>\d{1,2})/(?P<d>\d{1,2})/(?P<y>\d{4})(?![\d/-])", _date),
        *(_OWN_FORMS.get(language, ())),
        (r"(?<![\d.-])\d{3}-\d{3}-\d{4}(?![\d-])", _telephone),
        (r"(?<![\d.])\d+(?:\.\d+){2,}", _version),
        (r"(?<![\d:.])(\d{1,2}):([0-5]\d)(?::([0-5]\d))?(?:\s?([ap])\.?m\b\.?)?(?![\d:])", _time),
        (rf"({number}):({number})", lambda m, n: n.words.ratio.format(n.say(m[1]), n.say(m[2]))),
        (rf"(?<=[\d%°])(?: - |\s?[–—~-]\s?)(?={signs}?\d)", _between),
        (rf"(?<![0-9A-Za-z.)])-(?={signs}?\d)", lambda m, n: n.minus + _gap(n)),
        (rf"({signs})\s?({number})(?:\s?({_MAGNITUDES})\b)?", lambda m, n: _money(m[1], m[2], m[3], n)),
        (rf"({number})\s?({signs})(?!\w)", lambda m, n: _money(m[2], m[1], None, n)),
        (rf"({number})\s?%", lambda m, n: n.words.percent.format(n.say(m[1]))),
        (rf"({number})\s?°\s?(?:([CF])\b)?", _degrees),
        (r"(?<![\d.,/])(?:(\d+) )?(\d+)/(\d+)(?![\d/]|[.,]\d)", _fraction),
        (rf"({number})\s?({units})(?![A-Za-z])", _unit),
        (rf"({number})\s?[*×x]\s?(?={number})", lambda m, n: n.words.product.format(n.say(m[1]), "")),
        (rf"{term}(?:\^2\b|²)", lambda m, n: n.words.squared.format(_term(m[1], n))),
        (rf"{term}(?:\^3\b|³)", lambda m, n: n.words.cubed.format(_term(m[1], n))),
        (rf"{term}\^({number}|[a-zA-Z])", lambda m, n: n.words.power.format(_term(m[1], n), _term(m[2], n))),
        (number, lambda m, n: n.say(m[0])),
    ]
    return numbers, tuple((re.compile(pattern), say) for pattern, say in forms)


def _gap(numbers: SpokenNumbers) -> str:
    return " " if numbers.words.spaced else ""


def _term(written: str, numbers: SpokenNumbers) -> str:
    return written if written.isalpha() else numbers.say(written)


def _telephone(match: re.Match[str], numbers: SpokenNumbers) -> str:
    return numbers.digits(match[0].replace("-", ""))


def _version(match: re.Match[str], numbers: SpokenNumbers) -> str:
    """Parts of a version or network address, with the point between them."""
    first, *rest = (numbers.say(part) for part in match[0].split("."))
    return numbers.join([first, *(word for part in rest for word in (numbers.words.point, part) if word)])


def _unit(match: re.Match[str], numbers: SpokenNumbers) -> str:
    return f"{numbers.say(match[1])}{_gap(numbers)}{_plural(match[1], numbers.words.units[match[2]])}"


def _address(match: re.Match[str], numbers: SpokenNumbers) -> str:
    words = numbers.words
    address = re.sub(r"^(?:https?://)?(?:www\.)?", "", match[0]).rstrip("/")
    return address.replace(".", words.dot).replace("/", words.slash).replace("@", words.at)


def _date(match: re.Match[str], numbers: SpokenNumbers) -> str:
    year, month, day = (int(match[part]) for part in "ymd")
    if month > len(MONTHS):
        month, day = day, month
    if numbers.language == "zh":
        return f"{numbers.year(year)}年{numbers.integer(month)}月{numbers.integer(day)}日"
    if numbers.language == "en" and 1 <= month <= len(MONTHS):
        return f"{MONTHS[month - 1]} {numbers.ordinal(day)} {numbers.year(year)}"
    return numbers.join([numbers.integer(day), numbers.integer(month), numbers.year(year)])


def _time(match: re.Match[str], numbers: SpokenNumbers) -> str:
    hour, minute = int(match[1]), int(match[2])
    second = int(match[3]) if match[3] else None
    half = f" {match[4]} m" if match[4] else ""
    if hour > 24:
        return numbers.words.ratio.format(numbers.integer(hour), numbers.integer(minute))
    if numbers.language == "zh":
        return _chinese_time(hour, minute, second, numbers)
    if numbers.words is not ENGLISH:
        return numbers.join(numbers.integer(part) for part in (hour, minute, second) if part)
    if not (hour or minute or second):
        return "midnight"
    if minute:
        spoken = f"{numbers.integer(hour)} {'oh ' if minute < 10 else ''}{numbers.integer(minute)}"
    else:
        spoken = numbers.integer(hour) + (" o'clock" if not half else "")
    return spoken + (f" and {numbers.integer(second)} seconds" if second else "") + half


def _chinese_time(hour: int, minute: int, second: int | None, numbers: SpokenNumbers) -> str:
    spoken = ("两" if hour == 2 else numbers.integer(hour)) + "点"
    if minute or second:
        spoken += ("零" if minute < 10 else "") + (numbers.integer(minute) if minute else "") + "分"
    return spoken + (numbers.integer(second) + "秒" if second else "")


def _between(match: re.Match[str], numbers: SpokenNumbers) -> str:
    """A sign between two numbers: a subtraction if it stands apart or a result follows, otherwise an interval."""
    subtracts = match[0] == " - " or ("-" in match[0] and "=" in match.string)
    template = numbers.words.subtraction if subtracts else numbers.words.interval
    return template.format("", "")


def _money(sign: str, amount: str, magnitude: str | None, numbers: SpokenNumbers) -> str:
    names = numbers.words.currencies[sign]
    if magnitude:
        return f"{numbers.say(amount)} {magnitude} {names[1]}"
    whole, _, cents = amount.partition(".")
    if numbers.words is not ENGLISH or len(cents) != 2:
        return f"{numbers.say(amount)}{_gap(numbers)}{_plural(amount, names)}"
    small = numbers.integer(int(cents))
    if whole == "0" and sign in _MINOR:
        return f"{small} {_plural(str(int(cents)), _MINOR[sign])}"
    return f"{numbers.say(whole)} {_plural(whole, names)}" + (f" {small}" if int(cents) else "")


def _plural(amount: str, names: tuple[str, str]) -> str:
    return names[0] if amount == "1" else names[1]


def _degrees(match: re.Match[str], numbers: SpokenNumbers) -> str:
    templates = numbers.words.degrees
    return templates.get(match[2] or "", templates[""]).format(numbers.say(match[1]))


def _fraction(match: re.Match[str], numbers: SpokenNumbers) -> str:
    whole, top, bottom = match[1], match[2], match[3]
    if numbers.words is ENGLISH and int(bottom) in range(2, 21) and int(top) < int(bottom):
        spoken = f"{numbers.say(top)} {_english_part(int(bottom), int(top) != 1, numbers)}"
    else:
        spoken = numbers.words.fraction.format(numbers.say(top), numbers.say(bottom))
    if whole is None:
        return spoken
    return numbers.join([numbers.say(whole), *(["and"] if numbers.words is ENGLISH else []), spoken])


def _english_part(bottom: int, several: bool, numbers: SpokenNumbers) -> str:
    special = {2: ("half", "halves"), 4: ("quarter", "quarters")}
    name = numbers.ordinal(bottom)
    return special.get(bottom, (name, f"{name}s"))[several]


def _decade(match: re.Match[str], numbers: SpokenNumbers) -> str:
    spoken = numbers.year(int(match[1])) if len(match[1]) == 4 else numbers.integer(int(match[1]))
    return f"{spoken[:-1]}ies" if spoken.endswith("y") else f"{spoken}s"


def _years(match: re.Match[str], numbers: SpokenNumbers) -> str:
    return re.sub(_YEAR, lambda year: numbers.year(int(year[0])), match[0])


def _month_and_day(match: re.Match[str], numbers: SpokenNumbers) -> str:
    return f"{match[1]} {numbers.ordinal(int(match[2]))}"


_MONTH_NAMES = "|".join(month.capitalize() for month in MONTHS)
_YEAR = rf"\b(?:1[1-9]\d\d|20\d\d)\b(?![.,:]\d|\s?[%°/-]|\s(?:{_MAGNITUDES}))"
_OWN_FORMS: dict[str, tuple[tuple[str, Say], ...]] = {
    "en": (
        (r"(?<![\d$€£¥.,])['’]?((?:1[1-9]|20)?[1-9]0|(?:1[1-9]|20)00)['’]?s\b", _decade),
        (rf"(?i)\b(?:in|since|until|during|year)\s{_YEAR}(?:\s(?:and|or|to)\s{_YEAR})?", _years),
        (rf"(?i)\b(?:from|between)\s{_YEAR}\s?(?:and|to|–|-)\s?{_YEAR}", _years),
        (rf"\b(?:{_MONTH_NAMES})(?:\s\d{{1,2}}(?:st|nd|rd|th)?,?)?\s{_YEAR}", _years),
        (rf"\b({_MONTH_NAMES})\s(\d{{1,2}})(?:st|nd|rd|th)?(?![\d:%°/]|[.,]\d)", _month_and_day),
        (r"\b(\d{1,12})(?:st|nd|rd|th)\b", lambda m, n: n.ordinal(int(m[1]))),
        (r"\b[Nn]o\.\s?(?=\d)", lambda m, n: "number "),
        (r"\b24/7\b", lambda m, n: "twenty four seven"),
        (r"(?<![\d.])(\d)['’]\s?(\d{1,2})(?:[\"”]|\b)", lambda m, n: f"{n.say(m[1])} foot {n.say(m[2])}"),
    ),
    "zh": (
        (r"¥(?=[\d,.]+\s?元)", lambda m, n: ""),
        (r"(?<!\d)(\d{4})(?=\s?年)", lambda m, n: n.year(int(m[1]))),
        (rf"(?<![\d.,:/第])2(?=\s?[{_CHINESE_COUNTERS}])", lambda m, n: "两"),
    ),
}
