"""Whole numbers in Chinese, which num2words does not have."""

from __future__ import annotations

CHINESE_DIGITS = "零一二三四五六七八九"
_UNITS = ("", "十", "百", "千")
_GROUPS = ("", "万", "亿", "万亿")


def chinese_integer(value: int) -> str:
    """A whole number from 0 to 10^16 - 1 in Chinese: groups of four digits, one 零 for each run of skipped places."""
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
        spoken += _four_digits(group) + _GROUPS[index]
        skipped = False
    return spoken.removeprefix("一") if spoken.startswith("一十") else spoken


def _four_digits(group: int) -> str:
    spoken, zero = "", False
    for place in range(3, -1, -1):
        digit = group // 10**place % 10
        if digit == 0:
            zero = bool(spoken)
            continue
        spoken += (CHINESE_DIGITS[0] if zero else "") + CHINESE_DIGITS[digit] + _UNITS[place]
        zero = False
    return spoken
