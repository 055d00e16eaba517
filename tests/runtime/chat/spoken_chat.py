"""A conversation with a microphone that says what a test wants said, when it wants, over a clock that it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from sottovoce.runtime.chat.parts import Parts
from sottovoce.runtime.chat.reply_sound import SPEAKER_SECONDS
from sottovoce.runtime.chat.session import ChatSession
from sottovoce.runtime.chat.transcript import TurnRecord
from sottovoce.runtime.chat.worker import ConversationWorker
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.devices import (
    CAPTURE_RATE,
    Captured,
    DeviceEvent,
    DeviceSettings,
    Levels,
    SteppedClock,
    WavSpeaker,
)
from sottovoce.runtime.duplex.settings import DuplexSettings

STEP_S = 0.01
NOISE = 1e-4


class SaidMicrophone:
    """Captures quiet noise, and what is said from now on, as a test goes along; it can be lost, and come back.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._position = 0
        self._said: list[tuple[int, np.ndarray]] = []
        self._events: list[DeviceEvent] = []
        self._random = np.random.default_rng(1)
        self.is_lost = False
        self.ended = False
        self.levels = Levels()

    def say(self, samples: np.ndarray) -> int:
        """Begin to say (n,) samples at 16 kHz now; returns at which sample of the stream."""
        start = self._now()
        self._said = [(begun, what) for begun, what in self._said if begun + len(what) > start - CAPTURE_RATE]
        self._said.append((start, samples))
        return start

    @property
    def is_silent(self) -> bool:
        """All that was to be said was captured."""
        return all(start + len(samples) <= self._position for start, samples in self._said)

    def lose(self) -> None:
        self.is_lost = True
        self._events.append(DeviceEvent("vanished", "a microphone", self._clock()))

    def come_back(self) -> None:
        self.is_lost = False
        self._events.append(DeviceEvent("reopened", "a microphone", self._clock()))

    def read(self) -> Captured:
        start, now = self._position, self._now()
        self._position = now
        if self.is_lost or now <= start:
            return Captured(np.zeros(0, np.float32), start)
        heard = self._random.normal(0, NOISE, now - start).astype(np.float32)
        for begun, samples in self._said:
            first, last = max(start, begun), min(now, begun + len(samples))
            if first < last:
                heard[first - start : last - start] += samples[first - begun : last - begun]
        return Captured(heard, start)

    def events(self) -> list[DeviceEvent]:
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> SaidMicrophone:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _now(self) -> int:
        return round((self._clock() - self._began) * CAPTURE_RATE)


class NotingSpeaker(WavSpeaker):
    """A WAV file that also knows when each reply was first written and stopped, on its clock."""

    def __init__(self, path: Path, sample_rate: int, clock: Callable[[], float]) -> None:
        super().__init__(path, sample_rate, clock, DeviceSettings(playback_seconds=SPEAKER_SECONDS))
        self.clock, self.path = clock, path
        self.written: dict[int, float] = {}
        self.stops: dict[int, float] = {}

    def write(self, epoch: int, samples: np.ndarray) -> int:
        self.written.setdefault(epoch, self.clock())
        return super().write(epoch, samples)

    def stop(self, epoch: int) -> None:
        self.stops.setdefault(epoch, self.clock())
        super().stop(epoch)


@dataclass
class Shown:
    """Everything that the audience was told."""

    lines: list[str] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    over: list[TurnRecord] = field(default_factory=list)

    def turn_ended(self, turn: TurnRecord) -> None:
        self.lines.append(f"you: {turn.typed if turn.typed is not None else 'spoken'}")

    def said(self, turn: TurnRecord, text: str) -> None:
        self.lines.append(text)
        self.texts[turn.epoch] = self.texts.get(turn.epoch, "") + text

    def reply_over(self, turn: TurnRecord) -> None:
        self.over.append(turn)

    def trouble(self, error: Exception) -> None:
        self.lines.append(f"error: {error}")

    def notice(self, text: str) -> None:
        self.lines.append(f"notice: {text}")


@dataclass
class SpokenChat:
    """A session and all that it is made of; the clock stands still while the model computes."""

    session: ChatSession
    conversation: Conversation
    worker: ConversationWorker
    microphone: SaidMicrophone
    speaker: NotingSpeaker
    shown: Shown
    clock: SteppedClock
    waits: bool = True

    def step(self, seconds: float = STEP_S) -> None:
        """Go on for so long."""
        until = self.clock() + seconds - STEP_S / 2
        while self.clock() < until:
            self.session.step()
            if self.waits:
                self.worker.wait()
            self.clock.advance(STEP_S)

    def until(self, is_so: Callable[[], bool], within: float = 60.0) -> None:
        """Go on until something is so; fails if it is not within so many seconds of the clock."""
        deadline = self.clock() + within
        while not is_so():
            assert self.clock() < deadline, f"{self.session.duplex.view}\n{self.shown.lines}"
            self.step()

    @property
    def state(self) -> str:
        return self.session.duplex.state

    def ask(self, samples: np.ndarray, within: float = 60.0) -> TurnRecord:
        """Say it, and wait for the reply's end."""
        before = len(self.shown.over)
        self.microphone.say(samples)
        self.until(lambda: len(self.shown.over) > before and self.state == "idle", within)
        return self.shown.over[-1]


@contextmanager
def spoken_chat(
    conversation: Conversation,
    sample_rate: int,
    played: Path,
    settings: DuplexSettings | None = None,
    make_worker: Callable[[Conversation], ConversationWorker] = ConversationWorker,
) -> Iterator[SpokenChat]:
    """A conversation whose replies are played into the file `played`, which is there afterwards."""
    clock, shown = SteppedClock(), Shown()
    worker = make_worker(conversation)
    try:
        with NotingSpeaker(played, sample_rate, clock) as speaker:
            microphone = SaidMicrophone(clock)
            parts = Parts(worker, microphone, speaker, shown, clock, sample_rate, settings or DuplexSettings())
            yield SpokenChat(ChatSession(parts), conversation, worker, microphone, speaker, shown, clock)
    finally:
        worker.close()


def sound_of(path: Path) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(path, dtype="float32")
    return samples, rate
