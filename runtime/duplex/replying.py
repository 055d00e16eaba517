"""The reply's side: one reply at a time, and how much of it was made, given to the speaker, and really played."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sottovoce.runtime.duplex.actions import Action, CancelReply, Duck, Play, StopPlayback, Unduck, Withdraw
from sottovoce.runtime.duplex.events import (
    FinishReason,
    PlaybackStopped,
    Played,
    ReplyAudio,
    ReplyFinished,
    ReplyStarted,
)
from sottovoce.runtime.duplex.settings import DuplexSettings
from sottovoce.runtime.errors import InputError


@dataclass
class Reply:
    """A reply that was asked for.

    Args:
        epoch: its number.
        since: when its playing last went on, in seconds.
        pictures: those that its question came with.
        is_prepared: begun in a pause, while the user's turn may go on: nothing of it is to be heard.
        is_silent: there is no speaker; what it would have said is only shown.
        has_started: its question was understood.
        made: samples that were computed.
        given: samples that were given to the speaker.
        played: samples that left it.
        finished: why nothing more comes, or None while something may.
        is_ducked: played softly.
        stopping_since: when it was stopped.
        has_stopped: the speaker has answered.
    """

    epoch: int
    since: float
    pictures: tuple[str, ...] = ()
    is_prepared: bool = False
    is_silent: bool = False
    has_started: bool = False
    made: int = 0
    given: int = 0
    played: int = 0
    finished: FinishReason | None = None
    is_ducked: bool = False
    stopping_since: float | None = None
    has_stopped: bool = False

    @property
    def is_stopping(self) -> bool:
        """Whether the user has taken the turn."""
        return self.stopping_since is not None

    @property
    def is_over(self) -> bool:
        """Whether it was given to its end."""
        if self.finished is None or self.is_prepared or self.is_stopping:
            return False
        return self.is_silent or self.played == self.made

    def report_played(self, total: int, now: float) -> None:
        """`total` samples have left the speaker by now.

        Raises:
            InputError: fewer than before, or more than it was given.
        """
        if not self.played <= total <= self.given:
            message = f"{total} samples of reply {self.epoch} were played, expected {self.played} to {self.given}"
            raise InputError(message, fix="report the reply's samples that left the speaker, all together")
        if total > self.played:
            self.since = now
        self.played = total


class Replying:
    """The reply that is prepared or given, and the one before it while it is still ending.

    Args:
        settings: how long the speaker may take.
    """

    def __init__(self, settings: DuplexSettings) -> None:
        self._stop_report, self._stall = settings.stop_report_ms / 1000, settings.stall_ms / 1000
        self._epoch = 0
        self._ending: Reply | None = None
        self.current: Reply | None = None
        self._last_sounded = -math.inf
        self.has_speaker = True

    @property
    def can_begin(self) -> bool:
        """Whether another reply may be asked for."""
        return self.current is None and self._ending is None

    @property
    def given(self) -> Reply | None:
        """The reply that the user waits for or hears; None also while one is only prepared."""
        return self.current if self.current is not None and not self.current.is_prepared else None

    @property
    def prepared(self) -> Reply | None:
        """The reply that was begun silently."""
        return self.current if self.current is not None and self.current.is_prepared else None

    def has_sounded(self, at: float, tail: float) -> bool:
        """Whether the reply is being heard, or one was up to `tail` seconds before `at`."""
        return (self.current is not None and self.current.given > 0) or at - self._last_sounded < tail

    def begin(self, now: float, pictures: tuple[str, ...], *, is_prepared: bool = False) -> int:
        """Note that a reply is asked for; returns its epoch. `can_begin` must hold."""
        if not self.can_begin:
            raise RuntimeError("a second reply")
        self._epoch += 1
        self.current = Reply(self._epoch, now, pictures, is_prepared, is_silent=not self.has_speaker)
        return self._epoch

    def note(self, event: ReplyStarted | ReplyAudio | Played | PlaybackStopped, now: float) -> None:
        """Note how the reply goes on; of another than the current one, nothing counts.

        Raises:
            InputError: it contradicts what was told before.
        """
        reply = self.current
        if reply is None or event.epoch != reply.epoch:
            return
        match event:
            case ReplyStarted():
                reply.has_started = True
            case ReplyAudio():
                if reply.finished is not None:
                    raise InputError(f"{event.samples} samples of reply {reply.epoch} after its end")
                reply.made += event.samples
            case Played():
                reply.report_played(event.samples, now)
            case PlaybackStopped():
                reply.report_played(event.samples, now)
                reply.has_stopped = reply.is_stopping

    def finish(self, event: ReplyFinished, now: float) -> tuple[str, ...]:
        """Nothing more comes of a reply; returns the pictures of a cancelled one that was not meant for us."""
        reply, ending = self.current, self._ending
        if reply is not None and event.epoch == reply.epoch and reply.finished is None:
            reply.finished, reply.since = event.reason, now
        if ending is None or event.epoch != ending.epoch:
            return ()
        self._ending = None
        return ending.pictures if event.reason == "not_addressed" else ()

    def take_back_pictures(self) -> tuple[str, ...]:
        """The pictures of a reply that turned out not to be wanted: as if nothing had been said, they are still new."""
        reply = self.given
        if reply is None or reply.finished != "not_addressed":
            return ()
        taken, reply.pictures = reply.pictures, ()
        return taken

    def confirm(self, reply: Reply, now: float) -> None:
        """The turn that it was prepared for is over: it is to be heard."""
        reply.is_prepared, reply.since, reply.is_silent = False, now, not self.has_speaker

    def withdraw(self, reply: Reply, now: float) -> tuple[Action, ...]:
        """The turn that it was prepared for goes on."""
        self._leave(reply, now)
        reply.pictures = ()
        return (Withdraw(reply.epoch),)

    def stop(self, reply: Reply, now: float) -> tuple[Action, ...]:
        """The user takes the turn."""
        if reply.is_stopping:
            return ()
        reply.stopping_since = now
        if not reply.given or not self.has_speaker:
            return self.cancel_stopped(now)
        return (StopPlayback(reply.epoch), *self.cancel_stopped(now))

    def cancel_stopped(self, now: float) -> tuple[Action, ...]:
        """End the reply that was stopped, once it is known what was played of it."""
        reply = self.current
        if reply is None or reply.stopping_since is None:
            return ()
        is_known = reply.has_stopped or reply.played == reply.given or not self.has_speaker
        if not is_known and now - reply.stopping_since < self._stop_report:
            return ()
        self._leave(reply, now)
        return (CancelReply(reply.epoch, None if reply.is_silent else reply.played),)

    def stop_stalled(self, now: float) -> tuple[Action, ...]:
        """Give up a finished reply that the speaker does not play."""
        reply = self.given
        if reply is None or reply.finished is None or reply.is_over or now - reply.since < self._stall:
            return ()
        return self.stop(reply, now)

    def end(self, now: float) -> Reply | None:
        """Close the reply if it was given to its end, and return it."""
        reply = self.current
        if reply is None or not reply.is_over:
            return None
        self._leave(reply, now)
        return reply

    def play(self) -> tuple[Action, ...]:
        """Give the speaker what was made."""
        reply = self.given
        if reply is None or reply.is_silent or reply.is_stopping or reply.given == reply.made:
            return ()
        start, reply.given = reply.given, reply.made
        return (Play(reply.epoch, start, reply.made),)

    def change_volume(self, is_spoken_over: bool) -> tuple[Action, ...]:
        """Lower the volume of the reply while somebody speaks over it."""
        reply = self.given
        if reply is None or not reply.given or reply.is_stopping or reply.is_ducked == is_spoken_over:
            return ()
        reply.is_ducked = is_spoken_over
        return (Duck(reply.epoch) if is_spoken_over else Unduck(reply.epoch),)

    def lose_speaker(self, now: float) -> tuple[Action, ...]:
        """The speaker is gone: a reply that was heard ends, one that was not goes on unheard."""
        self.has_speaker = False
        reply = self.current
        if reply is None:
            return ()
        if reply.given:
            return self.cancel_stopped(now) if reply.is_stopping else self.stop(reply, now)
        reply.is_silent = True
        return ()

    def _leave(self, reply: Reply, now: float) -> None:
        self.current = None
        self._last_sounded = now if reply.given else self._last_sounded
        self._ending = reply if reply.finished is None else None
