"""A reply that was given again against the one that was recorded: to the token, and to the bit of every sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sottovoce.runtime.recording.conversation_replay import HeldReply
from sottovoce.runtime.recording.lines import RecordedReply
from sottovoce.runtime.recording.reading import Recording

COMPARED = ("text", "kept", "state", "reason", "tokens", "samples")
TIMINGS = ("first_token", "first_audio", "total")


@dataclass(frozen=True)
class ReplyComparison:
    """What is the same, and what is not.

    Args:
        asked: the question in a word or two.
        then: the recorded reply; None if it is not in the recording, or not to its end.
        now: the same of today.
        differs: those of `COMPARED` that are not the same.
        first_token: where the tokens part, or None.
        first_sample: where the sound parts, or None.
        error: why it failed now.
    """

    asked: str
    then: RecordedReply | None
    now: RecordedReply
    differs: tuple[str, ...]
    first_token: int | None
    first_sample: int | None
    error: str | None

    @property
    def ratios(self) -> dict[str, float]:
        """How long everything took now, as a multiple of then."""
        then: Mapping[str, float] = self.then.timings if self.then is not None else {}
        now = self.now.timings
        return {name: now[name] / then[name] for name in TIMINGS if name in now and then.get(name, 0) > 0}

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "epoch": self.now.epoch,
            "asked": self.asked,
            "same": not self.differs if self.then is not None else None,
            "differs": list(self.differs),
            "first_token": self.first_token,
            "first_sample": self.first_sample,
            "error": self.error,
            "then": _as_json(self.then) if self.then is not None else None,
            "now": _as_json(self.now),
            "timing_ratios": {name: round(ratio, 3) for name, ratio in self.ratios.items()},
        }


def compare(recording: Recording, held: HeldReply) -> ReplyComparison:
    """Hold one reply against the recorded one.

    Raises:
        InputError: the recorded sound cannot be read.
    """
    now, then = held.tally.as_recorded(), recording.replies.get(held.tally.epoch)
    if then is None or then.reason is None:
        return ReplyComparison(held.asked, None, now, (), None, None, held.error)
    differs = [name for name in COMPARED if getattr(then, name) != getattr(now, name)]
    first_sample = None
    if then.samples_sha256 != now.samples_sha256:
        differs += [] if "samples" in differs else ["samples"]
        first_sample = _first_sample(recording, then, held)
    first_token = first_difference(then.tokens, now.tokens)
    return ReplyComparison(held.asked, then, now, tuple(differs), first_token, first_sample, held.error)


def first_difference(then: Sequence[int], now: Sequence[int]) -> int | None:
    """Where two sequences part, which may be the end of the shorter one; None if they do not."""
    common = min(len(then), len(now))
    place = next((i for i in range(common) if then[i] != now[i]), common)
    return place if len(then) != len(now) or place < common else None


def _first_sample(recording: Recording, then: RecordedReply, held: HeldReply) -> int | None:
    if then.samples == 0:
        return 0
    with recording.reply_sound(then.epoch) as sound:
        return sound.first_difference(held.samples)


def _as_json(reply: RecordedReply) -> dict[str, Any]:
    return {
        "text": reply.text,
        "kept": reply.kept,
        "state": reply.state,
        "reason": reply.reason,
        "tokens": list(reply.tokens),
        "samples": reply.samples,
        "samples_sha256": reply.samples_sha256,
        "timings_ms": {name: round(milliseconds, 2) for name, milliseconds in reply.timings.items()},
    }
