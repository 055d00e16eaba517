"""Numbers as a voice says them, in one language."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.text.chinese_numbers import CHINESE_DIGITS, chinese_integer
from sottovoce.runtime.text.spoken_words import NUMBERS_ONLY, WORDS

MAX_DIGITS = 15
"""Longer runs of digits are no quantities."""
CODE_DIGITS = 9
"""So many digits in a row, with no marks between them and few zeros at the end, are a code or a telephone number."""

_SPACES = "\u00a0\u202f"
_POINT_NUMBER = rf"\d{{1,3}}(?:[,{_SPACES}]\d{{3}})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?"
_COMMA_NUMBER = rf"\d{{1,3}}(?:[.{_SPACES}]\d{{3}})+(?!\d)(?:,\d+)?|\d+(?:[.,]\d+)?"


class SpokenNumbers:
    """The numbers of a language.

    Args:
        language: a code that num2words knows, or `zh`.

    Raises:
        InputError: a language that has no numbers here.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self.words = WORDS.get(language, NUMBERS_ONLY)
        self.written = f"(?:{_COMMA_NUMBER if self.words.decimal_comma else _POINT_NUMBER})"
        """The regular expression of a number as this language writes it."""
        if language != "zh":
            try:
                _num2words(1, lang=language)
            except NotImplementedError as problem:
                fix = "use zh, or a code that num2words has, such as en, de, fr or es"
                raise InputError(f"numbers cannot be said in the language {language!r}", fix=fix) from problem
        self.minus = self.words.minus or self._minus()
        """What is said before a negative number."""

    def say(self, written: str) -> str:
        """A whole or decimal number as it was written, without a sign."""
        whole, fraction = self._read(written)
        if _is_code(written, whole):
            return self.digits(whole + fraction)
        spoken = self.integer(int(whole))
        if not fraction:
            return spoken
        if not self.words.point:
            return self._num2words(float(f"{whole}.{fraction}")) or self.digits(whole + fraction)
        return self.join([spoken, self.words.point, *map(self._digit, fraction)])

    def integer(self, value: int) -> str:
        """A whole number from 0."""
        if self.language == "zh":
            return chinese_integer(value)
        return self._num2words(value) or self.digits(str(value))

    def digits(self, digits: str) -> str:
        """Digit by digit."""
        return self.join(map(self._digit, digits))

    def ordinal(self, value: int) -> str:
        """The first, the second, …"""
        return self._num2words(value, to="ordinal") or self.integer(value)

    def year(self, value: int) -> str:
        """A year of four digits: nineteen ninety nine, 一九九九."""
        if self.language == "zh":
            return self.digits(str(value))
        return (self._num2words(value, to="year") if self.language == "en" else "") or self.integer(value)

    def join(self, words: Iterable[str]) -> str:
        """Words one behind the other."""
        return (" " if self.words.spaced else "").join(words)

    def _minus(self) -> str:
        one, negative = self._num2words(1), self._num2words(-1)
        return negative.removesuffix(one).strip() if negative.endswith(one) else ""

    def _digit(self, digit: str) -> str:
        return CHINESE_DIGITS[int(digit)] if self.language == "zh" else _num2words(int(digit), lang=self.language)

    def _num2words(self, value: float, to: str = "cardinal") -> str:
        try:
            spoken = _num2words(value, lang=self.language, to=to)
        except (NotImplementedError, ArithmeticError, LookupError, ValueError, TypeError, AttributeError):
            return ""  # larger than this language's tables go
        # A voice does not say the commas and hyphens of the written form.
        return spoken.replace(",", "").replace("-", " ")

    def _read(self, written: str) -> tuple[str, str]:
        """The digits before and behind the decimal mark."""
        grouped = re.fullmatch(rf"(\d{{1,3}}(?:[.,{_SPACES}]\d{{3}})+)(?:[.,](\d+))?", written)
        thousands = f".{_SPACES}" if self.words.decimal_comma else f",{_SPACES}"
        if grouped and grouped[1].lstrip("0123456789")[:1] in thousands:
            return re.sub(r"\D", "", grouped[1]), grouped[2] or ""
        whole, _, fraction = written.replace(",", ".").partition(".")
        return whole, fraction


def _num2words(value: float, **how: str) -> str:
    """Imported when something is spoken: it brings the tables of all languages."""
    from num2words import num2words

    return str(num2words(value, **how))


def _is_code(written: str, whole: str) -> bool:
    if len(whole) > 1 and whole[0] == "0":
        return True
    unmarked = len(written) == len(whole)
    return len(whole) > MAX_DIGITS or (unmarked and len(whole) >= CODE_DIGITS and not whole.endswith("00000"))
