"""Which measures of two profiles differ; none is judged where the machines do."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Literal

from sottovoce.runtime.profiling.comparing.bootstrap import LEAST_RUNS, Interval, bootstrap
from sottovoce.runtime.profiling.measure import Measure
from sottovoce.runtime.profiling.report import ProfileReport
from sottovoce.runtime.profiling.wording import pictures

FAMILY_CONFIDENCE = 0.95
"""That none of all intervals together misses: with each at 95 %, one of twenty would show a difference by chance."""
CEILINGS_MAY_DIFFER = 0.15
LEAST_MS = 1e-6

Verdict = Literal["slower", "faster", "no difference shown", "too few runs", "not judged"]


@dataclass(frozen=True)
class Change:
    """One measure in both reports.

    Args:
        name: of the measure.
        before: its median run, ms.
        after: the same.
        interval: of the change; None where it is not judged.
        verdict: what that says.
    """

    name: str
    before: float
    after: float
    interval: Interval | None
    verdict: Verdict

    @property
    def change(self) -> float:
        """Of the medians: 0.1 is 10 % longer."""
        return self.after / max(self.before, LEAST_MS) - 1


@dataclass(frozen=True)
class Comparison:
    """Two profiles side by side.

    Args:
        machines: in what the machines differ; with any of this there is no verdict.
        settings: in what else the two were not measured alike, each said in words.
        warnings: why the same machine may have been faster or slower by itself.
        changes: every measure that is in both.
        confidence: of each interval.
        only_before: measures of the first alone.
        only_after: of the second alone.
    """

    machines: tuple[str, ...]
    settings: tuple[str, ...]
    warnings: tuple[str, ...]
    changes: tuple[Change, ...]
    confidence: float
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def unjudged(self) -> str | None:
        """Why there is no verdict on some or all of it; None: everything is judged."""
        if self.machines:
            return f"the reports are of two different machines ({'; '.join(self.machines)})"
        if not self.changes:
            return "the reports have no measure in common"
        if any(one.verdict == "too few runs" for one in self.changes):
            return "too few runs to tell a difference from chance"
        return None

    def slower_than(self, share: float) -> list[Change]:
        """What is shown to take longer, and by more than `share` of what it took."""
        return [one for one in self.changes if one.verdict == "slower" and one.change > share]


def compare(before: ProfileReport, after: ProfileReport) -> Comparison:
    """Hold the second profile against the first."""
    machines = tuple(before.machine.differences(after.machine))
    pairs = [(one, other) for one in before.measures if (other := after.measure(one.name)) is not None]
    confidence = 1 - (1 - FAMILY_CONFIDENCE) / max(len(pairs), 1)
    names = {one.name for one, _ in pairs}
    return Comparison(
        machines,
        tuple(_settings(before, after)),
        tuple(_warnings(before, after)),
        tuple(_change(one, other, confidence, is_judged=not machines) for one, other in pairs),
        confidence,
        tuple(one.name for one in before.measures if one.name not in names),
        tuple(one.name for one in after.measures if one.name not in names),
    )


def _change(before: Measure, after: Measure, confidence: float, is_judged: bool) -> Change:
    first, second = ([max(value, LEAST_MS) for value in one.run_means] for one in (before, after))
    medians = median(first), median(second)
    if not is_judged:
        return Change(before.name, *medians, None, "not judged")
    if min(len(first), len(second)) < LEAST_RUNS:
        return Change(before.name, *medians, None, "too few runs")
    interval = bootstrap(first, second, confidence)
    verdict: Verdict = "no difference shown"
    if interval.is_shown:
        verdict = "slower" if interval.low > 0 else "faster"
    return Change(before.name, *medians, interval, verdict)


def _settings(before: ProfileReport, after: ProfileReport) -> list[str]:
    """What was not the same on purpose."""
    pairs = [
        ("bundle", _named_bundle(before), _named_bundle(after)),
        ("precisions", _precisions(before), _precisions(after)),
        ("engine", before.setup.engine, after.setup.engine),
        ("threads", before.setup.threads, after.setup.threads),
        ("question", _asked(before), _asked(after)),
        ("speech", before.setup.speech, after.setup.speech),
        ("max_new_tokens", before.setup.max_new_tokens, after.setup.max_new_tokens),
        ("seed", before.setup.seed, after.setup.seed),
        ("sottovoce", before.sottovoce, after.sottovoce),
    ]
    return [f"{what}: {first} against {second}" for what, first, second in pairs if first != second]


def _warnings(before: ProfileReport, after: ProfileReport) -> list[str]:
    found = []
    replies = (before.reply.tokens, before.reply.speech_seconds), (after.reply.tokens, after.reply.speech_seconds)
    if replies[0] != replies[1]:
        (tokens, seconds), (other_tokens, other_seconds) = replies
        found.append(
            f"the replies differ ({tokens} tokens and {seconds:.2f} s of speech, {other_tokens} and "
            f"{other_seconds:.2f} s): what is measured a turn is not the same work"
        )
    for what, first, second in (
        ("memory bandwidth", before.ceilings.read_gb_s, after.ceilings.read_gb_s),
        ("matrix product", before.ceilings.matmul_gflop_s, after.ceilings.matmul_gflop_s),
    ):
        change = second / max(first, LEAST_MS) - 1
        if abs(change) > CEILINGS_MAY_DIFFER and before.ceilings.threads == after.ceilings.threads:
            found.append(f"the machine's own {what} was {change:+.0%}: something else was running in one of the two")
    return found


def _named_bundle(report: ProfileReport) -> str:
    return f"{report.bundle.name} ({report.bundle.sha256[:12]})"


def _precisions(report: ProfileReport) -> str:
    found = report.bundle.precisions
    kinds = sorted(set(found.values()))
    return kinds[0] if len(kinds) == 1 else ", ".join(f"{stage} {kind}" for stage, kind in sorted(found.items()))


def _asked(report: ProfileReport) -> str:
    question = report.question
    audio = None if question.audio_sha256 is None else f"audio {question.audio_sha256[:12]}"
    return ", ".join(part for part in (question.text, audio, pictures(question.images)) if part)
