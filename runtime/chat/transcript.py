"""What was said in a conversation, turn by turn, and how long everyone waited: for the screen and for programs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from sottovoce.runtime.reply import ReplyDone


@dataclass
class TurnRecord:
    """One question and its reply. Times are seconds of the session's clock, those called computing of perf_counter.

    Args:
        epoch: the reply's number.
        typed: the line, if it was typed.
        seconds: how long was spoken, if it was.
        asked_at: when the turn was over.
        pictures: how many were shown with it.
    """

    epoch: int
    typed: str | None
    seconds: float | None
    asked_at: float
    pictures: int = 0
    text: str = ""
    state: str | None = None
    reason: str | None = None
    first_text_at: float | None = None
    first_sound_at: float | None = None
    computing_since: float = field(default_factory=time.perf_counter)
    first_computed_at: float | None = None
    made_seconds: float = 0.0
    played_seconds: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)
    is_over: bool = False

    @property
    def latency_ms(self) -> float | None:
        """From the end of the turn to the reply's first samples at the speaker; to its first words without one.

        A clock that stands still while a reply is computed (that of files) does not make it come sooner.
        """
        first = self.first_sound_at if self.first_sound_at is not None else self.first_text_at
        if first is None:
            return None
        computed = self.first_computed_at if self.first_computed_at is not None else self.computing_since
        return 1000 * max(first - self.asked_at, computed - self.computing_since)

    def end(self, done: ReplyDone) -> None:
        """The reply is complete; of one that was interrupted, what was heard."""
        self.text, self.state, self.reason = done.text, done.state, done.reason
        self.timings = {name: round(value, 2) for name, value in done.timings.items()}

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        latency = self.latency_ms
        return {
            "typed": self.typed,
            "spoken_seconds": None if self.seconds is None else round(self.seconds, 2),
            "pictures": self.pictures,
            "reply": self.text,
            "state": self.state,
            "reason": self.reason,
            "latency_ms": None if latency is None else round(latency, 1),
            "played_seconds": round(self.played_seconds, 2),
            "made_seconds": round(self.made_seconds, 2),
            "timings_ms": self.timings,
        }
