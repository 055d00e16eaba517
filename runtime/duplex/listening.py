"""The user's side: from windows of voice activity to speech that may become a turn, and the turn that it is.

Everything is counted in samples of the capture stream, so that it does not matter when a window is delivered.
"""

from __future__ import annotations

from dataclasses import dataclass

from sottovoce.runtime.duplex.actions import EndReason
from sottovoce.runtime.duplex.events import WINDOW_SAMPLES, VoiceWindow
from sottovoce.runtime.duplex.settings import DuplexSettings, samples
from sottovoce.runtime.errors import InputError


@dataclass
class Candidate:
    """Speech of which it is not known yet whether it is a turn.

    Args:
        start: first sample of its turn, pre-roll included.
        last_voice: end of its last voiced window.
        voiced: samples in voiced windows so far.
    """

    start: int
    last_voice: int
    voiced: int = WINDOW_SAMPLES


@dataclass
class UserTurn:
    """The turn the user has.

    Args:
        start: its first sample.
        limit: where it is cut at the latest.
        last_voice: end of its last voiced window.
        handed: everything before this sample was handed over.
        resumed: voiced samples in a row since its pause, not yet enough to end it.
        must_end: why it is to end even without a pause.
    """

    start: int
    limit: int
    last_voice: int
    handed: int
    resumed: int = 0
    must_end: EndReason | None = None


@dataclass(frozen=True)
class Heard:
    """What one window changed, if it did.

    Args:
        resumed: the user goes on after the pause in which the reply may have been prepared.
        dropped: speech that never became a turn.
        run_on: the samples said without a pause after a turn was cut.
    """

    resumed: bool = False
    dropped: Candidate | None = None
    run_on: tuple[int, int] | None = None


NOTHING = Heard()


class Listening:
    """Position in the capture stream, and what of it is the user's.

    Args:
        settings: how long is long enough.
    """

    def __init__(self, settings: DuplexSettings) -> None:
        self._settings = settings
        lag = samples(settings.detector_lag_ms)
        self._prepare, self._end = samples(settings.prepare_ms) - lag, samples(settings.end_ms) - lag
        self._resume, self._preroll = samples(settings.resume_ms), samples(settings.preroll_ms)
        self.position = 0
        """End of the last window."""
        self.present = True
        """Whether there is a microphone."""
        self.candidate: Candidate | None = None
        self.turn: UserTurn | None = None
        self._floor = 0  # samples before it belong to something else
        self._voiced = False
        self._may_skip = True  # the stream may go on at a later sample
        self._run_on: int | None = None  # where the turn was cut that the user has not stopped saying

    @property
    def silence(self) -> int:
        """Samples since the last voiced window of the turn; 0 without one."""
        return self.position - self.turn.last_voice if self.turn is not None else 0

    @property
    def is_paused(self) -> bool:
        """Whether the turn is in a pause long enough to prepare the reply."""
        return self.turn is not None and self.silence >= self._prepare

    @property
    def has_ended(self) -> EndReason | None:
        """Why the turn is over, or None while it goes on."""
        turn = self.turn
        if turn is None or turn.must_end is not None:
            return turn.must_end if turn is not None else None
        if self.turn_end == turn.limit and not self.is_paused:
            return "too_long"
        return "pause" if self.silence >= self._end and not turn.resumed else None

    @property
    def turn_end(self) -> int:
        """Where the turn ends if nothing more is said; of its last pause, only the beginning belongs to it."""
        turn = self.turn
        return min(self.position, turn.last_voice + self._prepare, turn.limit) if turn is not None else self._floor

    @property
    def needed_from(self) -> int:
        """The oldest captured sample that may still be handed over."""
        if self.turn is not None:
            return self.turn.handed
        if self.candidate is not None:
            return self.candidate.start
        return max(self._floor, self.position - self._preroll)

    def take(self, window: VoiceWindow, enough: int, is_deaf: bool) -> Heard:
        """Take the next window.

        Args:
            window: which one, and how likely it is speech.
            enough: voiced samples that make a turn now.
            is_deaf: whether it is to be ignored: what it holds is nobody's.

        Raises:
            InputError: it does not follow the last one.
        """
        self._move_to(window)
        if is_deaf:
            return self._drop()
        threshold = self._settings.release_threshold if self._voiced else self._settings.threshold
        self._voiced = window.probability >= threshold
        if self._run_on is not None:
            return self._wait_for_pause(self._run_on)
        if self.turn is not None:
            return Heard(resumed=self._continue(self.turn))
        return self._listen_for_turn(enough)

    def end_turn(self) -> Heard:
        """Close the turn; what comes next is another. What was said behind its limit is nobody's, to its next pause."""
        turn, self._floor = self.turn, self.turn_end
        self.turn = None
        if turn is None or turn.last_voice <= turn.limit:
            return NOTHING
        self._floor = turn.last_voice
        if self.present and self.position - turn.last_voice < self._prepare:
            self._run_on = turn.limit
            return NOTHING
        return Heard(run_on=(turn.limit, turn.last_voice))

    def drop_all(self) -> int | None:
        """Forget all that was said up to now; returns where that began, or None if nothing was."""
        starts = [part.start for part in (self.turn, self.candidate) if part is not None]
        starts += [self._run_on] if self._run_on is not None else []
        self.turn = None
        self._drop()
        return min(starts, default=None)

    def lose(self) -> Heard:
        """The microphone is gone: a turn ends with it, a candidate was nothing."""
        self.present = False
        if self.turn is None:
            return self._drop()
        self._voiced = False
        self.turn.must_end = self.turn.must_end or "device_lost"
        return NOTHING

    def regain(self) -> None:
        """The microphone is back."""
        self.present, self._may_skip = True, True

    def confirm(self, enough: int) -> bool:
        """Make the candidate a turn when it has `enough` voiced samples; returns whether it has just become one."""
        candidate = self.candidate
        if candidate is None or candidate.voiced < enough or self.turn is not None:
            return False
        limit = candidate.start + samples(self._settings.max_turn_ms)
        self.turn = UserTurn(candidate.start, limit, candidate.last_voice, candidate.start)
        self.candidate = None
        return True

    def _drop(self) -> Heard:
        """Whatever was being said is nobody's."""
        run_on = (self._run_on, self._floor) if self._run_on is not None and self._floor > self._run_on else None
        dropped, self.candidate, self._run_on = self.candidate, None, None
        self._floor, self._voiced = self.position, False
        return Heard(dropped=dropped, run_on=run_on)

    def _move_to(self, window: VoiceWindow) -> None:
        start = window.end_sample - WINDOW_SAMPLES
        if start < self.position or (start > self.position and not self._may_skip):
            message = f"a window of the samples {start} to {window.end_sample} after sample {self.position}"
            raise InputError(message, fix="give every window once, in order; tell of a lost microphone before a gap")
        if start > self.position:
            self._floor = start
        self.position, self._may_skip = window.end_sample, False

    def _continue(self, turn: UserTurn) -> bool:
        """One more window of the turn; returns whether it ended a pause."""
        was_paused = self.position - WINDOW_SAMPLES - turn.last_voice >= self._prepare
        if not self._voiced:
            turn.resumed = 0
            return False
        turn.resumed = turn.resumed + WINDOW_SAMPLES if was_paused else 0
        if was_paused and turn.resumed < self._resume:
            return False
        turn.last_voice, turn.resumed = self.position, 0
        return was_paused

    def _listen_for_turn(self, enough: int) -> Heard:
        candidate = self.candidate
        if self._voiced and candidate is None:
            start = max(self._floor, self.position - WINDOW_SAMPLES - self._preroll)
            self.candidate = Candidate(start, self.position)
        elif self._voiced and candidate is not None:
            candidate.voiced += WINDOW_SAMPLES
            candidate.last_voice = self.position
        elif candidate is not None and self.position - candidate.last_voice >= self._prepare:
            self.candidate = None
            if candidate.voiced >= samples(self._settings.onset_ms):
                self._floor = candidate.last_voice  # it was said that it is nobody's
            return Heard(dropped=candidate)
        self.confirm(enough)
        return NOTHING

    def _wait_for_pause(self, cut: int) -> Heard:
        if self._voiced:
            self._floor = self.position
            return NOTHING
        if self.position - self._floor < self._prepare:
            return NOTHING
        self._run_on = None
        said = (cut, self._floor)
        return Heard(run_on=said) if said[1] > said[0] else NOTHING
