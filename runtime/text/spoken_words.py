"""The words a language has for what digits do not say: points, signs, currencies, units. {} is where a number goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SpokenWords:
    """How one language reads what is written beside its numbers.

    Args:
        point, minus: said between and before digits.
        percent, power, squared, cubed, fraction, interval, subtraction, ratio, product: templates.
        degrees: templates by the letter behind the sign ("" for none).
        dot, slash, at: said in addresses.
        symbols: words of other signs; a sign without one is not said.
        currencies, units: (one, several) of each sign.
        decimal_comma: 1.000,5 rather than 1,000.5.
        spaced: words have spaces between them.
    """

    point: str
    minus: str
    percent: str
    degrees: Mapping[str, str]
    symbols: Mapping[str, str]
    currencies: Mapping[str, tuple[str, str]]
    units: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    power: str = "{} {}"
    squared: str = "{}"
    cubed: str = "{}"
    fraction: str = "{} {}"
    interval: str = "{} {}"
    subtraction: str = "{} {}"
    ratio: str = "{} {}"
    product: str = "{} {}"
    dot: str = "."
    slash: str = " "
    at: str = "@"
    decimal_comma: bool = False
    spaced: bool = True


def _plain(names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Words that do not change in the plural."""
    return {sign: (name, name) for sign, name in names.items()}


ENGLISH = SpokenWords(
    point="point",
    minus="minus",
    percent="{} percent",
    degrees={"": "{} degrees", "C": "{} degrees celsius", "F": "{} degrees fahrenheit"},
    symbols={
        "+": "plus", "=": "equals", "&": "and", "@": "at", "×": "times", "÷": "divided by", "<": "less than",
        ">": "greater than", "#": "number", "№": "number", "~": "about", "≈": "about", "±": "plus or minus",
        "√": "the square root of", "≤": "at most", "≥": "at least", "≠": "is not equal to", "π": "pi",
    },
    currencies={
        "$": ("dollar", "dollars"), "€": ("euro", "euros"), "£": ("pound", "pounds"), "¥": ("yen", "yen"),
        "₹": ("rupee", "rupees"), "¢": ("cent", "cents"),
    },
    units={
        "km/h": ("kilometer an hour", "kilometers an hour"), "m/s": ("meter a second", "meters a second"),
        "mph": ("mile an hour", "miles an hour"), "kg": ("kilogram", "kilograms"), "mg": ("milligram", "milligrams"),
        "g": ("gram", "grams"), "km": ("kilometer", "kilometers"), "cm": ("centimeter", "centimeters"),
        "mm": ("millimeter", "millimeters"), "m": ("meter", "meters"), "ml": ("milliliter", "milliliters"),
        "L": ("liter", "liters"), "ft": ("foot", "feet"), "lbs": ("pound", "pounds"), "lb": ("pound", "pounds"),
        "oz": ("ounce", "ounces"), "ms": ("millisecond", "milliseconds"), "min": ("minute", "minutes"),
        "h": ("hour", "hours"), "GB": ("gigabyte", "gigabytes"), "MB": ("megabyte", "megabytes"),
        "TB": ("terabyte", "terabytes"), "KB": ("kilobyte", "kilobytes"), "GHz": ("gigahertz", "gigahertz"),
        "MHz": ("megahertz", "megahertz"), "kHz": ("kilohertz", "kilohertz"), "Hz": ("hertz", "hertz"),
        "kW": ("kilowatt", "kilowatts"), "W": ("watt", "watts"), "V": ("volt", "volts"),
    },
    power="{} to the power of {}", squared="{} squared", cubed="{} cubed", fraction="{} over {}", interval="{} to {}",
    subtraction="{} minus {}", ratio="{} to {}", product="{} times {}", dot=" dot ", slash=" slash ", at=" at ",
)  # fmt: skip

CHINESE = SpokenWords(
    point="点",
    minus="负",
    percent="百分之{}",
    degrees={"": "{}度", "C": "{}摄氏度", "F": "{}华氏度"},
    symbols={
        "+": "加", "=": "等于", "&": "和", "×": "乘", "÷": "除以", "<": "小于", ">": "大于", "~": "约", "≈": "约等于",
        "±": "正负", "√": "根号", "≤": "小于等于", "≥": "大于等于", "≠": "不等于", "№": "第", "π": "派",
    },
    currencies=_plain({"$": "美元", "€": "欧元", "£": "英镑", "¥": "元", "₹": "卢比"}),
    units=_plain({
        "km/h": "公里每小时", "m/s": "米每秒", "kg": "公斤", "mg": "毫克", "g": "克", "km": "公里", "cm": "厘米",
        "mm": "毫米", "m": "米", "ml": "毫升", "L": "升", "ms": "毫秒", "min": "分钟", "h": "小时", "kW": "千瓦",
        "W": "瓦", "V": "伏",
    }),
    power="{}的{}次方", squared="{}的平方", cubed="{}的立方", fraction="{1}分之{0}", interval="{}到{}",
    subtraction="{}减{}", ratio="{}比{}", product="{}乘{}", dot="点", slash="斜杠", at="艾特", spaced=False,
)  # fmt: skip

GERMAN = SpokenWords(
    "Komma", "minus", "{} Prozent", {"": "{} Grad", "C": "{} Grad Celsius", "F": "{} Grad Fahrenheit"},
    {"+": "plus", "=": "gleich", "&": "und", "×": "mal", "÷": "geteilt durch", "<": "kleiner als", ">": "größer als"},
    _plain({"$": "Dollar", "€": "Euro", "£": "Pfund", "¥": "Yen"}),
    fraction="{} durch {}", interval="{} bis {}", subtraction="{} minus {}", ratio="{} zu {}", product="{} mal {}",
    squared="{} Quadrat", cubed="{} hoch drei", power="{} hoch {}", dot=" Punkt ", at=" at ", decimal_comma=True,
)  # fmt: skip

FRENCH = SpokenWords(
    "virgule", "moins", "{} pour cent", {"": "{} degrés", "C": "{} degrés Celsius", "F": "{} degrés Fahrenheit"},
    {"+": "plus", "=": "égale", "&": "et", "×": "fois", "÷": "divisé par"},
    {"$": ("dollar", "dollars"), "€": ("euro", "euros"), "£": ("livre", "livres"), "¥": ("yen", "yens")},
    fraction="{} sur {}", interval="{} à {}", subtraction="{} moins {}", ratio="{} à {}", product="{} fois {}",
    squared="{} au carré", cubed="{} au cube", power="{} puissance {}", dot=" point ", decimal_comma=True,
)  # fmt: skip

SPANISH = SpokenWords(
    "coma", "menos", "{} por ciento", {"": "{} grados", "C": "{} grados Celsius", "F": "{} grados Fahrenheit"},
    {"+": "más", "=": "igual a", "&": "y", "×": "por", "÷": "entre"},
    {"$": ("dólar", "dólares"), "€": ("euro", "euros"), "£": ("libra", "libras"), "¥": ("yen", "yenes")},
    fraction="{} sobre {}", interval="{} a {}", subtraction="{} menos {}", ratio="{} a {}", product="{} por {}",
    squared="{} al cuadrado", cubed="{} al cubo", power="{} elevado a {}", dot=" punto ", decimal_comma=True,
)  # fmt: skip

JAPANESE = SpokenWords(
    "点", "マイナス", "{}パーセント", {"": "{}度", "C": "{}度", "F": "華氏{}度"},
    {"+": "プラス", "=": "イコール", "×": "かける", "÷": "割る"},
    _plain({"$": "ドル", "€": "ユーロ", "£": "ポンド", "¥": "円"}),
    fraction="{1}分の{0}", interval="{}から{}", subtraction="{}引く{}", ratio="{}対{}", product="{}かける{}",
    spaced=False,
)  # fmt: skip

KOREAN = SpokenWords(
    "점", "마이너스", "{} 퍼센트", {"": "{}도", "C": "섭씨 {}도", "F": "화씨 {}도"},
    {"+": "더하기", "=": "는", "×": "곱하기", "÷": "나누기"},
    _plain({"$": "달러", "€": "유로", "£": "파운드", "¥": "엔", "₩": "원"}),
    fraction="{1}분의 {0}", interval="{}에서 {}", subtraction="{} 빼기 {}", ratio="{} 대 {}", product="{} 곱하기 {}",
)  # fmt: skip

RUSSIAN = SpokenWords(
    "", "минус", "{} процентов", {"": "{} градусов", "C": "{} градусов Цельсия", "F": "{} градусов Фаренгейта"},
    {"+": "плюс", "=": "равно", "×": "умножить на", "÷": "разделить на"},
    _plain({"$": "долларов", "€": "евро", "£": "фунтов", "¥": "иен", "₽": "рублей"}),
    interval="{} до {}", subtraction="{} минус {}", ratio="{} к {}", product="{} на {}", decimal_comma=True,
)  # fmt: skip

NUMBERS_ONLY = SpokenWords("", "", "{} %", {"": "{} °"}, {}, {})
"""For a language that has numbers only (num2words knows many): its signs stay as they are, not said in English."""

WORDS: Mapping[str, SpokenWords] = {
    "en": ENGLISH, "zh": CHINESE, "de": GERMAN, "fr": FRENCH, "es": SPANISH, "ja": JAPANESE, "ko": KOREAN,
    "ru": RUSSIAN,
}  # fmt: skip
