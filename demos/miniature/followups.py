"""Second turns that mean nothing without the first: `and of italy`, `now turn it off`, `say that again`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from sottovoce.demos.miniature import facts
from sottovoce.demos.miniature.curriculum import (
    SWITCHING,
    Exchange,
    Turn,
    device_reply,
    duration,
    questions,
    sentence,
    stable_hash,
)
from sottovoce.demos.miniature.facts import number_words

FollowUp = tuple[Turn, str, str]
"""The turn before, what is asked now, and the reply."""


def _capital(draw: random.Random) -> FollowUp:
    first, second = draw.sample(sorted(facts.CAPITALS), 2)
    before = Turn(f"what is the capital of {first}", f"The capital of {first.capitalize()} is {facts.CAPITALS[first]}.")
    question = draw.choice(("and of {c}", "what about {c}", "and the capital of {c}", "and {c}")).format(c=second)
    return before, question, f"The capital of {second.capitalize()} is {facts.CAPITALS[second]}."


def _opposite(draw: random.Random) -> FollowUp:
    first, second = draw.sample(sorted(facts.OPPOSITES), 2)
    before = Turn(f"what is the opposite of {first}", f"The opposite of {first} is {facts.OPPOSITES[first]}.")
    question = draw.choice(("and of {w}", "what about {w}", "and the opposite of {w}", "and {w}")).format(w=second)
    return before, question, f"The opposite of {second} is {facts.OPPOSITES[second]}."


def _color(draw: random.Random) -> FollowUp:
    first, second = draw.sample(sorted(facts.COLORS), 2)
    before = Turn(f"what color is {first}", sentence(f"{first} is {facts.COLORS[first]}"))
    question = draw.choice(("and {t}", "what about {t}", "and what color is {t}")).format(t=second)
    return before, question, sentence(f"{second} is {facts.COLORS[second]}")


def _device_state(draw: random.Random) -> FollowUp:
    room, device, state = draw.choice(facts.ROOMS), draw.choice(facts.DEVICES), draw.choice(("on", "off"))
    other = "off" if state == "on" else "on"
    before = Turn(draw.choice(SWITCHING).format(s=state, r=room, d=device), device_reply(room, device, state))
    question = draw.choice(("now turn it {s}", "turn it {s} again", "switch it {s} again", "please turn it {s} now"))
    return before, question.format(s=other), device_reply(room, device, other)


def _device_room(draw: random.Random) -> FollowUp:
    first, second = draw.sample(facts.ROOMS, 2)
    device, state = draw.choice(facts.DEVICES), draw.choice(("on", "off"))
    before = Turn(draw.choice(SWITCHING).format(s=state, r=first, d=device), device_reply(first, device, state))
    question = draw.choice(("and in the {r}", "also in the {r}", "and the one in the {r}", "do the same in the {r}"))
    return before, question.format(r=second), device_reply(second, device, state)


def _sum(draw: random.Random) -> FollowUp:
    a, b, c = draw.randint(1, 12), draw.randint(1, 12), draw.randint(1, 9)
    total = a + b
    before = Turn(f"what is {number_words(a)} plus {number_words(b)}",
                  sentence(f"{number_words(a)} plus {number_words(b)} is {number_words(total)}"))  # fmt: skip
    if draw.random() < 0.5 and total > c:
        question = draw.choice(("and minus {n}", "now take away {n}", "minus {n}"))
        reply = f"{number_words(total)} minus {number_words(c)} is {number_words(total - c)}"
    else:
        question = draw.choice(("and plus {n}", "now add {n}", "plus {n}"))
        reply = f"{number_words(total)} plus {number_words(c)} is {number_words(total + c)}"
    return before, question.format(n=number_words(c)), sentence(reply)


def _timer(draw: random.Random) -> FollowUp:
    counts = draw.sample(facts.TIMER_COUNTS, 2)
    unit = draw.choice(("minute", "second"))
    first, second = duration(counts[0], unit), duration(counts[1], unit)
    before = Turn(f"set a timer for {first}", f"Your timer is set for {first}.")
    if draw.random() < 0.25:
        return before, draw.choice(("cancel it", "stop the timer", "cancel the timer")), "Your timer is off."
    question = draw.choice(("make it {t}", "no make it {t}", "change it to {t}"))
    return before, question.format(t=second), f"Your timer is set for {second}."


def _date(draw: random.Random) -> FollowUp:
    kind, names = draw.choice((("day", facts.DAYS), ("month", facts.MONTHS)))
    i = draw.randrange(len(names))
    following, later = names[(i + 1) % len(names)], names[(i + 2) % len(names)]
    before = Turn(f"what {kind} comes after {names[i].lower()}", f"After {names[i]} comes {following}.")
    return (
        before,
        draw.choice(("and after that", "and what comes then", "and then")),
        f"After {following} comes {later}.",
    )


def _repeat(draw: random.Random) -> FollowUp:
    before = draw.choice([e for e in questions() if not e.held_out])
    question = draw.choice(("say that again", "can you repeat that", "please say it again", "what did you say"))
    return Turn(before.question, before.reply), question, before.reply


KINDS: tuple[Callable[[random.Random], FollowUp], ...] = (
    _capital, _opposite, _color, _device_state, _device_room, _sum, _timer, _date, _repeat,
)  # fmt: skip


def followups(seed: int) -> Iterator[Exchange]:
    """An endless stream of second turns; a fifth of the pairs of turns is held out."""
    draw = random.Random(seed)
    while True:
        before, question, reply = draw.choice(KINDS)(draw)
        held_out = stable_hash("follow-up", before.question, question) % 5 == 0
        yield Exchange(question, reply, "follow_up", held_out, (before,))
