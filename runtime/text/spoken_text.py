"""Written text as it is spoken: no markdown, no emoji, numbers and signs as words, lower case."""

from __future__ import annotations

import re
import unicodedata

from sottovoce.runtime.manifest import StateTokens
from sottovoce.runtime.text.spell_out import spell_out

_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*\)?|\]\([^)\s]*\)?")
_CODE_FENCE = re.compile(r"```\w*")
_TAG = re.compile(r"</?(?:b|br|code|div|em|i|li|ol|p|pre|span|strong|sub|sup|u|ul)\s*/?>", re.IGNORECASE)
_LINE_MARKS = re.compile(r"^[^\S\n]*(?:#{1,6}\s+|>\s?|[-*+•]\s+|[-*_=]{3,}\s*$)", re.MULTILINE)
_EMPHASIS = re.compile(r"(?<![\d\s*])\*{1,3}|\*{1,3}(?![\d\s*])|`+|~~|(?<!\w)_{1,3}|_{1,3}(?!\w)")
_FORMULA = re.compile(r"\$\$?(?=[A-Za-z\\(])([^$\n]+)\$\$?")
_LATEX: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\sqrt\{([^{}]*)\}"), r"√\1"),
    (re.compile(r"\\(?:times|cdot)\b"), "×"),
    (re.compile(r"\\div\b"), "÷"),
    (re.compile(r"\\pi\b"), "π"),
    (re.compile(r"\^\{([^{}]*)\}"), r"^\1"),
    (re.compile(r"\\[()\[\]]|\\(?=[a-z])"), ""),
)
_DASH = re.compile(r"\s*(?:—|-{2,})\s*|\s[–-]\s")
_UNSPOKEN = re.compile(r"[\\|~^_{}\[\]()<>\"“”„«»「」『』【】（）《》*`#@=+/]")
_SPACES = re.compile(r"\s+")
_SPACE_BEFORE_MARK = re.compile(r"\s+([,.?!;:，。？！、；：])")
_MARKS = " ,.?!;:，。？！、；：-–'’"
_UNSPOKEN_CATEGORIES = frozenset({"So", "Sk", "Cs", "Co", "Cn", "Cf", "Me"})
_KEPT_SYMBOLS = "°№℃℉^`"
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)

_SCRIPTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[\u3040-\u30ff]"), "ja"),
    (re.compile(r"[\uac00-\ud7af]"), "ko"),
    (re.compile(r"[\u3400-\u9fff]"), "zh"),
    (re.compile(r"[\u0400-\u04ff]"), "ru"),
    (re.compile(r"[\u0600-\u065f\u066e-\u06ef]"), "ar"),
    (re.compile(r"[\u0e00-\u0e7f]"), "th"),
    (re.compile(r"[A-Za-z\u00c0-\u024f]"), "en"),
)


def language_of(text: str, default: str = "en") -> str:
    """The language to say numbers in, by script: kana is Japanese, hangul Korean, Han Chinese, Cyrillic Russian, …

    Latin letters count as English, text without letters as `default`.
    """
    return next((language for script, language in _SCRIPTS if script.search(text)), default)


def spoken_text(text: str, states: StateTokens, language: str | None = None) -> str:
    """Clean written text for speaking; nothing at all is left of what has no words.

    Args:
        text: a piece of a reply.
        states: the state tokens to leave out.
        language: a language code for numbers and signs; None guesses it from the script.
    """
    for token in (states.question, states.not_addressed, states.typed):
        text = text.replace(token, "")
    text = "".join(filter(_is_spoken, _without_markdown(text)))
    text = spell_out(text, language or language_of(text))
    text = _UNSPOKEN.sub(" ", _DASH.sub(", ", text.replace("’", "'")))
    text = _SPACE_BEFORE_MARK.sub(r"\1", _SPACES.sub(" ", text)).lstrip(_MARKS).rstrip().lower()
    return text if any(character.isalnum() for character in text) else ""


def _without_markdown(text: str) -> str:
    text = _TAG.sub(" ", _LINK.sub(r"\1", _CODE_FENCE.sub("", text)))
    text = _FORMULA.sub(r"\1", text)
    for written, plain in _LATEX:
        text = written.sub(plain, text)
    return _EMPHASIS.sub("", _LINE_MARKS.sub("", text))


def _is_spoken(character: str) -> bool:
    """No emoji and what belongs to them, no halves of characters, nothing invisible."""
    if character in _KEPT_SYMBOLS:
        return True
    return unicodedata.category(character) not in _UNSPOKEN_CATEGORIES and ord(character) not in _VARIATION_SELECTORS
