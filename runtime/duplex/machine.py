"""Whose turn it is: `Duplex` takes events one by one and says what to do about each.

What happened is noted first; then one step after the other is taken that has become due, until none is. A step is due
by what is known, not by which event told it, so that no order of events is forgotten: a turn that ended while the
last reply was still being cancelled is over as soon as it can be.

One reply at a time: another is asked for (`Prepare`, `EndOfSpeech`, `Ask`) only after the last one's `ReplyFinished`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from sottovoce.runtime.duplex.actions import (
    Action,
    Ask,
    Close,
    Discard,
    DiscardReason,
    EndOfSpeech,
    Hear,
    Prepare,
    ReplyOver,
)
from sottovoce.runtime.duplex.events import (
    CAPTURE_RATE,
    WINDOW_SAMPLES,
    DeviceLost,
    DeviceReturned,
    Event,
    InterruptKey,
    Picture,
    PlaybackStopped,
    Played,
    Quit,
    ReplyAudio,
    ReplyFinished,
    ReplyStarted,
    Tick,
    TypedLine,
    VoiceWindow,
)
from sottovoce.runtime.duplex.listening import Heard, Listening
from sottovoce.runtime.duplex.replying import Replying
from sottovoce.runtime.duplex.settings import DuplexSettings, samples
from sottovoce.runtime.duplex.view import DuplexView, State, look

Actions = tuple[Action, ...]


class Duplex:
    """Turn taking between one user and one assistant.

    Args:
        settings: when a pause is an end, and a sound an interruption.
    """

    def __init__(self, settings: DuplexSettings | None = None) -> None:
        self._settings = settings or DuplexSettings()
        self._onset = samples(self._settings.onset_ms)
        self._interruption = samples(self._settings.interruption_ms)
        self._listening = Listening(self._settings)
        self._replying = Replying(self._settings)
        self._lines: deque[str] = deque()
        self._pictures: list[str] = []
        self._now = 0.0
        self._quits = self._closed = False
        self._steps = (
            self._cancel_stopped,
            self._end_reply,
            self._stop_for_user,
            self._close,
            self._hear,
            self._withdraw_for_picture,
            self._end_speech,
            self._ask,
            self._prepare,
            self._play,
            self._change_volume,
        )

    @property
    def settings(self) -> DuplexSettings:
        """As given, or the defaults."""
        return self._settings

    @property
    def state(self) -> State:
        """What is going on, in one word."""
        return self.view.state

    @property
    def view(self) -> DuplexView:
        """What a display and the keeper of the captured samples need, as it is now."""
        pictures, lines = tuple(self._pictures), tuple(self._lines)
        seen = look(self._listening, self._replying, pictures, lines, is_deaf=self._is_deaf(self._now))
        return replace(seen, state="closed") if self._closed else seen

    @property
    def needed_from(self) -> int:
        """The oldest captured sample that `Hear` may still ask for; older ones need not be kept."""
        return self._listening.needed_from

    def handle(self, event: Event) -> Actions:
        """Take the next event; one that is stamped earlier than the one before it counts as happening with that.

        Returns:
            What to do, in this order.

        Raises:
            InputError: it contradicts what was told before: a window out of order, samples played that were not given.
        """
        if self._closed:
            return ()
        self._now = max(self._now, event.at)
        actions = list(self._note(event))
        while due := self._next():
            actions += due
        return tuple(actions)

    def _note(self, event: Event) -> Actions:
        match event:
            case ReplyStarted() | ReplyAudio() | Played() | PlaybackStopped():
                self._replying.note(event, self._now)
            case ReplyFinished():
                self._pictures[:0] = self._replying.finish(event, self._now)
            case DeviceLost(device="speaker"):
                return self._replying.lose_speaker(self._now)
            case DeviceReturned(device="speaker"):
                self._replying.has_speaker = True
            case Tick():
                pass
            case _ if not self._quits:
                return self._note_user(event)
        return ()

    def _note_user(self, event: Event) -> Actions:
        match event:
            case VoiceWindow():
                return self._note_window(event)
            case TypedLine():
                self._note_line(event.text)
            case Picture():
                self._pictures.append(event.name)
            case DeviceLost():
                return self._note_heard(self._listening.lose())
            case DeviceReturned():
                self._listening.regain()
            case InterruptKey():
                return self._interrupt("interrupt_key")
            case Quit():
                self._quits = True
                return self._interrupt("quit")
        return ()

    def _note_window(self, window: VoiceWindow) -> Actions:
        if not self._listening.present:
            return ()
        began = window.at - WINDOW_SAMPLES / CAPTURE_RATE
        return self._note_heard(self._listening.take(window, self._enough(), self._is_deaf(began)))

    def _note_heard(self, heard: Heard) -> Actions:
        actions = list(self._withdraw() if heard.resumed else ())
        if heard.dropped is not None and heard.dropped.voiced >= self._onset:
            actions.append(Discard(heard.dropped.start, heard.dropped.last_voice, "too_short"))
        if heard.run_on is not None:
            actions.append(Discard(*heard.run_on, "too_long"))
        return tuple(actions)

    def _note_line(self, text: str) -> None:
        if not text.strip():
            return
        self._lines.append(text)
        turn = self._listening.turn
        if turn is not None and turn.must_end is None:
            turn.must_end = "typed"

    def _interrupt(self, reason: DiscardReason) -> Actions:
        """Stop everything."""
        actions = self._withdraw()
        start = self._listening.drop_all()
        if start is not None:
            actions += (Discard(start, self._listening.position, reason),)
        self._lines.clear()
        return actions + self._stop()

    def _next(self) -> Actions:
        """The first step that is due."""
        self._listening.confirm(self._enough())
        self._pictures[:0] = self._replying.take_back_pictures()
        for step in self._steps:
            if actions := step():
                return actions
        return ()

    # The steps, in the order in which they are taken.

    def _cancel_stopped(self) -> Actions:
        return self._replying.cancel_stopped(self._now) or self._replying.stop_stalled(self._now)

    def _end_reply(self) -> Actions:
        reply = self._replying.end(self._now)
        if reply is None or reply.finished is None:
            return ()
        return (ReplyOver(reply.epoch, reply.finished, reply.played),)

    def _stop_for_user(self) -> Actions:
        return self._stop() if self._listening.turn is not None or self._lines or self._quits else ()

    def _close(self) -> Actions:
        if not self._quits or self._replying.current is not None:
            return ()
        self._quits, self._closed = False, True
        return (Close(),)

    def _hear(self) -> Actions:
        """Hand over what belongs to the turn, once neither a reply nor an earlier typed line is in its way."""
        turn, end = self._listening.turn, self._listening.turn_end
        if turn is None or turn.handed == end or self._replying.given is not None or not self._is_first():
            return ()
        start, turn.handed = turn.handed, end
        return (Hear(start, end),)

    def _withdraw_for_picture(self) -> Actions:
        return self._withdraw() if self._pictures else ()

    def _end_speech(self) -> Actions:
        turn, end, reason = self._listening.turn, self._listening.turn_end, self._listening.has_ended
        prepared = self._replying.prepared
        if (
            turn is None
            or reason is None
            or not self._is_first()
            or (prepared is None and not self._replying.can_begin)
        ):
            return ()
        start, heard = turn.start, self._listening.end_turn()
        if prepared is not None:
            self._replying.confirm(prepared, self._now)
            epoch, pictures = prepared.epoch, prepared.pictures
        else:
            pictures = self._take_pictures()
            epoch = self._replying.begin(self._now, pictures)
        return (EndOfSpeech(epoch, start, end, reason, pictures), *self._note_heard(heard))

    def _ask(self) -> Actions:
        if not self._lines or not self._replying.can_begin:
            return ()
        text, pictures = self._lines.popleft(), self._take_pictures()
        return (Ask(self._replying.begin(self._now, pictures), text, pictures),)

    def _prepare(self) -> Actions:
        turn = self._listening.turn
        if turn is None or turn.resumed or not self._listening.is_paused or not self._replying.can_begin:
            return ()
        pictures = self._take_pictures()
        return (Prepare(self._replying.begin(self._now, pictures, is_prepared=True), pictures),)

    def _play(self) -> Actions:
        return self._replying.play()

    def _change_volume(self) -> Actions:
        if not self._settings.duck:
            return ()
        candidate = self._listening.candidate
        return self._replying.change_volume(candidate.voiced >= self._onset if candidate is not None else False)

    # What the steps are made of.

    def _stop(self) -> Actions:
        reply = self._replying.given
        return self._replying.stop(reply, self._now) if reply is not None else ()

    def _withdraw(self) -> Actions:
        """Take back the prepared reply, if there is one; its pictures are for the next."""
        reply = self._replying.prepared
        if reply is None:
            return ()
        self._pictures[:0] = reply.pictures
        return self._replying.withdraw(reply, self._now)

    def _take_pictures(self) -> tuple[str, ...]:
        taken = tuple(self._pictures)
        self._pictures.clear()
        return taken

    def _is_first(self) -> bool:
        """Whether the user's turn comes before the typed lines that wait."""
        turn = self._listening.turn
        return not self._lines or (turn is not None and turn.must_end is not None)

    def _enough(self) -> int:
        """Voiced samples that make a turn now."""
        return self._onset if self._replying.given is None else self._interruption

    def _is_deaf(self, at: float) -> bool:
        tail = self._settings.echo_tail_ms / 1000
        return self._settings.half_duplex and self._replying.has_sounded(at, tail)
