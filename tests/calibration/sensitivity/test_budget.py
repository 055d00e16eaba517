"""What `--budget` says is understood, or answered with what could be said; the data is divided fairly and enough."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sottovoce.calibration.sensitivity.budget import Budget, parse_budget
from sottovoce.calibration.sensitivity.split import split_data
from sottovoce.runtime.conversation_set.item import EvaluationItem
from sottovoce.runtime.errors import InputError, SottovoceError


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("reply-exact:-0.5", Budget("reply-exact", 0.5)),
        ("reply-exact:0", Budget("reply-exact", 0.0)),
        (" wer : 1.0 ", Budget("wer", 1.0)),
        ("logit-kl:0.01", Budget("logit-kl", 0.01)),
    ],
)
def test_a_budget_is_read_and_written_alike(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bleu:1", "no measure 'bleu'"),
        ("", "no measure ''"),
        ("wer", "'' is not a number"),
        ("wer:a little", "'a little' is not a number"),
        ("wer:nan", "'nan' is not a number"),
        ("wer:-1", "expected 0 or more"),
        ("logit-kl:-0.01", "expected 0 or more"),
        ("reply-exact:0.5", "expected 0 or less"),
    ],
)
def test_a_malformed_budget_is_answered_with_the_valid_ones(text: str, says: str) -> None:
    with pytest.raises(SottovoceError) as refused:
        parse_budget(text)
    assert says in refused.value.message
    for measure in ("reply-exact:-0.5", "wer:1.0", "logit-kl:0.01"):
        assert measure in str(refused.value.fix)


def test_the_last_bits_of_a_difference_do_not_break_a_budget() -> None:
    assert Budget("reply-exact", 0.5).holds(100 * (0.905 - 0.9))
    assert Budget("reply-exact", 0.0).holds(-1.0)
    assert not Budget("logit-kl", 0.01).holds(0.011)


def questions(count: int, text: Callable[[int], str] = "Question {}".format) -> list[EvaluationItem]:
    return [EvaluationItem(task="typed_question", reply="", text=text(number)) for number in range(count)]


def test_the_split_is_of_the_items_and_not_of_their_order() -> None:
    items = questions(80)
    split, backwards = split_data(items), split_data(items[::-1])
    assert len(split.ranking) == 20
    assert set(split.ranking) == set(backwards.ranking)
    assert set(split.ranking) | set(split.acceptance) == set(items)
    assert not set(split.ranking) & set(split.acceptance)
    assert sum(item in split.ranking for item in items[:40]) > 2, "both halves of the set are in it"


def test_the_same_question_is_never_in_both_parts() -> None:
    split = split_data(questions(200, lambda number: f"Question {number % 50}"))
    assert not set(split.ranking) & set(split.acceptance)


def test_too_little_data_is_refused_with_the_minimum() -> None:
    with pytest.raises(InputError, match=r"31 different conversations are too few.*at least 32") as refused:
        split_data(questions(31))
    assert "--allow-little-data" in str(refused.value.fix)
    with pytest.raises(InputError, match="1 different"):
        split_data(questions(40, lambda _: "the same"))
    little = split_data(questions(2), allow_little_data=True)
    assert (len(little.ranking), len(little.acceptance)) == (1, 1)
    with pytest.raises(InputError, match="at least 2"):
        split_data(questions(1), allow_little_data=True)
