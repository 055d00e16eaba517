"""The recorded events through a new `Duplex`: it must want what was wanted then."""

from __future__ import annotations

from dataclasses import dataclass

from sottovoce.runtime.duplex.actions import Action
from sottovoce.runtime.duplex.machine import Duplex
from sottovoce.runtime.duplex.serialization import write_action
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.recording.lines import Step
from sottovoce.runtime.recording.reading import Recording


@dataclass(frozen=True)
class TurnDifference:
    """The first event about which something else is wanted now.

    Args:
        line: of `events.jsonl`.
        event: its kind.
        at: its time in seconds.
        then: the first action that differs, as recorded; None if there were fewer.
        now: the same of today; None if there are fewer.
        refusal: why the event is refused now, if it is.
    """

    line: int
    event: str
    at: float
    then: Action | None
    now: Action | None
    refusal: str | None = None

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "line": self.line,
            "event": self.event,
            "at": self.at,
            "then": write_action(self.then) if self.then is not None else None,
            "now": write_action(self.now) if self.now is not None else None,
            "refusal": self.refusal,
        }

    def __str__(self) -> str:
        where = f"line {self.line}, {self.event} at {self.at:.3f} s"
        if self.refusal is not None:
            return f"{where}: refused now: {self.refusal}"
        return f"{where}: then {self.then or 'nothing'}, now {self.now or 'nothing'}"


@dataclass(frozen=True)
class TurnTaking:
    """What came of it.

    Args:
        events: how many were replayed, up to the first difference.
        actions: how many were wanted.
        difference: the first, or None if there is none.
    """

    events: int
    actions: int
    difference: TurnDifference | None


def replay_turn_taking(recording: Recording) -> TurnTaking:
    """Give all recorded events to a machine with the recorded settings.

    Raises:
        InputError: the recording is damaged.
    """
    duplex = Duplex(recording.session.duplex)
    events = actions = 0
    for line, step in recording.steps():
        events += 1
        try:
            wanted = duplex.handle(step.event)
        except InputError as problem:
            return TurnTaking(events, actions, _difference(line, step, None, None, problem.message))
        if wanted != step.actions:
            place = _first_difference(step.actions, wanted)
            then, now = _at(step.actions, place), _at(wanted, place)
            return TurnTaking(events, actions, _difference(line, step, then, now))
        actions += len(wanted)
    return TurnTaking(events, actions, None)


def _difference(
    line: int, step: Step, then: Action | None, now: Action | None, refusal: str | None = None
) -> TurnDifference:
    return TurnDifference(line, type(step.event).__name__, step.event.at, then, now, refusal)


def _first_difference(then: tuple[Action, ...], now: tuple[Action, ...]) -> int:
    pairs = zip(then, now, strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(then), len(now)))


def _at(actions: tuple[Action, ...], place: int) -> Action | None:
    return actions[place] if place < len(actions) else None
