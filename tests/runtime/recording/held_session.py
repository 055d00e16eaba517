"""A conversation on a small bundle, held and recorded by a script: what is said, typed and shown, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from short_bundle import shortened

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.duplex.actions import (
    Action,
    Ask,
    CancelReply,
    Discard,
    EndOfSpeech,
    Hear,
    Play,
    Prepare,
    StopPlayback,
    Withdraw,
)
from sottovoce.runtime.duplex.events import (
    CAPTURE_RATE,
    WINDOW_SAMPLES,
    Event,
    InterruptKey,
    Picture,
    PlaybackStopped,
    Played,
    Quit,
    ReplyAudio,
    ReplyFinished,
    ReplyStarted,
    TypedLine,
    VoiceWindow,
)
from sottovoce.runtime.duplex.machine import Duplex
from sottovoce.runtime.duplex.settings import DuplexSettings
from sottovoce.runtime.model import Model
from sottovoce.runtime.recording.recorder import Recorder
from sottovoce.runtime.recording.session import RecordedSession, session_about
from sottovoce.runtime.reply import AudioChunk, ReplyDone, ReplyEvent, TextDelta
from sottovoce.runtime.sampling import Sampler

SETTINGS = DuplexSettings()


def small_model(bundle: Path, not_addressed: str | None = None) -> Model:
    """A model of random weights whose speech is short; replies that begin with `not_addressed` are none."""
    short = shortened(Bundle.open(bundle, verify_hashes=False))
    if not_addressed is not None:
        prompt = short.manifest.prompt
        states = replace(prompt.states, not_addressed=not_addressed)
        short = Bundle(short.path, replace(short.manifest, prompt=replace(prompt, states=states)))
    return Model(short, threads=1)


def about(conversation: Conversation, model: Model) -> RecordedSession:
    rate = model.manifest.speech.sample_rate
    return session_about(model.bundle, conversation.options, SETTINGS, rate, threads=1)


class InterruptingSampler(Sampler):
    """Interrupts the reply in the middle of a step, as another thread would; once."""

    def __init__(self, inner: Sampler, tokens: int, interrupt: Callable[[], None]) -> None:
        super().__init__(inner.options)
        self.state = inner.state
        self._tokens, self._interrupt = tokens, interrupt

    def pick(self, logits, used=(), banned=()):
        token = super().pick(logits, used, banned)
        if len(used) + 1 == self._tokens:
            self._tokens = 0
            self._interrupt()
        return token


class HeldSession:
    """Devices, user and program in one: tells `Duplex` what happens and does what it asks for, recording both."""

    def __init__(self, conversation: Conversation, recorder: Recorder, voice: np.ndarray) -> None:
        self.conversation, self.recorder, self.duplex = conversation, recorder, Duplex(SETTINGS)
        self.actions: list[Action] = []
        self.files: dict[str, Path] = {}
        self._voice, self._spoken = voice, 0
        self._now, self._position = 0.0, 0
        self._later: list[Event] = []
        self._shown: list[str] = []
        self._giving: tuple[int, Iterator[ReplyEvent]] | None = None
        self._given: dict[int, int] = {}
        self._last: int | None = None
        self._computing = False
        self._unsettled: tuple[int, int | None] | None = None

    # What may happen.

    def say(self, windows: int) -> None:
        """So many windows of the voice."""
        for _ in range(windows):
            begin = self._spoken % (len(self._voice) - WINDOW_SAMPLES)
            self._spoken += WINDOW_SAMPLES
            self._window(self._voice[begin : begin + WINDOW_SAMPLES], 0.9)

    def pause(self, windows: int) -> None:
        """So many windows of next to nothing."""
        for _ in range(windows):
            self._window(np.full(WINDOW_SAMPLES, 1e-4, np.float32), 0.05)

    def skip(self, samples: int) -> None:
        """Lose samples, between turns."""
        self._position += samples

    def type(self, text: str) -> None:
        self.tell(TypedLine(self._now, text))

    def show(self, name: str, file: Path) -> None:
        self.files[name] = file
        self.recorder.picture(name, file)
        self.tell(Picture(self._now, name))

    def press_key(self) -> None:
        self.tell(InterruptKey(self._now))

    def quit(self) -> None:
        self.tell(Quit(self._now))

    def give(self, events: int | None = None) -> None:
        """Compute so many events of the reply, or all."""
        assert self._giving is not None, "no reply is being given"
        epoch, stream = self._giving
        taken = 0
        while events is None or taken < events:
            self._computing = True
            event = next(stream, None)
            self._computing = False
            if event is None:
                return
            taken += 1
            self._take(epoch, event)

    def give_first_sound(self) -> None:
        """Compute the reply up to its first sound."""
        while self._giving is not None and not self._given.get(self._giving[0]):
            self.give(1)

    def play(self, samples: int | None = None) -> None:
        """The speaker has played so many samples of the last reply, all together; None: all."""
        assert self._last is not None
        total = self._given.get(self._last, 0)
        played = total if samples is None else samples
        self._played = played
        self.tell(Played(self._now, self._last, played))

    def press_key_at(self, tokens: int) -> None:
        """The key is pressed while the next reply is computed, when it has so many tokens."""
        sampler = self.conversation._text_sampler
        self.conversation._text_sampler = InterruptingSampler(sampler, tokens, self.press_key)

    def tell(self, event: Event) -> None:
        actions = self.duplex.handle(event)
        self.recorder.handled(event, actions)
        self.actions += actions
        for action in actions:
            self._do(action)
        while self._later:
            self.tell(self._later.pop(0))

    # What follows from it.

    def _window(self, samples: np.ndarray, probability: float) -> None:
        self._now += WINDOW_SAMPLES / CAPTURE_RATE
        self.recorder.captured(samples, self._position)
        self._position += WINDOW_SAMPLES
        self._keep(samples)
        self.tell(VoiceWindow(self._now, self._position, probability))

    def _keep(self, samples: np.ndarray) -> None:
        kept = getattr(self, "_kept", np.zeros(0, np.float32))
        lost = np.zeros(self._position - WINDOW_SAMPLES - len(kept), np.float32)
        self._kept = np.concatenate([kept, lost, samples])

    def _take(self, epoch: int, event: ReplyEvent) -> None:
        self.recorder.replied(epoch, event)
        if isinstance(event, TextDelta):
            self.tell(ReplyStarted(self._now, epoch))
        elif isinstance(event, AudioChunk):
            self.tell(ReplyAudio(self._now, epoch, len(event.samples)))
        elif isinstance(event, ReplyDone):
            self._giving = None
            self.tell(ReplyFinished(self._now, epoch, event.reason))
            self.conversation.make_room()
            if self._unsettled is not None and self._unsettled[0] == epoch:
                self.conversation.cancel(self._unsettled[1])

    def _begin(self, epoch: int, events: Iterator[ReplyEvent]) -> None:
        self._giving, self._last, self._played = (epoch, events), epoch, 0

    def _do(self, action: Action) -> None:
        conversation = self.conversation
        match action:
            case Hear(start, end):
                conversation.accept_waveform(self._kept[start:end], CAPTURE_RATE)
            case Prepare(_, pictures):
                self._show(pictures)
                conversation.prepare()
            case Withdraw(epoch):
                conversation.withdraw()
                self._later.append(ReplyFinished(self._now, epoch, "cancelled"))
            case EndOfSpeech(epoch, _, _, _, pictures):
                self._show(pictures)
                self._shown.clear()
                self._begin(epoch, conversation.end_of_speech())
            case Ask(epoch, text, pictures):
                self._begin(epoch, conversation.ask(text, images=[self.files[name] for name in pictures]))
            case Play(epoch, _, end):
                self._given[epoch] = end
            case StopPlayback(epoch):
                self._later.append(PlaybackStopped(self._now, epoch, self._played))
            case CancelReply(epoch, played) if self._computing:
                conversation.interrupt(played)
                self._unsettled = (epoch, played)
            case CancelReply(_, played):
                if self._giving is not None:
                    conversation.cancel(played)
                    self.give()
                conversation.cancel(played)
            case Discard(_, _, "interrupt_key"):
                conversation.discard_speech()
                self._shown.clear()

    def _show(self, pictures: tuple[str, ...]) -> None:
        new = pictures[len(self._shown) :]
        self._shown += new
        if new:
            self.conversation.show([self.files[name] for name in new])
