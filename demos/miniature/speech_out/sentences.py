"""Practice sentences for the voice: a small grammar over :mod:`.words`, drawn from a seed.

The speech decoder must say what it never said before, so it practises far more sentences than the miniature's
replies: about half in the domain's patterns (sums, capitals, devices…), half ordinary English, all lower-case with
numbers written as words.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from . import words

MAX_WORDS = 10
_DEVICE_STATES = ("open", "closed", "locked", "already on", "already off", "now on", "now off")
_TIMES_OF_DAY = ("in the morning", "tonight", "a m", "p m")
_ENDINGS = (".", ".", ".", ".", ".", ".", ".", "", "?", "!", ",")
_SUBJECTS = (
    "i",
    "you",
    "we",
    "they",
    "he",
    "she",
    "it",
    "my friend",
    "the dog",
    "a man",
    "nobody",
    "everyone",
    "somebody",
)
_STARTERS = ("please", "now", "then", "so", "well", "yes", "no", "okay", "but", "and", "because", "if", "when", "maybe")


def spoken_number(value: int) -> str:
    """0 … 9,999 in English words, hyphenated tens ("forty-two"), without "and"."""
    if not 0 <= value <= 9999:
        raise ValueError(f"a number from 0 to 9999 is wanted, not {value}")
    if value < 10:
        return words.ONES[value]
    if value < 20:
        return words.TEENS[value - 10]
    if value < 100:
        tens, ones = divmod(value, 10)
        return words.TENS[tens - 2] + (f"-{words.ONES[ones]}" if ones else "")
    scale, name = (100, "hundred") if value < 1000 else (1000, "thousand")
    high, rest = divmod(value, scale)
    return f"{words.ONES[high]} {name}" + (f" {spoken_number(rest)}" if rest else "")


def _number(draw: random.Random) -> str:
    limit = draw.choice((10, 20, 20, 20, 100, 100, 100, 100, 1000, 9999))
    return spoken_number(draw.randint(0, limit))


def _sum(draw: random.Random) -> str:
    operator = draw.choice(("plus", "minus", "times", "divided by"))
    left, right, result = _number(draw), _number(draw), _number(draw)
    return draw.choice(
        (
            f"{left} {operator} {right} is {result}",
            f"{left} {operator} {right} equals {result}",
            f"{left} {operator} {right} makes {result}",
            f"{left} and {right} is {result}",
            f"the answer is {result}",
            f"it is {result}",
            f"that makes {result}",
            f"half of {left} is {right}",
            f"twice {left} is {right}",
            f"the number is {result}",
            f"{left} comes after {right}",
            f"{left} is bigger than {right}",
            f"{result}",
        )
    )


def _capital(draw: random.Random) -> str:
    country, capital = draw.choice(words.COUNTRIES_CAPITALS)
    return draw.choice(
        (
            f"the capital of {country} is {capital}",
            f"the capital of {country} is {draw.choice(words.COUNTRIES_CAPITALS)[1]}",
            f"{capital} is the capital of {country}",
            f"{capital} is in {country}",
            f"i live in {capital}",
            f"and of {country}",
            f"i travelled from {capital} to {draw.choice(words.COUNTRIES_CAPITALS)[1]}",
            f"it is {capital}",
            capital,
            country,
        )
    )


def _place(draw: random.Random) -> str:
    return draw.choice(words.ROOMS + words.ROOM_PHRASES)


def _device(draw: random.Random) -> str:
    device, room, state = draw.choice(words.DEVICES), _place(draw), draw.choice(("on", "off"))
    return draw.choice(
        (
            f"i turned {state} the {device} in the {room}",
            f"i turned the {device} {state}",
            f"turning {state} the {room} {device}",
            f"turning the {device} {state}",
            f"the {device} in the {room} is {state} now",
            f"the {room} {device} is {state}",
            f"the {device} is {draw.choice(_DEVICE_STATES)}",
            f"i switched the {device} {state}",
            f"i opened the {device} in the {room}",
            f"i closed the {room} {device}",
            f"the {device} is set to {_number(draw)} percent",
            f"i set the {room} to {_number(draw)} degrees",
            f"i turned the {device} {draw.choice(('up', 'down'))}",
            f"i {draw.choice(('dimmed', 'started', 'stopped', 'locked', 'unlocked', 'muted', 'paused'))} the {device}",
        )
    )


def _timer(draw: random.Random) -> str:
    amount, unit = _number(draw), draw.choice(words.UNITS[:12])
    return draw.choice(
        (
            f"i set a timer for {amount} {unit}",
            f"the timer is set for {amount} {unit}",
            f"timer set for {amount} {unit}",
            f"a timer for {amount} {unit}",
            f"your timer of {amount} {unit} is running",
            f"i cancelled the timer for {amount} {unit}",
            f"{amount} {unit} left",
            f"i will wake you at {_number(draw)}",
            f"the alarm is set for {spoken_number(draw.randint(1, 12))} {draw.choice(_TIMES_OF_DAY)}",
        )
    )


def _calendar(draw: random.Random) -> str:
    day, other = draw.choice(words.DAYS), draw.choice(words.DAYS)
    month, next_month = draw.choice(words.MONTHS), draw.choice(words.MONTHS)
    ordinal = draw.choice(words.ORDINALS)
    return draw.choice(
        (
            f"{day} comes after {other}",
            f"{day} comes before {other}",
            f"after {day} comes {other}",
            f"the day after {day} is {other}",
            f"the day before {day} is {other}",
            f"{month} comes after {next_month}",
            f"{month} comes before {next_month}",
            f"before {month} comes {next_month}",
            f"the month after {month} is {next_month}",
            f"{month} has {spoken_number(draw.randint(28, 31))} days",
            f"{month} is the {ordinal} month",
            f"{day} is the {ordinal} day of the week",
            f"{month} is in {draw.choice(words.SEASONS)}",
            f"it is {day} the {ordinal} of {month}",
            f"{draw.choice(words.SEASONS)} comes after {draw.choice(words.SEASONS)}",
            f"the {ordinal} of {month}",
        )
    )


def _unit(draw: random.Random) -> str:
    unit, other = draw.choice(words.UNITS), draw.choice(words.UNITS)
    return draw.choice(
        (
            f"a {unit} has {_number(draw)} {other}",
            f"there are {_number(draw)} {other} in a {unit}",
            f"{_number(draw)} {unit} are {_number(draw)} {other}",
            f"{_number(draw)} {unit}",
            f"one {unit} is {_number(draw)} {other}",
        )
    )


def _opposite(draw: random.Random) -> str:
    left, right = draw.sample(draw.choice(words.OPPOSITES), 2)
    return draw.choice(
        (
            f"the opposite of {left} is {right}",
            f"the opposite of {left} is {draw.choice(words.ADJECTIVES)}",
            f"{left} is the opposite of {right}",
            f"{left} and {right}",
            f"not {left} but {right}",
            f"it is {right}",
        )
    )


def _picture(draw: random.Random) -> str:
    colour, shape, other = draw.choice(words.COLOURS), draw.choice(words.SHAPES), draw.choice(words.COLOURS)
    count = spoken_number(draw.randint(0, 12))
    return draw.choice(
        (
            f"a {colour} {shape}",
            f"a {colour} {shape} and a {other} {draw.choice(words.SHAPES)}",
            f"{count} {colour} {shape}",
            f"a {colour} {shape} on a {other} background",
            f"there are {count} {colour} {shape}",
            f"i see a {colour} {shape}",
            f"i see {count} {shape}",
            f"the {shape} is {colour}",
            f"the {colour} {shape} is {draw.choice(words.POSITIONS)}",
            f"a {colour} {shape} {draw.choice(words.POSITIONS)}",
            f"the {shape} moves {draw.choice(words.MOVES)}",
            f"it moves {draw.choice(words.MOVES)}",
            f"the {colour} {shape} moved {draw.choice(words.MOVES)}",
            f"it changed from {colour} to {other}",
            f"it turned {colour}",
            f"the {shape} became {colour}",
            f"the digit {count}",
            f"{colour} and {other} make {draw.choice(words.COLOURS)}",
            f"the {draw.choice(words.NOUNS)} is {colour}",
        )
    )


def _noun_phrase(draw: random.Random) -> str:
    noun = draw.choice(words.NOUNS)
    determiner = draw.choice(
        ("the", "the", "my", "your", "his", "her", "our", "their", "this", "that", "every", "some", "no")
    )
    return f"{determiner} {draw.choice(words.ADJECTIVES)} {noun}" if draw.random() < 0.4 else f"{determiner} {noun}"


def _small_talk(draw: random.Random) -> str:
    name, noun, adjective = draw.choice(words.NAMES), draw.choice(words.NOUNS), draw.choice(words.ADJECTIVES)
    return draw.choice(
        (
            draw.choice(words.FIXED),
            draw.choice(words.FIXED),
            draw.choice(words.FIXED),
            f"hello {name}",
            f"my name is {name}",
            f"you are {adjective}",
            f"i am {adjective}",
            f"i like {noun} and {draw.choice(words.NOUNS)}",
            f"my favourite colour is {draw.choice(words.COLOURS)}",
            f"do you like {noun}",
            f"what is {_noun_phrase(draw)}",
            f"where is {_noun_phrase(draw)}",
            f"who is {name}",
            f"say {noun}",
        )
    )


def _plain(draw: random.Random) -> str:
    first, second = _noun_phrase(draw), _noun_phrase(draw)
    subject, verb = draw.choice(_SUBJECTS), draw.choice(words.VERBS)
    preposition = draw.choice(words.PREPOSITIONS)
    return draw.choice(
        (
            f"{subject} {draw.choice(words.PAST_VERBS)} {first}",
            f"{first} {draw.choice(words.INTRANSITIVE)} {draw.choice(words.ADVERBS)}",
            f"{first} {draw.choice(words.INTRANSITIVE)} {preposition} {second}",
            f"{first} is {preposition} {second}",
            f"{draw.choice(_STARTERS)} {verb} {first}",
            f"{verb} {first} {preposition} {second}",
            f"{subject} will {verb} {first} {draw.choice(words.ADVERBS)}",
            f"can you {verb} {first}",
            f"{subject} {draw.choice(words.PAST_VERBS)} {first} {preposition} {second}",
            f"{first} and {second}",
            f"{preposition} {first}",
            f"{draw.choice(words.ADJECTIVES)} {draw.choice(words.NOUNS)}",
            f"{first} was {draw.choice(words.ADJECTIVES)}",
        )
    )


def _word_list(draw: random.Random) -> str:
    """Unrelated words in a row: what "say after me" asks for, and the hardest to guess from context."""
    everything = (
        words.NOUNS
        + words.ADJECTIVES
        + words.VERBS
        + words.PAST_VERBS
        + words.ADVERBS
        + words.NAMES
        + words.DEVICES
        + words.ROOMS
    ) + (words.COLOURS + words.SHAPES + words.DAYS + words.MONTHS + words.UNITS + words.ORDINALS + words.SEASONS)
    return " ".join(draw.choice(everything) for _ in range(draw.choice((1, 1, 2, 3, 3, 4, 5))))


_PATTERNS: Sequence[tuple[float, Callable[[random.Random], str]]] = (
    (0.11, _sum),
    (0.08, _capital),
    (0.08, _device),
    (0.05, _timer),
    (0.07, _calendar),
    (0.04, _unit),
    (0.05, _opposite),
    (0.10, _picture),
    (0.08, _small_talk),
    (0.19, _plain),
    (0.15, _word_list),
)


def practice_sentences(count: int, seed: int = 0, exclude: frozenset[str] = frozenset()) -> list[str]:
    """``count`` different sentences, the same ones for the same seed.

    Sentences whose words (ending aside) are in ``exclude`` are left out, so that held-out replies stay unheard.
    """
    draw = random.Random(seed)
    weights = [weight for weight, _ in _PATTERNS]
    patterns = [pattern for _, pattern in _PATTERNS]
    seen = set(exclude)
    sentences: list[str] = []
    while len(sentences) < count:
        body = draw.choices(patterns, weights)[0](draw)
        ending = draw.choice(_ENDINGS)
        if body in seen or len(body.split()) > MAX_WORDS:
            continue
        seen.add(body)
        sentences.append(body + ending)
    return sentences
