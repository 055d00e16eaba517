"""What the miniature is asked and what it answers: question → reply pairs, and which of them training never sees.

A task yields *items* (the facts: `seven plus five`, `the capital of France`) in several *phrasings*. Kept out of
training are, for every item, one of its phrasings, and for tasks that combine (sums, devices, timers) also whole
combinations of arguments: more than a fifth of all pairs. The choice hangs on a hash of the words, so it is the same
on every machine and does not move when another task grows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sottovoce.demos.miniature import facts
from sottovoce.demos.miniature.facts import number_words


@dataclass(frozen=True)
class Turn:
    """One earlier exchange of a conversation."""

    question: str
    reply: str


@dataclass(frozen=True)
class Exchange:
    """A question as it is spoken (lower case, no punctuation), the exact reply, and where it belongs."""

    question: str
    reply: str
    task: str
    held_out: bool
    history: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Item:
    """One fact in all its phrasings; `combination` items may be kept out as a whole."""

    name: str
    phrasings: tuple[str, ...]
    reply: str
    kept_out: bool = False


def stable_hash(*parts: object) -> int:
    """A number that depends on the words alone, not on Python's hash seed."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:6], "big")


def sentence(text: str) -> str:
    """First letter large, a full stop at the end."""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


def _phrased(patterns: Sequence[str], **values: str) -> tuple[str, ...]:
    return tuple(pattern.format(**values) for pattern in patterns)


_PLUS = ("what is {a} plus {b}", "how much is {a} plus {b}", "{a} plus {b}", "tell me {a} plus {b}")
_MINUS = ("what is {a} minus {b}", "how much is {a} minus {b}", "{a} minus {b}", "tell me {a} minus {b}")
_TIMES = ("what is {a} times {b}", "how much is {a} times {b}", "{a} times {b}", "tell me {a} times {b}")


DEMONSTRATED = (7, 5)
"""The sum that `make demo` asks for is learned, whatever the hash says."""
SMALL_SUM = 12
"""Sums up to this and this are what people try first: half of all sums that are drawn are such."""


def small_sums() -> frozenset[str]:
    """Questions for sums of two numbers that are both small."""
    numbers = [number_words(n) for n in range(1, SMALL_SUM + 1)]
    return frozenset(question for a in numbers for b in numbers for question in _phrased(_PLUS, a=a, b=b))


def _sums() -> Iterator[Item]:
    for a in range(1, 21):
        for b in range(1, 21):
            words = {"a": number_words(a), "b": number_words(b)}
            # The mirrored sum stays in training: what is kept out is the combination, not the fact.
            kept_out = a > b and stable_hash("sum", a, b) % 5 == 0 and (a, b) != DEMONSTRATED
            reply = sentence(f"{words['a']} plus {words['b']} is {number_words(a + b)}")
            patterns = _PLUS if max(a, b) <= SMALL_SUM else _PLUS[stable_hash(a, b) % 2 :: 2]
            yield Item(f"{a}+{b}", _phrased(patterns, **words), reply, kept_out)
    for a in range(1, 21):
        for b in range(1, a + 1):
            words = {"a": number_words(a), "b": number_words(b)}
            reply = sentence(f"{words['a']} minus {words['b']} is {number_words(a - b)}")
            yield Item(f"{a}-{b}", _phrased(_MINUS, **words), reply)
    for a in range(2, 11):
        for b in range(2, 11):
            words = {"a": number_words(a), "b": number_words(b)}
            reply = sentence(f"{words['a']} times {words['b']} is {number_words(a * b)}")
            kept_out = a > b and stable_hash("product", a, b) % 5 == 0
            yield Item(f"{a}*{b}", _phrased(_TIMES, **words), reply, kept_out)


def _numbers() -> Iterator[Item]:
    after = ("what number comes after {n}", "which number follows {n}", "what comes after the number {n}",
             "tell me the number after {n}")  # fmt: skip
    before = ("what number comes before {n}", "which number is before {n}", "what comes before the number {n}",
              "tell me the number before {n}")  # fmt: skip
    for n in range(1, 30):
        word = number_words(n)
        yield Item(f"after {n}", _phrased(after, n=word), sentence(f"after {word} comes {number_words(n + 1)}"))
        yield Item(f"before {n}", _phrased(before, n=word), sentence(f"before {word} comes {number_words(n - 1)}"))
    count = ("count to {n}", "please count to {n}", "can you count to {n}", "count from one to {n}")
    for n in range(2, 11):
        counted = ", ".join(number_words(k) for k in range(1, n + 1))
        yield Item(f"count {n}", _phrased(count, n=number_words(n)), sentence(counted))
    bigger = ("which is bigger {a} or {b}", "what is more {a} or {b}", "which number is bigger {a} or {b}",
              "is {a} bigger or {b}")  # fmt: skip
    for a in range(1, 13):
        for b in range(1, 13):
            if a != b and stable_hash("bigger", a, b) % 2 == 0:
                words = {"a": number_words(a), "b": number_words(b)}
                larger, smaller = number_words(max(a, b)), number_words(min(a, b))
                reply = sentence(f"{larger} is bigger than {smaller}")
                yield Item(f"bigger {a} {b}", _phrased(bigger, **words), reply)


def _capitals() -> Iterator[Item]:
    ask = ("what is the capital of {c}", "tell me the capital of {c}", "what is the capital city of {c}",
           "which city is the capital of {c}", "do you know the capital of {c}")  # fmt: skip
    where = ("in which country is {k}", "what country is {k} in", "where is {k}",
             "{k} is the capital of which country", "which country has the capital {k}")  # fmt: skip
    for country, capital in facts.CAPITALS.items():
        name = country.capitalize()
        yield Item(country, _phrased(ask, c=country), f"The capital of {name} is {capital}.")
        yield Item(capital, _phrased(where, k=capital.lower()), f"{capital} is in {name}.")


def _opposites() -> Iterator[Item]:
    ask = ("what is the opposite of {w}", "tell me the opposite of {w}", "what is the contrary of {w}",
           "which word is the opposite of {w}", "do you know the opposite of {w}")  # fmt: skip
    for word, other in facts.OPPOSITES.items():
        yield Item(word, _phrased(ask, w=word), f"The opposite of {word} is {other}.")


def _colors() -> Iterator[Item]:
    ask = ("what color is {t}", "which color is {t}", "tell me the color of {t}", "what is the color of {t}",
           "what color does {t} have")  # fmt: skip
    mix = ("what do you get if you mix {a} and {b}", "what color do {a} and {b} make", "mix {a} and {b}",
           "what is {a} mixed with {b}", "which color comes from {a} and {b}")  # fmt: skip
    for thing, color in facts.COLORS.items():
        yield Item(thing, _phrased(ask, t=thing), sentence(f"{thing} is {color}"))
    for (a, b), color in facts.MIXTURES.items():
        for first, second in ((a, b), (b, a)):
            reply = sentence(f"{first} and {second} make {color}")
            yield Item(f"{first}+{second}", _phrased(mix, a=first, b=second), reply)


def _dates() -> Iterator[Item]:
    after = ("what {k} comes after {d}", "which {k} follows {d}", "tell me the {k} after {d}",
             "what is the {k} after {d}", "which {k} is after {d}")  # fmt: skip
    before = ("what {k} comes before {d}", "which {k} precedes {d}", "tell me the {k} before {d}",
              "what is the {k} before {d}", "which {k} is before {d}")  # fmt: skip
    for kind, names in (("day", facts.DAYS), ("month", facts.MONTHS)):
        for i, name in enumerate(names):
            values = {"k": kind, "d": name.lower()}
            following, preceding = names[(i + 1) % len(names)], names[i - 1]
            yield Item(f"after {name}", _phrased(after, **values), f"After {name} comes {following}.")
            yield Item(f"before {name}", _phrased(before, **values), f"Before {name} comes {preceding}.")
    nth = ("what is the {o} {k} of the {p}", "which {k} is the {o} of the {p}", "tell me the {o} {k} of the {p}",
           "name the {o} {k} of the {p}", "do you know the {o} {k} of the {p}")  # fmt: skip
    for kind, period, names in (("day", "week", facts.DAYS), ("month", "year", facts.MONTHS)):
        for ordinal, name in zip(facts.ORDINALS, names, strict=False):
            reply = f"The {ordinal} {kind} of the {period} is {name}."
            yield Item(f"{ordinal} {kind}", _phrased(nth, o=ordinal, k=kind, p=period), reply)
    length = ("how many days does {m} have", "how many days are in {m}", "how many days are there in {m}",
              "how long is {m}", "tell me how many days {m} has")  # fmt: skip
    for month, days in zip(facts.MONTHS, facts.MONTH_DAYS, strict=True):
        yield Item(f"days of {month}", _phrased(length, m=month.lower()), f"{month} has {days} days.")


def _units() -> Iterator[Item]:
    ask = ("how many {u} are in {w}", "how many {u} does {w} have", "how many {u} are there in {w}",
           "how many {u} make {w}", "tell me how many {u} are in {w}")  # fmt: skip
    for (unit, whole), count in facts.UNITS.items():
        yield Item(f"{unit} {whole}", _phrased(ask, u=unit, w=whole), sentence(f"{whole} has {count} {unit}"))


def _animals() -> Iterator[Item]:
    sound = ("what does {a} say", "what sound does {a} make", "how does {a} sound", "what noise does {a} make",
             "which sound does {a} make")  # fmt: skip
    legs = ("how many legs does {a} have", "how many legs has {a}", "tell me how many legs {a} has",
            "what number of legs does {a} have", "count the legs of {a}")  # fmt: skip
    for animal, noise in facts.ANIMAL_SOUNDS.items():
        yield Item(f"sound {animal}", _phrased(sound, a=animal), sentence(f"{animal} says {noise}"))
    for animal, count in facts.LEGS.items():
        yield Item(f"legs {animal}", _phrased(legs, a=animal), sentence(f"{animal} has {count} legs"))


SWITCHING = ("turn {s} the {r} {d}", "switch {s} the {r} {d}", "turn the {r} {d} {s}", "please turn {s} the {r} {d}",
             "can you turn {s} the {r} {d}")  # fmt: skip
OPENING = ("{v} the {r} {d}", "please {v} the {r} {d}", "can you {v} the {r} {d}", "{v} the {d} in the {r}",
           "i want you to {v} the {r} {d}")  # fmt: skip


def device_reply(room: str, device: str, state: str) -> str:
    """`The kitchen light is on.`"""
    verb = "are" if device == "blinds" else "is"
    return f"The {room} {device} {verb} {state}."


def _devices() -> Iterator[Item]:
    for room in facts.ROOMS:
        for device in facts.DEVICES:
            for state in ("on", "off"):
                kept_out = stable_hash("device", room, device, state) % 10 == 0
                phrasings = _phrased(SWITCHING, r=room, d=device, s=state)
                yield Item(f"{room} {device} {state}", phrasings, device_reply(room, device, state), kept_out)
        for device in facts.OPENABLE:
            for verb, state in (("open", "open"), ("close", "closed")):
                kept_out = stable_hash("device", room, device, state) % 10 == 0
                phrasings = _phrased(OPENING, r=room, d=device, v=verb)
                yield Item(f"{room} {device} {state}", phrasings, device_reply(room, device, state), kept_out)


def duration(count: int, unit: str) -> str:
    """`five minutes`."""
    return f"{number_words(count)} {unit}" + ("" if count == 1 else "s")


def _timers() -> Iterator[Item]:
    timer = ("set a timer for {t}", "start a timer for {t}", "please set a timer for {t}", "timer for {t}",
             "i need a timer for {t}")  # fmt: skip
    wake = ("wake me up in {t}", "wake me in {t}", "please wake me up in {t}", "can you wake me up in {t}")
    for count in facts.TIMER_COUNTS:
        for unit in facts.TIMER_UNITS:
            time = duration(count, unit)
            kept_out = stable_hash("timer", time) % 10 == 0
            yield Item(f"timer {time}", _phrased(timer, t=time), f"Your timer is set for {time}.", kept_out)
            if unit != "second":
                yield Item(f"wake {time}", _phrased(wake, t=time), f"I will wake you up in {time}.")


def _small_talk() -> Iterator[Item]:
    for phrasings, reply in facts.SMALL_TALK:
        yield Item(phrasings[0], phrasings, reply)


TASKS: dict[str, Callable[[], Iterator[Item]]] = {
    "sums": _sums, "numbers": _numbers, "capitals": _capitals, "opposites": _opposites, "colors": _colors,
    "dates": _dates, "units": _units, "animals": _animals, "devices": _devices, "timers": _timers,
    "small_talk": _small_talk,
}  # fmt: skip


def _exchanges_of(task: str, item: Item) -> Iterator[Exchange]:
    # Small talk has no shared patterns: an unheard phrasing of it is a new question, so all of them are learned.
    hidden = -1 if task == "small_talk" else stable_hash(task, item.name) % len(item.phrasings)
    for i, question in enumerate(item.phrasings):
        yield Exchange(question, item.reply, task, item.kept_out or i == hidden)


@lru_cache(maxsize=1)
def questions() -> tuple[Exchange, ...]:
    """Every single-turn question of the curriculum, in a fixed order; about a quarter is held out."""
    return tuple(
        exchange for task, items in TASKS.items() for item in items() for exchange in _exchanges_of(task, item)
    )
