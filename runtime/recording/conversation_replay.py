"""A recorded conversation held again: the same calls of a new `Conversation` in the same order, without devices.

What turn taking wanted then is carried out as `chat` does it: what was heard goes in piece by piece, as it was cut
then; pauses are prepared for and withdrawn; a reply that was cut short is cut after as many events and tokens as then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.chat.pictures import current, unseen
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.conversation_options import ConversationOptions
from sottovoce.runtime.duplex.actions import (
    Action,
    Ask,
    CancelReply,
    Discard,
    EndOfSpeech,
    Hear,
    Prepare,
    Withdraw,
)
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.model import Model
from sottovoce.runtime.recording.reading import Recording
from sottovoce.runtime.recording.reply_log import ReplyTally
from sottovoce.runtime.recording.sound import RecordedSound
from sottovoce.runtime.reply import AudioChunk, ReplyEvent
from sottovoce.runtime.sampling import Logits, Sampler

Samples = npt.NDArray[np.float32]


class CountingSampler(Sampler):
    """Tells when a reply has so many tokens, which is where another thread interrupted it then."""

    picked = 0
    """Tokens of the reply so far, its end token counted."""
    limit: int | None = None
    at_limit: Callable[[], None] | None = None

    def pick(self, logits: Logits, used: Sequence[int] = (), banned: Sequence[int] = ()) -> int:
        """As any sampler, and count."""
        token = super().pick(logits, used, banned)
        self.picked = len(used) + 1
        if self.at_limit is not None and self.limit is not None and self.picked >= self.limit:
            self.at_limit()
        return token


class RepeatedConversation(Conversation):
    """A conversation whose replies can be cut at a token."""

    def __init__(self, model: Model, options: ConversationOptions) -> None:
        super().__init__(model, options)
        self.sampler = CountingSampler(options.text_sampling)
        self.sampler.state = self._text_sampler.state
        self._text_sampler = self.sampler

    def cancel_at(self, tokens: int, played_samples: int | None) -> None:
        """Cancel the reply that is being given as soon as it has so many tokens: now, or in the middle of the next."""
        if self.sampler.picked >= tokens:
            self.cancel(played_samples)
            return
        self.sampler.limit, self.sampler.at_limit = tokens, lambda: self.cancel(played_samples)

    def begin_count(self) -> None:
        """The next token is the first of a reply."""
        self.sampler.picked, self.sampler.limit, self.sampler.at_limit = 0, None, None


@dataclass
class HeldReply:
    """A reply that was given again.

    Args:
        tally: what came of it.
        asked: the question in a word or two.
        error: why it failed, if it did.
    """

    tally: ReplyTally
    asked: str
    error: str | None = None
    _sound: list[Samples] = field(default_factory=list)

    def take(self, event: ReplyEvent) -> None:
        """Its next event."""
        self.tally.take(event)
        if isinstance(event, AudioChunk):
            self._sound.append(event.samples)

    @property
    def samples(self) -> Samples:
        """All of its sound, (n,)."""
        return np.concatenate(self._sound) if self._sound else np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class CutReply:
    """A reply that was cancelled while it was computed, given as far as it had come; its end follows."""

    held: HeldReply
    events: Iterator[ReplyEvent]
    tokens: int


class ConversationReplay:
    """Carries out what was wanted.

    Args:
        recording: what is to be held again; anything in it that does not fit together is an error.
        model: who answers now.
    """

    def __init__(self, recording: Recording, model: Model) -> None:
        self._recording = recording
        self._conversation = RepeatedConversation(model, recording.session.conversation.conversation_options())
        self._cut: CutReply | None = None
        self._kept: int | None = None
        self._shown: list[str] = []
        self._prepared: int | None = None
        self._failed: dict[int, SottovoceError] = {}
        self._heard_to = 0
        self._events = 0
        self.troubles: list[str] = []
        """What failed outside of a reply."""

    def replies(self) -> Iterator[HeldReply]:
        """All replies, each as soon as nothing more comes of it.

        Raises:
            InputError: the recording is damaged.
            BackendError: the engine failed.
        """
        with self._recording.microphone() as microphone:
            for _, step in self._recording.steps():
                self._events += 1
                for action in step.actions:
                    yield from self._carry_out(action, microphone)
        if self._cut is not None:
            yield self._end_cut(self._cut, None)

    def _carry_out(self, action: Action, microphone: RecordedSound) -> Iterator[HeldReply]:
        match action:
            case Hear(start, end):
                self._hear(microphone.between(start, end), end)
            case Prepare(epoch, pictures):
                self._prepare(epoch, self._new(pictures))
            case Withdraw(epoch):
                self._conversation.withdraw()
                self._failed.pop(epoch, None)
            case EndOfSpeech(epoch, start, end, _, pictures):
                seconds = (end - start) / self._recording.session.capture_rate
                yield from self._end_of_speech(epoch, f"spoken {seconds:.1f} s", self._new(pictures))
            case Ask(epoch, text, pictures):
                files = [self._recording.picture(name, self._events) for name in current(pictures)]
                self._conversation.begin_count()
                yield from self._give(epoch, "typed", lambda: self._conversation.ask(text, images=files))
            case CancelReply(epoch, played):
                yield from self._cancel(epoch, played)
            case Discard(start) if start < self._heard_to:
                self._conversation.discard_speech()
                self._forget_turn()

    def _hear(self, samples: Samples, end: int) -> None:
        self._heard_to = end
        try:
            self._conversation.accept_waveform(samples, self._recording.session.capture_rate)
        except SottovoceError as problem:
            self.troubles.append(f"what was heard before sample {end} was not taken: {problem.message}")

    def _prepare(self, epoch: int, pictures: Sequence[Path]) -> None:
        """What fails here is told when the reply is wanted."""
        self._prepared = epoch
        self._conversation.begin_count()
        try:
            self._show(pictures)
            self._conversation.prepare()
        except SottovoceError as problem:
            self._failed[epoch] = problem

    def _end_of_speech(self, epoch: int, asked: str, pictures: Sequence[Path]) -> Iterator[HeldReply]:
        failed = self._failed.pop(epoch, None)
        if failed is not None:
            self._conversation.discard_speech()
            self._forget_turn()
            yield self._fail(HeldReply(ReplyTally(epoch), asked), failed)
            return
        if self._prepared != epoch:
            self._conversation.begin_count()

        def begin() -> Iterator[ReplyEvent]:
            self._show(pictures)
            self._forget_turn()
            return self._conversation.end_of_speech()

        yield from self._give(epoch, asked, begin)

    def _give(self, epoch: int, asked: str, begin: Callable[[], Iterator[ReplyEvent]]) -> Iterator[HeldReply]:
        """All of a reply, or as much of it as was given before it was cancelled then."""
        if self._cut is not None:
            yield self._end_cut(self._cut, None)
        held, then = HeldReply(ReplyTally(epoch), asked), self._recording.replies.get(epoch)
        self._kept = epoch
        try:
            events = begin()
            if then is not None and then.reason == "cancelled":
                for event in islice(events, then.events):
                    held.take(event)
                if held.tally.reason is None:
                    self._cut = CutReply(held, events, len(then.tokens))
                    return
            for event in events:
                held.take(event)
        except SottovoceError as problem:
            yield self._fail(held, problem)
            return
        self._conversation.make_room()
        yield held

    def _cancel(self, epoch: int, played: int | None) -> Iterator[HeldReply]:
        if self._cut is not None and self._cut.held.tally.epoch == epoch:
            yield self._end_cut(self._cut, played)
        if self._kept == epoch:
            self._conversation.cancel(played)

    def _end_cut(self, cut: CutReply, played: int | None) -> HeldReply:
        self._cut = None
        self._conversation.cancel_at(cut.tokens, played)
        try:
            for event in cut.events:
                cut.held.take(event)
        except SottovoceError as problem:
            return self._fail(cut.held, problem)
        finally:
            self._conversation.begin_count()
        self._conversation.make_room()
        return cut.held

    def _fail(self, held: HeldReply, problem: SottovoceError) -> HeldReply:
        held.tally.reason, held.error = "error", problem.message
        self._kept = None  # nothing of it is in the history
        return held

    def _new(self, pictures: Sequence[str]) -> list[Path]:
        """Files of the pictures that were not shown in this turn yet."""
        new = unseen(current(pictures), self._shown)
        self._shown += new
        return [self._recording.picture(name, self._events) for name in new]

    def _show(self, pictures: Sequence[Path]) -> None:
        if pictures:
            self._conversation.show(pictures)

    def _forget_turn(self) -> None:
        self._shown.clear()
        self._heard_to = 0
