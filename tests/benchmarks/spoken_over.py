"""A reply that was spoken over: how soon it was silent, and whether the history is what was heard of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from judged import Bar

from sottovoce.calibration.edit_distance import edit_distance
from sottovoce.demos.miniature.speech_out.listener import Listener, plain_words

SHORTEST_REPLY_S = 1.5
NEEDED_AFTER_S = 0.75
"""An interruption takes half a second of speech: it must begin so long before the reply's end."""
BAR_WORDS = 0.95
BUFFER_MS = 20


@dataclass
class Interruption:
    """One reply that was spoken over.

    Args:
        reply: its whole text.
        history: what was kept of it.
        played_s: how much was played.
        after_stop_s: from the wish to stop to the last sample that is not zero.
        after_speech_s: the same from the first sample of the question spoken over it.
        heard: what the listener wrote.
        off_by: words between the history and how far the listener heard.
        edits: between the history and what the listener wrote.
    """

    reply: str
    history: str
    played_s: float
    after_stop_s: float
    after_speech_s: float
    heard: str = ""
    off_by: int = 0
    edits: int = 0


def extents(heard: Sequence[str], reply: Sequence[str]) -> list[int]:
    """How many words of `reply` were heard; several if they explain `heard` equally well."""
    costs = [edit_distance(list(reply[:count]), list(heard)) for count in range(len(reply) + 1)]
    return [count for count, cost in enumerate(costs) if cost == min(costs)]


def judge(one: Interruption, samples: np.ndarray, rate: int, listener: Listener) -> None:
    """Let the listener hear what was played."""
    one.heard = listener.transcribe(samples, rate)
    heard, kept = plain_words(one.heard), plain_words(one.history)
    one.off_by = min(abs(count - len(kept)) for count in extents(heard, plain_words(one.reply)))
    one.edits = edit_distance(kept, heard)


def onset_s(question: np.ndarray) -> float:
    """Where in a recording the speech begins."""
    return float(np.flatnonzero(np.abs(question) > 0.05 * np.abs(question).max())[0]) / 16_000


def summary(found: Sequence[Interruption]) -> dict[str, Any]:
    """Percentiles in milliseconds, and shares of the interruptions."""

    def percentiles(seconds: Sequence[float]) -> dict[str, float]:
        p50, p99 = np.percentile(1000 * np.asarray(seconds), [50, 99])
        return {"p50": round(float(p50), 1), "p99": round(float(p99), 1), "max": round(1000 * float(max(seconds)), 1)}

    def share(holds: Sequence[bool]) -> float:
        return round(sum(holds) / len(holds), 4)

    return {
        "interruptions": len(found),
        "last_sample_after_stop_ms": percentiles([one.after_stop_s for one in found]),
        "last_sample_after_speech_ms": percentiles([one.after_speech_s for one in found]),
        "extent_within_one_word": share([one.off_by <= 1 for one in found]),
        "extent_exact": share([one.off_by == 0 for one in found]),
        "edits_at_most_one": share([one.edits <= 1 for one in found]),
        "history_longer_by_words": round(float(np.mean([_signed(one) for one in found])), 3),
    }


def _signed(one: Interruption) -> int:
    """How many words more the history has than were heard, of several extents by the nearest."""
    kept = len(plain_words(one.history))
    counts = extents(plain_words(one.heard), plain_words(one.reply))
    return kept - min(counts, key=lambda count: abs(count - kept))


def bars(found: dict[str, Any], where: str) -> list[Bar]:
    """How soon it is silent, and whether what was heard is the history."""
    stopped, spoken = found["last_sample_after_stop_ms"], found["last_sample_after_speech_ms"]
    return [
        Bar(f"interruptions {where}", found["interruptions"]),
        Bar("last sample after the stop, ms, p99", stopped["p99"], None, BUFFER_MS),
        Bar("last sample after speech began, ms, p50", spoken["p50"]),
        Bar("history within a word of what was heard, share", found["extent_within_one_word"], BAR_WORDS),
        Bar("history exactly what was heard, share", found["extent_exact"]),
        Bar("words that the history is longer", found["history_longer_by_words"]),
    ]
