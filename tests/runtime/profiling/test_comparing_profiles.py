"""Two profiles: differences that are there are shown, those of chance are not, and machines are not mixed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from sottovoce.runtime.profiling.comparing.bootstrap import bootstrap
from sottovoce.runtime.profiling.comparing.compare import compare
from sottovoce.runtime.profiling.comparing.tables import NO_DIFFERENCE, comparison_json, summary
from sottovoce.runtime.profiling.measure import Measure, measure
from sottovoce.runtime.profiling.report import ProfileReport

Draw = Callable[[str], float]
RUNS = 10
NAMES = ("first_token", "total", "decode", "codec", "language_model.step")


def made(report: ProfileReport, seed: int, runs: int = RUNS, **slower: float) -> ProfileReport:
    """A report of noisy runs around 50 ms; `slower` multiplies a measure."""
    random = np.random.default_rng(seed)
    measures: list[Measure] = []
    for name in NAMES:
        level = 50 * slower.get(name.replace(".", "_"), 1.0)
        of_runs = level * random.lognormal(0, 0.04, runs)  # what the machine did meanwhile meets a whole run
        samples = [[value * noise for noise in random.lognormal(0, 0.01, 30)] for value in of_runs]
        one = measure(name, "call", samples if name.endswith("step") else [run[:1] for run in samples])
        assert one is not None
        measures.append(one)
    return replace(report, measures=tuple(measures))


def test_a_stage_that_became_slower_is_named(report: ProfileReport) -> None:
    comparison = compare(made(report, 1), made(report, 2, decode=1.4))
    assert [(one.name, one.verdict) for one in comparison.changes if one.verdict != NO_DIFFERENCE] == [
        ("decode", "slower")
    ]
    [decode] = comparison.slower_than(0.1)
    assert decode.interval is not None
    assert decode.interval.low < 0.4 < decode.interval.high
    assert comparison.slower_than(0.6) == []
    assert "decode +" in summary(comparison)
    assert comparison_json(comparison, comparison.slower_than(0.1))["failed"] == ["decode"]


def test_one_that_became_faster_is_no_failure(report: ProfileReport) -> None:
    comparison = compare(made(report, 1), made(report, 2, codec=0.6))
    assert summary(comparison).startswith("faster: codec -")
    assert comparison.slower_than(0.0) == []


def test_the_same_report_twice_shows_no_difference(report: ProfileReport) -> None:
    one = made(report, 3)
    comparison = compare(one, one)
    assert summary(comparison) == NO_DIFFERENCE == "no difference shown"
    assert all(change.change == 0 for change in comparison.changes)


def test_chance_alone_is_seldom_taken_for_a_difference(report: ProfileReport) -> None:
    """Of 20 pairs that differ by chance, at most a few; with calls drawn in place of runs it would be most."""
    shown = [summary(compare(made(report, 2 * n), made(report, 2 * n + 1))) != NO_DIFFERENCE for n in range(20)]
    assert sum(shown) <= 3


def test_intervals_hold_what_they_say() -> None:
    """Of 40 intervals at 95 % for the median of 20 runs, about 38 hold the true change."""
    random = np.random.default_rng(0)
    held = 0
    for number in range(40):
        before, after = random.normal(100, 5, 20), random.normal(120, 5, 20)
        interval = bootstrap(before.tolist(), after.tolist(), 0.95, seed=number)
        held += interval.low <= 0.2 <= interval.high
    assert held >= 34


def test_the_same_seed_gives_the_same_interval() -> None:
    before, after = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 3.0, 4.0, 5.0, 7.0]
    assert bootstrap(before, after, 0.95) == bootstrap(before, after, 0.95)


def test_two_machines_get_no_verdict(report: ProfileReport) -> None:
    other = replace(made(report, 2, decode=3.0), machine=replace(report.machine, processor="another"))
    comparison = compare(made(report, 1), other)
    assert {change.verdict for change in comparison.changes} == {"not judged"}
    assert all(change.interval is None for change in comparison.changes)
    assert "another" in (comparison.unjudged or "")
    assert comparison.slower_than(0.1) == []
    assert "no verdict" in summary(comparison)


def test_too_few_runs_are_not_judged(report: ProfileReport) -> None:
    comparison = compare(made(report, 1, runs=3), made(report, 2, runs=3, decode=3.0))
    assert {change.verdict for change in comparison.changes} == {"too few runs"}
    assert comparison.unjudged
    assert "too few runs" in summary(comparison)


def test_what_was_not_the_same_is_named(report: ProfileReport) -> None:
    other = replace(
        made(report, 2),
        bundle=replace(report.bundle, name="small.bundle", sha256="0" * 64),
        setup=replace(report.setup, threads=report.setup.threads + 1),
        question=replace(report.question, audio_sha256="f" * 64),
        reply=replace(report.reply, tokens=report.reply.tokens + 5),
    )
    comparison = compare(made(report, 1), other)
    assert [difference.partition(":")[0] for difference in comparison.settings] == ["bundle", "threads", "question"]
    assert "small.bundle (000000000000)" in comparison.settings[0]
    assert "not the same work" in comparison.warnings[0]
    assert comparison.unjudged is None


def test_a_machine_that_was_busy_is_said(report: ProfileReport) -> None:
    slow = replace(report.ceilings, read_gb_s=report.ceilings.read_gb_s / 2)
    [warning] = compare(made(report, 1), replace(made(report, 2), ceilings=slow)).warnings
    assert "memory bandwidth was -50%" in warning


def test_measures_of_one_report_alone(report: ProfileReport) -> None:
    before, after = made(report, 1), made(report, 2)
    comparison = compare(before, replace(after, measures=after.measures[2:]))
    assert comparison.only_before == NAMES[:2]
    assert comparison.only_after == ()
    nothing = compare(replace(before, measures=before.measures[:1]), replace(after, measures=after.measures[2:]))
    assert nothing.unjudged == "the reports have no measure in common"


def test_a_measure_of_no_time_does_not_divide_by_it(report: ProfileReport) -> None:
    zero = measure("total", "turn", [[0.0]] * RUNS)
    assert zero is not None
    comparison = compare(replace(report, measures=(zero,)), replace(report, measures=(zero,)))
    assert comparison.changes[0].change == pytest.approx(0.0)
