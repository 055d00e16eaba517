"""What the miniature is asked: how much of it, what is kept out, and that every reply follows from its question."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from itertools import islice

from sottovoce.demos.miniature import facts
from sottovoce.demos.miniature.curriculum import TASKS, questions
from sottovoce.demos.miniature.facts import number_words
from sottovoce.demos.miniature.followups import followups
from sottovoce.demos.miniature.sentences import overheard, say_after_me
from sottovoce.demos.miniature.speech_in import draw_exchanges

WORDS = {number_words(n): n for n in range(401)}


def test_large_enough_and_a_fifth_is_kept_out() -> None:
    listed = questions()
    assert len(listed) >= 2000
    assert sum(one.held_out for one in listed) >= len(listed) / 5
    assert len({one.question for one in listed}) == len(listed), "one question, one reply"
    assert set(TASKS) == {one.task for one in listed}


def test_the_choice_is_the_same_on_every_machine() -> None:
    kept_out = "\n".join(sorted(one.question for one in questions() if one.held_out))
    assert hashlib.sha256(kept_out.encode()).hexdigest()[:12] == "06e0e85ce947"


def test_every_fact_that_is_asked_is_also_taught() -> None:
    """A fact whose every phrasing were held out could only be guessed; sums and devices are combinations instead."""
    taught = {one.reply for one in questions() if not one.held_out}
    combined = {"sums", "devices", "timers"}
    untaught = [one for one in questions() if one.held_out and one.reply not in taught and one.task not in combined]
    assert untaught == []


def test_whole_combinations_of_sums_are_kept_out_but_never_their_mirror_image() -> None:
    asked = {
        (match[1], match[2], one.held_out)
        for one in questions()
        if (match := re.fullmatch(r"what is ([a-z ]+) plus ([a-z ]+)", one.question))
    }
    taught = {(a, b) for a, b, held_out in asked if not held_out}
    alone = [
        (a, b) for a, b, held_out in asked if held_out and (b, a) not in taught and (a, b) not in taught and a != b
    ]
    every_way = {one.reply for one in questions() if not one.held_out}
    for a, b in alone:
        total = number_words(WORDS[a] + WORDS[b])
        replies = {f"{x} plus {y} is {total}.".capitalize() for x, y in ((a, b), (b, a))}
        assert replies & every_way, f"{a} plus {b} is taught in no order and no phrasing"


def test_arithmetic_is_right() -> None:
    signs = {"plus": int.__add__, "minus": int.__sub__, "times": int.__mul__}
    checked = Counter()
    for one in questions():
        match = re.fullmatch(r"([A-Za-z ]+) (plus|minus|times) ([a-z ]+) is ([a-z ]+)\.", one.reply)
        if one.task == "sums":
            assert match, one
            a, b, result = (WORDS[match[i].lower()] for i in (1, 3, 4))
            assert signs[match[2]](a, b) == result, one
            checked[match[2]] += 1
    assert min(checked[sign] for sign in signs) > 100


def test_follow_ups_need_the_turn_before() -> None:
    drawn = list(islice(followups(3), 2000))
    alone = {one.question for one in questions()}
    assert all(len(one.history) == 1 for one in drawn)
    assert not {one.question for one in drawn} & alone
    replies_by_question: dict[str, set[str]] = {}
    for one in drawn:
        replies_by_question.setdefault(one.question, set()).add(one.reply)
    assert len(replies_by_question["now turn it off"]) > 5, "the same words, another lamp"
    assert 0.15 < sum(one.held_out for one in drawn) / len(drawn) < 0.25


def test_a_capital_followed_up_is_the_capital_of_that_country() -> None:
    for one in islice(followups(4), 3000):
        match = re.fullmatch(r"and of (\w+)", one.question)
        if match and match[1] in facts.CAPITALS:
            assert one.reply == f"The capital of {match[1].capitalize()} is {facts.CAPITALS[match[1]]}."


def test_say_after_me_repeats_the_words_and_streams_depend_on_their_seed() -> None:
    first = list(islice(say_after_me(5), 300))
    for one in first:
        said = one.reply.rstrip(".").lower()
        assert one.question.endswith(" " + said)
        assert len(set(said.split())) > 1
    assert first == list(islice(say_after_me(5), 300))
    assert first != list(islice(say_after_me(6), 300))


def test_overheard_talk_is_no_question_of_the_curriculum() -> None:
    asked = {one.question for one in questions()}
    drawn = {one.question for one in islice(overheard(7), 3000)}
    assert not drawn & asked
    assert len(drawn) > 1000


def test_what_is_to_be_spoken_comes_from_one_side_of_the_hold_out() -> None:
    for held_out in (False, True):
        drawn = list(islice(draw_exchanges(8, held_out), 400))
        assert all(one.held_out == held_out for one in drawn)
        tasks = {one.task for one in drawn}
        assert {"sums", "capitals", "follow_up", "say_after_me", "overheard", "picture", "clip"} <= tasks
    assert "picture" not in {one.task for one in islice(draw_exchanges(8, False, visual=False), 400)}
