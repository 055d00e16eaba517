"""One conversation with devices: what is captured goes to turn taking, what that asks for is done, again and again.

`step` never waits: it is called every few milliseconds, or by a test whose clock stands still meanwhile.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sottovoce.runtime.chat.captured_sound import CapturedSound
from sottovoce.runtime.chat.parts import Parts
from sottovoce.runtime.chat.pictures import ShownPictures
from sottovoce.runtime.chat.reply_sound import ReplySound
from sottovoce.runtime.chat.transcript import TurnRecord
from sottovoce.runtime.chat.worker import Cut, Ended, Made, Message, Trouble, Uncaptured
from sottovoce.runtime.devices.interface import CaptureDevice
from sottovoce.runtime.duplex.actions import (
    Action,
    Ask,
    CancelReply,
    Close,
    Discard,
    Duck,
    EndOfSpeech,
    Hear,
    Play,
    Prepare,
    ReplyOver,
    StopPlayback,
    Unduck,
    Withdraw,
)
from sottovoce.runtime.duplex.events import (
    CAPTURE_RATE,
    DeviceLost,
    DeviceReturned,
    Event,
    FinishReason,
    Picture,
    PlaybackStopped,
    Played,
    ReplyAudio,
    ReplyFinished,
    ReplyStarted,
    Tick,
)
from sottovoce.runtime.duplex.machine import Duplex
from sottovoce.runtime.duplex.voice_activity import VoiceActivity
from sottovoce.runtime.reply import AudioChunk, ReplyDone, ReplyEvent, TextDelta

LONGEST_PATCH_SECONDS = 0.5
"""A gap in what was captured, up to this long, is taken as silence; a longer one as a microphone that was gone."""
ENDING_SECONDS = 5.0
"""How long the conversation's end waits for what is still being computed."""


class ChatSession:
    """Runs until it is `closed`.

    Args:
        parts: devices, model and people.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._began = parts.clock()
        self.duplex = Duplex(parts.settings)
        self._activity = VoiceActivity() if parts.microphone is not None else None
        self._captured = CapturedSound()
        self._is_lost = False
        self._pictures = ShownPictures()
        self._sound: ReplySound | None = None
        if parts.speaker is not None:
            self._sound = ReplySound(parts.speaker, parts.sample_rate, parts.clock)
        self.turns: dict[int, TurnRecord] = {}
        """Every turn so far, by its reply's epoch."""
        self.closed = False
        if parts.speaker is None:
            self.tell(DeviceLost(0.0, "speaker"))
        if parts.microphone is None:
            self.tell(DeviceLost(0.0, "microphone"))

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return max(0.0, self._parts.clock() - self._began)

    def show(self, file: Path, *, from_camera: bool = False) -> None:
        """A picture for the next turn; of a camera, the newest one alone."""
        name = self._pictures.add(file, from_camera=from_camera)
        if self._parts.witness is not None:
            self._parts.witness.picture(name, file)
        self.tell(Picture(self.now, name))

    def tell(self, event: Event) -> None:
        """Something happened: do what follows from it."""
        actions = self.duplex.handle(event)
        if self._parts.witness is not None:
            self._parts.witness.handled(event, actions)
        for action in actions:
            self._do(action)

    def step(self) -> None:
        """Take what the devices and the model have come to since the last call."""
        self._watch_devices()
        if self._sound is not None:
            # Before what was captured: it is from before now, and a reply that it stops was heard until now, also where
            # this was called late.
            self._report_played(self._sound)
        if self._parts.microphone is not None:
            self._capture(self._parts.microphone)
        for message in self._parts.worker.messages():
            self._take(message)
        self.tell(Tick(self.now))

    def end(self) -> None:
        """After it has closed: what still comes of the last reply, so that the turns tell what was heard of it."""
        self._parts.worker.wait(ENDING_SECONDS)
        for message in self._parts.worker.messages():
            self._take(message)

    # What comes in.

    def _capture(self, microphone: CaptureDevice) -> None:
        captured = microphone.read()
        if not len(captured.samples) or self._activity is None:
            return
        if self._is_lost or captured.start - self._captured.end > LONGEST_PATCH_SECONDS * CAPTURE_RATE:
            if not self._is_lost:
                self._parts.audience.notice("sound from the microphone was lost")
                self.tell(DeviceLost(self.now, "microphone"))
            self._is_lost = False
            self._captured.skip_to(captured.start)
            self._activity.reset(captured.start)
            self.tell(DeviceReturned(self.now, "microphone"))
        lost = np.zeros(max(0, captured.start - self._captured.end), dtype=np.float32)
        samples = np.clip(np.concatenate([lost, captured.samples]), -1.0, 1.0)
        if self._parts.witness is not None:
            self._parts.witness.captured(samples, self._captured.end)
        self._captured.append(samples)
        for window in self._activity.append(samples, self.now):
            self.tell(window)
        self._captured.forget_before(self.duplex.needed_from)

    def _watch_devices(self) -> None:
        for name, device in (("microphone", self._parts.microphone), ("speaker", self._parts.speaker)):
            for event in device.events() if device is not None else ():
                what = f"the {name} {event.device!r} {event.kind.replace('_', ' ')} {event.detail}"
                self._parts.audience.notice(what.strip())
                if name == "microphone":
                    if event.kind == "vanished" and not self._is_lost:
                        self._is_lost = True  # its return is told with the first samples that come again
                        self.tell(DeviceLost(self.now, "microphone"))
                elif event.kind == "vanished":
                    self.tell(DeviceLost(self.now, "speaker"))
                elif event.kind == "reopened":
                    self.tell(DeviceReturned(self.now, "speaker"))

    def _take(self, message: Message) -> None:
        match message:
            case Trouble(error):
                self._parts.audience.trouble(error)
            case Uncaptured(reason):
                self._parts.audience.notice(f"not captured: {reason}")
            case Made(epoch, event, made_at):
                if self._parts.witness is not None:
                    self._parts.witness.replied(epoch, event)
                self._take_reply(epoch, event, made_at)
            case Ended(epoch, reason, error):
                if error is not None:
                    self._parts.audience.trouble(error)
                self.tell(ReplyFinished(self.now, epoch, _finish_reason(reason)))
                if self._sound is not None:
                    self._sound.ended(epoch)
                    if self.duplex.view.epoch != epoch:
                        self._sound.forget(epoch)
                if error is not None and epoch in self.turns:
                    self.turns[epoch].reason = "error"
                    self._close_turn(epoch)
            case Cut(epoch, text):
                self.turns[epoch].text, self.turns[epoch].reason = text, "cancelled"
                self._close_turn(epoch)

    def _take_reply(self, epoch: int, event: ReplyEvent, made_at: float) -> None:
        turn = self.turns[epoch]
        match event:
            case TextDelta(text):
                if turn.first_text_at is None:
                    turn.first_text_at = self.now
                    if self._sound is None:
                        turn.first_computed_at = made_at
                    self.tell(ReplyStarted(self.now, epoch))
                turn.text += text
                self._parts.audience.said(turn, text)
            case AudioChunk(samples):
                if turn.first_computed_at is None:
                    turn.first_computed_at = made_at
                turn.made_seconds += len(samples) / self._parts.sample_rate
                if self._sound is not None:
                    self._sound.made(epoch, samples)
                self.tell(ReplyAudio(self.now, epoch, len(samples)))
            case ReplyDone():
                turn.end(event)

    def _report_played(self, sound: ReplySound) -> None:
        sound.feed()
        for epoch, played in sound.stopped():
            self._note_played(epoch, played)
            self.tell(PlaybackStopped(self.now, epoch, played))
        current = self.duplex.view.epoch
        heard = sound.played(current) if current is not None else None
        if current is not None and heard is not None:
            self._note_played(current, heard)
            self.tell(Played(self.now, current, heard))

    def _note_played(self, epoch: int, played: int) -> None:
        if epoch in self.turns:
            self.turns[epoch].played_seconds = played / self._parts.sample_rate

    # What is to be done.

    def _do(self, action: Action) -> None:
        worker = self._parts.worker
        match action:
            case Hear(start, end):
                worker.hear(self._captured.between(start, end))
            case Prepare(epoch, pictures):
                worker.prepare(epoch, self._pictures.files(pictures))
            case Withdraw(epoch):
                worker.withdraw(epoch)
            case EndOfSpeech(epoch, start, end, reason, pictures):
                if reason == "too_long":
                    self._parts.audience.notice(f"the turn was cut after {(end - start) / CAPTURE_RATE:.0f} s")
                self._begin(TurnRecord(epoch, None, (end - start) / CAPTURE_RATE, self.now, len(pictures)))
                worker.end_of_speech(epoch, self._pictures.files(pictures))
            case Ask(epoch, text, pictures):
                self._begin(TurnRecord(epoch, text, None, self.now, len(pictures)))
                worker.ask(epoch, text, self._pictures.files(pictures))
            case CancelReply(epoch, played):
                worker.cancel(epoch, played)
                self._forget_sound(epoch)
            case Discard(_, _, "interrupt_key" | "quit"):
                worker.discard()
            case Discard(start, end, "too_long"):
                seconds = (end - start) / CAPTURE_RATE
                self._parts.audience.notice(f"{seconds:.1f} s said after the turn was cut are not answered")
            case ReplyOver(epoch):
                self._forget_sound(epoch)
                self._close_turn(epoch)
            case Close():
                self.closed = True
            case _ if self._sound is not None:
                self._do_sound(action, self._sound)

    def _do_sound(self, action: Action, sound: ReplySound) -> None:
        match action:
            case Play(epoch, start, end):
                turn = self.turns[epoch]
                if turn.first_sound_at is None:
                    turn.first_sound_at = self.now
                sound.play(epoch, start, end)
            case Duck():
                sound.duck(True)
            case Unduck():
                sound.duck(False)
            case StopPlayback(epoch):
                sound.stop(epoch)

    def _forget_sound(self, epoch: int) -> None:
        if self._sound is not None:
            self._sound.forget(epoch)

    def _close_turn(self, epoch: int) -> None:
        turn = self.turns[epoch]
        if not turn.is_over:
            turn.is_over = True
            self._parts.audience.reply_over(turn)

    def _begin(self, turn: TurnRecord) -> None:
        self.turns[turn.epoch] = turn
        self._parts.audience.turn_ended(turn)


def _finish_reason(reason: str) -> FinishReason:
    reasons: tuple[FinishReason, ...] = ("stop", "length", "cancelled", "not_addressed", "error")
    return next((known for known in reasons if known == reason), "error")
