"""Picking tokens: distributions, bans, penalties, seeds."""

from __future__ import annotations

import numpy as np
import pytest

from sottovoce.runtime.errors import InputError
from sottovoce.runtime.sampling import Sampler, SamplingOptions

LOGITS = np.log(np.array([0.5, 0.25, 0.125, 0.0625, 0.0625], dtype=np.float32))


def frequencies(options: SamplingOptions, draws: int = 4000, **arguments) -> np.ndarray:
    sampler = Sampler(options, seed=3)
    picked = [sampler.pick(LOGITS, **arguments) for _ in range(draws)]
    return np.bincount(picked, minlength=LOGITS.size) / draws


@pytest.mark.parametrize(
    "options", [SamplingOptions(greedy=True), SamplingOptions(temperature=0), SamplingOptions(top_k=1)]
)
def test_greedy_takes_the_largest(options):
    assert options.is_greedy
    assert {Sampler(options).pick(LOGITS) for _ in range(20)} == {0}


def test_greedy_takes_the_first_on_a_tie():
    assert Sampler(SamplingOptions(greedy=True)).pick(np.array([1, 3, 3], dtype=np.float32)) == 1


def test_plain_sampling_follows_the_distribution():
    np.testing.assert_allclose(frequencies(SamplingOptions()), np.exp(LOGITS), atol=0.03)


def test_temperature_sharpens():
    expected = np.exp(LOGITS / 0.5) / np.exp(LOGITS / 0.5).sum()
    np.testing.assert_allclose(frequencies(SamplingOptions(temperature=0.5)), expected, atol=0.03)


def test_top_k_keeps_exactly_k_even_on_a_tie():
    found = frequencies(SamplingOptions(top_k=4))
    np.testing.assert_allclose(found, np.array([8, 4, 2, 1, 0]) / 15, atol=0.03)
    assert found[4] == 0


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, 1), (0.5, 1), (0.51, 2), (0.8, 3), (1.0, 5)])
def test_top_p_keeps_the_fewest_that_reach_it(top_p, kept):
    assert np.count_nonzero(frequencies(SamplingOptions(top_p=top_p))) == kept


def test_banned_ids_are_never_picked():
    assert Sampler(SamplingOptions(greedy=True)).pick(LOGITS, banned=[0, 1]) == 2
    found = frequencies(SamplingOptions(top_k=2), banned=[0, 2])
    assert np.flatnonzero(found).tolist() == [1, 3]


def test_repetition_penalty_makes_used_ids_less_likely_on_both_signs():
    sampler = Sampler(SamplingOptions(greedy=True, repetition_penalty=2.0))
    assert sampler.pick(np.array([3.0, 2.0], dtype=np.float32), used=[0, 0]) == 1
    assert sampler.pick(np.array([-1.0, -1.5], dtype=np.float32), used=[0]) == 1


def test_the_same_seed_draws_the_same():
    first, second = Sampler(SamplingOptions(), 11), Sampler(SamplingOptions(), 11)
    assert [first.pick(LOGITS) for _ in range(50)] == [second.pick(LOGITS) for _ in range(50)]
    other = Sampler(SamplingOptions(), 12)
    assert [first.pick(LOGITS) for _ in range(50)] != [other.pick(LOGITS) for _ in range(50)]


def test_the_logits_are_left_alone():
    logits = LOGITS.copy()
    Sampler(SamplingOptions(repetition_penalty=2.0), 0).pick(logits, used=[0], banned=[1])
    np.testing.assert_array_equal(logits, LOGITS)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"repetition_penalty": 0.0}]
)
def test_a_value_out_of_range_is_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SamplingOptions(**wrong)
