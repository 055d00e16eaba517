"""One conversation with devices: what is captured goes to turn taking, what that asks for is done, again and again.

`step` never waits: it is called every few milliseconds, or by a test whose clock stands still meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.chat.captured_sound import CapturedSound
from sottovoce.runtime.chat.transcript import TurnRecord
from sottovoce.runtime.chat.worker import ConversationWorker, Cut, Ended, Made, Message, Trouble
from sottovoce.runtime.devices.interface import CaptureDevice, PlaybackDevice
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
from sottovoce.runtime.duplex.settings import DuplexSettings
from sottovoce.runtime.duplex.voice_activity import VoiceActivity
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.reply import AudioChunk, ReplyDone, ReplyEvent, TextDelta

Samples = npt.NDArray[np.float32]
LONGEST_PATCH_SECONDS = 0.5
"""A gap in what was captured, up to this long, is taken as silence; a longer one as a microphone that was gone."""
STOP_SETTLES_SECONDS = 0.04
"""Two output buffers: how much was played of a stopped reply is known then."""


class Witness(Protocol):
    """Who keeps what happens (a recording); nothing is kept unless there is one."""

    def captured(self, samples: Samples, start: int) -> None:
        """Samples of the capture stream."""

    def handled(self, event: Event, actions: tuple[Action, ...]) -> None:
        """An event and what it led to."""

    def picture(self, name: str, file: Path) -> None:
        """A picture was shown."""

    def replied(self, epoch: int, event: ReplyEvent) -> None:
        """What the conversation gave."""


class Audience(Protocol):
    """Who is shown what happens."""

    def turn_ended(self, turn: TurnRecord) -> None:
        """The user has finished: a reply is asked for."""

    def said(self, turn: TurnRecord, text: str) -> None:
        """More of the reply's text."""

    def reply_over(self, turn: TurnRecord) -> None:
        """The reply was given, or ended."""

    def trouble(self, error: SottovoceError) -> None:
        """Something failed; the conversation goes on."""

    def notice(self, text: str) -> None:
        """Something a person should know."""


@dataclass(frozen=True)
class Parts:
    """What a session is made of; without a microphone it is typed, without a speaker read."""

    worker: ConversationWorker
    microphone: CaptureDevice | None
    speaker: PlaybackDevice | None
    audience: Audience
    clock: Callable[[], float]
    sample_rate: int
    settings: DuplexSettings
    witness: Witness | None = None


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
        self._pictures: dict[str, Path] = {}
        self._made: dict[int, list[Samples]] = {}
        self._ended = 0
        self._stopping: dict[int, float] = {}
        self._told_played: tuple[int, int] = (0, 0)
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

    def show(self, file: Path) -> None:
        """A picture for the next turn."""
        name = f"picture-{len(self._pictures) + 1}{file.suffix.lower()}"
        self._pictures[name] = file
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
        if self._parts.microphone is not None:
            self._capture(self._parts.microphone)
        for message in self._parts.worker.messages():
            self._take(message)
        if self._parts.speaker is not None:
            self._report_played(self._parts.speaker)
        self.tell(Tick(self.now))

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
            case Made(epoch, event):
                if self._parts.witness is not None:
                    self._parts.witness.replied(epoch, event)
                self._take_reply(epoch, event)
            case Ended(epoch, reason, error):
                if error is not None:
                    self._parts.audience.trouble(error)
                self._ended = epoch
                self.tell(ReplyFinished(self.now, epoch, _finish_reason(reason)))
                self._finish_sound(epoch)
                if self.duplex.view.epoch != epoch:
                    self._made.pop(epoch, None)
                if error is not None and epoch in self.turns:
                    self.turns[epoch].reason = "error"
                    self._close_turn(epoch)
            case Cut(epoch, text):
                self.turns[epoch].text, self.turns[epoch].reason = text, "cancelled"
                self._close_turn(epoch)

    def _take_reply(self, epoch: int, event: ReplyEvent) -> None:
        turn = self.turns[epoch]
        match event:
            case TextDelta(text):
                if turn.first_text_at is None:
                    turn.first_text_at = self.now
                    self.tell(ReplyStarted(self.now, epoch))
                turn.text += text
                self._parts.audience.said(turn, text)
            case AudioChunk(samples):
                self._made.setdefault(epoch, []).append(samples)
                turn.made_seconds += len(samples) / self._parts.sample_rate
                self.tell(ReplyAudio(self.now, epoch, len(samples)))
            case ReplyDone():
                turn.end(event)

    def _report_played(self, speaker: PlaybackDevice) -> None:
        for epoch, since in list(self._stopping.items()):
            if self._parts.clock() - since >= STOP_SETTLES_SECONDS:
                del self._stopping[epoch]
                self.tell(PlaybackStopped(self.now, epoch, self._played(speaker, epoch)))
        current = self.duplex.view.epoch
        if current is None or current not in self._made or current in self._stopping:
            return
        epoch, played = current, self._played(speaker, current)
        if (epoch, played) != self._told_played:
            self._told_played = (epoch, played)
            self.tell(Played(self.now, epoch, played))

    def _played(self, speaker: PlaybackDevice, epoch: int) -> int:
        total = sum(len(samples) for samples in self._made.get(epoch, ()))
        before = self._told_played[1] if self._told_played[0] == epoch else 0
        played = max(before, min(speaker.played(epoch), total))
        if epoch in self.turns:
            self.turns[epoch].played_seconds = played / self._parts.sample_rate
        return played

    # What is to be done.

    def _do(self, action: Action) -> None:
        worker, speaker = self._parts.worker, self._parts.speaker
        match action:
            case Hear(start, end):
                worker.hear(self._captured.between(start, end))
            case Prepare(epoch, pictures):
                worker.prepare(epoch, self._files(pictures))
            case Withdraw(epoch):
                worker.withdraw(epoch)
            case EndOfSpeech(epoch, start, end, reason, pictures):
                if reason == "too_long":
                    self._parts.audience.notice(f"the turn was cut after {(end - start) / CAPTURE_RATE:.0f} s")
                self._begin(TurnRecord(epoch, None, (end - start) / CAPTURE_RATE, self.now, len(pictures)))
                worker.end_of_speech(epoch, self._files(pictures))
            case Ask(epoch, text, pictures):
                self._begin(TurnRecord(epoch, text, None, self.now, len(pictures)))
                worker.ask(epoch, text, self._files(pictures))
            case CancelReply(epoch, played):
                worker.cancel(epoch, played)
                self._made.pop(epoch, None)
            case Discard(_, _, "interrupt_key" | "quit"):
                worker.discard()
            case Discard(start, end, "too_long"):
                seconds = (end - start) / CAPTURE_RATE
                self._parts.audience.notice(f"{seconds:.1f} s said after the turn was cut are not answered")
            case ReplyOver(epoch):
                self._made.pop(epoch, None)
                self._close_turn(epoch)
            case Close():
                self.closed = True
            case _ if speaker is not None:
                self._do_sound(action, speaker)

    def _do_sound(self, action: Action, speaker: PlaybackDevice) -> None:
        match action:
            case Play(epoch, start, end):
                turn = self.turns[epoch]
                if turn.first_sound_at is None:
                    turn.first_sound_at = self.now
                speaker.write(epoch, np.concatenate(self._made[epoch])[start:end])
                self._finish_sound(epoch)
            case Duck():
                speaker.duck(True)
            case Unduck():
                speaker.duck(False)
            case StopPlayback(epoch):
                speaker.stop(epoch)
                speaker.duck(False)
                self._stopping[epoch] = self._parts.clock()

    def _finish_sound(self, epoch: int) -> None:
        """Once the reply has ended and all of it was written, the speaker need not wait for more."""
        if self._parts.speaker is not None and epoch == self._ended and epoch in self._made:
            self._parts.speaker.finish(epoch)

    def _close_turn(self, epoch: int) -> None:
        turn = self.turns[epoch]
        if not turn.is_over:
            turn.is_over = True
            self._parts.audience.reply_over(turn)

    def _begin(self, turn: TurnRecord) -> None:
        self.turns[turn.epoch] = turn
        self._parts.audience.turn_ended(turn)

    def _files(self, pictures: tuple[str, ...]) -> list[Path]:
        return [self._pictures[name] for name in pictures]


def _finish_reason(reason: str) -> FinishReason:
    reasons: tuple[FinishReason, ...] = ("stop", "length", "cancelled", "not_addressed", "error")
    return next((known for known in reasons if known == reason), "error")
