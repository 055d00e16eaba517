"""Turns with one user: what was said stays in the KV cache, so that no turn is ever computed twice."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.conversation_options import ConversationOptions
from sottovoce.runtime.dialogue.answering import Answering
from sottovoce.runtime.dialogue.asking import Asking, with_shown
from sottovoce.runtime.dialogue.context import Context
from sottovoce.runtime.dialogue.listening import Listening
from sottovoce.runtime.dialogue.prepared import PreparedReply
from sottovoce.runtime.dialogue.turns import OngoingReply, Place, Turn, settled
from sottovoce.runtime.dialogue.voice import Voice
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.features.audio_file import AudioSource, Waveform
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.question import Question
from sottovoce.runtime.reply import Reason, ReplyDone, ReplyEvent, ReplyText
from sottovoce.runtime.sampling import Sampler
from sottovoce.runtime.text.prompt import UserContent

if TYPE_CHECKING:
    from sottovoce.runtime.features.images import ImageSource

Logits = npt.NDArray[np.float32]
ReplyEvents = Generator[ReplyEvent, None, None]
Asked = Question | Listening
NEARLY_FULL, ROOM_TO_MAKE = 0.25, 0.5
"""With less than this share of the context free, old turns are forgotten until so much is."""


class Conversation:
    """Made by `Assistant.conversation`. One reply at a time; `cancel` may be called from another thread.

    Args:
        model: the bundle's stages.
        options: how to answer.
    """

    def __init__(self, model: Model, options: ConversationOptions) -> None:
        self._model = model
        self._options = options
        text_seed, speech_seed = np.random.SeedSequence(options.seed).spawn(2)
        self._text_sampler = Sampler(options.text_sampling, text_seed)
        self._speech_sampler = Sampler(options.speech_sampling, speech_seed)
        self._context = Context(lambda: model.language_model, model.token_embeddings.rows, model.context_length)
        self._voice = Voice(model, self._speech_sampler)
        self._asking = Asking(model, self._context, options.system)
        self._place = Place(self._context.mark(), (), ())
        self._listening: Listening | None = None
        self._prepared: PreparedReply | None = None
        self._to_show: list[Question] = []
        self._epoch = 0
        self._active: ReplyEvents | None = None
        self._reply: OngoingReply | None = None
        self._question: Question | None = None

    @property
    def options(self) -> ConversationOptions:
        """How it answers, all defaults filled in."""
        return self._options

    @property
    def question(self) -> Question:
        """What was asked last, as it was given, with what `end_of_speech` took; for capturing.

        Raises:
            InputError: nothing was asked yet.
        """
        if self._question is None:
            raise InputError("nothing was asked yet in this conversation", fix="ask, and take the reply's events")
        return self._question

    @property
    def history(self) -> tuple[Turn, ...]:
        """What was said, oldest first; of a cancelled reply only what was heard."""
        return self._place.history

    @property
    def context_used(self) -> int:
        """Positions of the context that are filled."""
        return self._context.length

    @property
    def forgotten_turns(self) -> int:
        """How many of the oldest user turns the model remembers no more, since its context was nearly full."""
        return self._context.forgotten_turns

    def ask(
        self,
        text: str | None = None,
        audio: AudioSource | Waveform | None = None,
        images: Sequence[ImageSource] = (),
        video: str | os.PathLike[str] | None = None,
    ) -> Iterator[ReplyEvent]:
        """Ask, and get the reply's events as they come; the last is always `ReplyDone`.

        An error ends the events too, and leaves the conversation as it was before the question. A reply that is still
        being given, or whose events are not taken to the end, counts as cancelled: what it gave out is in the history.

        Args:
            text: typed text.
            audio: a file, `(samples, sample_rate)`, or what `read_audio` gave.
            images: pictures: files, Pillow images, or arrays (height, width, 3) of bytes.
            video: a file.

        Raises:
            InputError: nothing was asked, or an input cannot be taken, or does not fit into the context (the latter
                when the first event is taken).
        """
        question = Question(text, audio, images, video)
        self.withdraw()
        if self._listening is None:  # else they go with what is being spoken
            question, self._to_show = with_shown(question, self._to_show), []
        self._question = question
        return self._begin(question)

    def accept_waveform(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        """Take what was just captured, (n,) samples in -1…1 or int16, and do what can be done with it.

        Where the audio encoder can, it is encoded and read by the language model while speech goes on. Captured during
        a reply, it waits for the reply's end. Speech after `prepare` withdraws the reply that was prepared.

        Raises:
            InputError: not audio, at another rate than before, or more than the model hears in one turn.
            BackendError: the engine failed.
        """
        if np.size(samples) == 0:
            return
        self.withdraw()
        if self._listening is None:
            self._listening = Listening(self._model)
        self._listening.append(samples, sample_rate)
        self._advance()

    def show(self, images: Sequence[ImageSource] = (), video: str | os.PathLike[str] | None = None) -> None:
        """Pictures for the turn that is being spoken, or for the next one.

        Raises:
            InputError: pictures and a video at once, or nothing; files are read when the turn is.
        """
        self.withdraw()
        self._to_show.append(Question(images=images, video=video))
        self._advance()

    def prepare(self) -> bool:
        """A pause: begin the reply as if it were the end of speech, silently, up to its first sound.

        `end_of_speech` then gives it out at once; more speech withdraws it, and the turn goes on as if nothing had
        happened.

        Returns:
            Whether there is now a prepared reply: not while an earlier one is being given, nor when too little was
            heard.

        Raises:
            InputError: a picture that was shown cannot be read, or the turn does not fit into the context.
            BackendError: the engine failed.
        """
        listening = self._listening
        if self._prepared is not None or self._active is not None or listening is None or not listening.is_long_enough:
            return self._prepared is not None
        samplers = (self._text_sampler.state, self._speech_sampler.state)
        prepared = PreparedReply(listening, listening.pause(self._context), self._place, samplers)
        events = self._begin(listening)
        try:
            prepared.take_first(events)
        except BaseException:
            self._take_back(prepared)
            raise
        self._prepared = prepared
        return True

    def withdraw(self) -> None:
        """The pause was not the end: what `prepare` has begun is as if it had not been."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            self._take_back(prepared)

    def _take_back(self, prepared: PreparedReply) -> None:
        """As if the reply had not been begun; the turn can go on."""
        reply = self._reply
        if reply is not None:
            reply.cancelled = True
        prepared.close()
        self._active, self._reply = None, None
        self._epoch -= 1
        self._place = prepared.place
        prepared.listening.resume(prepared.snapshot, self._context)
        self._text_sampler.state, self._speech_sampler.state = prepared.samplers
        self._listening = prepared.listening

    def end_of_speech(self) -> Iterator[ReplyEvent]:
        """The user has finished speaking: the events of the reply, as `ask` gives them.

        Raises:
            InputError: nothing was captured.
        """
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            self._listening = None
            return prepared.events()
        listening, self._listening = self._listening, None
        if listening is None:
            raise InputError("nothing was captured", fix="call accept_waveform() before end_of_speech()")
        return self._begin(listening)

    def discard_speech(self) -> None:
        """What was captured since the last turn was no speech: forget it."""
        self.withdraw()
        if self._listening is not None:
            self._listening.unfeed(self._context)
            self._listening = None

    def make_room(self) -> int:
        """Forget the oldest turns if the context is nearly full, and fill the cache with the rest of them again.

        Best called when nobody waits: while a reply is played, for example. A turn that finds no room does the same.

        Returns:
            How many user turns were forgotten.

        Raises:
            BackendError: the engine failed.
        """
        before, limit = self._context.forgotten_turns, self._context.limit
        if self._active is None and self._context.room < limit * NEARLY_FULL:
            self._context.make_room(int(limit * ROOM_TO_MAKE))
        return self._context.forgotten_turns - before

    def cancel(self, played_samples: int | None = None) -> None:
        """End the reply that is being given; its events still end with `ReplyDone("cancelled", …)`.

        The history, and with it the cache, keeps only what was heard. It works on the last reply after its end too,
        since playing takes longer than computing.

        Args:
            played_samples: samples of this reply that were really played; None if all that was given out counts.
        """
        reply = self._reply
        if reply is None:
            return
        self.interrupt(played_samples)
        if self._active is None and reply.start is not None:
            if self._listening is not None:  # what was heard meanwhile is fed again behind what is kept
                self._listening.unfeed(self._context)
            self._settle(reply, reply.start.position)
            self._advance()

    def interrupt(self, played_samples: int | None = None) -> None:
        """`cancel` for a reply that another thread is taking the events of: it ends soon; changes nothing else.

        Args:
            played_samples: as for `cancel`.
        """
        reply = self._reply
        if reply is not None:
            reply.played_samples = played_samples
            reply.cancelled = True

    def _begin(self, asked: Asked) -> ReplyEvents:
        self._end_active()
        self._epoch += 1
        # Known from now on, so that a cancel while the question is being heard is not lost.
        self._reply = OngoingReply(self._epoch, ReplyText(self._model.tokenizer, self._model.manifest.prompt.states))
        self._active = self._events(asked, self._reply)
        return self._active

    def _end_active(self) -> None:
        """Close the events of a reply that nobody took to the end."""
        if self._active is not None:
            try:
                self._active.close()
            except ValueError as problem:
                message = "a reply is being given in another thread"
                raise InputError(message, fix="cancel() it and take its last event first") from problem
            self._active = None

    def _advance(self) -> None:
        """Bring the context to what was heard of the turn that is being spoken."""
        if self._listening is None or self._active is not None:
            return
        try:
            while self._to_show:
                self._listening.unfeed(self._context)
                self._listening.show(self._to_show.pop(0))
            self._listening.feed(self._context, self._opening)
        except BaseException:
            self._listening.unfeed(self._context)
            raise

    def _opening(self, content: UserContent, has_video: bool) -> list[int]:
        return self._asking.opening(self._place, content, has_video)

    def _events(self, asked: Asked, reply: OngoingReply) -> ReplyEvents:
        stopwatch = Stopwatch() if isinstance(asked, Question) else asked.stopwatch
        stopwatch.restart()
        before = self._place
        try:
            logits = self._hear(asked, reply, stopwatch)
            answering = Answering(self._model.manifest, self._context, self._options, self._text_sampler, stopwatch)
            reason = yield from answering.events(reply, logits)
            done = self._done(reply, reason, before, stopwatch)
        except GeneratorExit:
            # Nobody takes the rest, which is as good as a cancel.
            if reply.start is not None:
                self._settle(reply, reply.start.position)
            raise
        except BaseException:
            self._restore(before)
            raise
        finally:
            self._active = None
        yield done

    def _hear(self, asked: Asked, reply: OngoingReply, stopwatch: Stopwatch) -> Logits:
        """Append the question to the context: the logits of the reply's first token."""
        if isinstance(asked, Listening):
            logits, content = asked.finish(self._context, self._opening), asked.content
            self._question = asked.question
        else:
            if self._listening is not None:  # what is being spoken comes behind it
                self._listening.unfeed(self._context)
            logits, content = self._asking.read(self._place, asked, stopwatch, self._options.dump)
        asked_turn = Turn("user", content.text, content.audio, content.tiles)
        reply.start, reply.history = self._context.mark(), (*self._place.history, asked_turn)
        if self._options.speech:
            reply.speaker = self._voice.speaker(reply, stopwatch, self._options.dump)
        return logits

    def _done(self, reply: OngoingReply, reason: Reason, before: Place, stopwatch: Stopwatch) -> ReplyDone:
        """Bring history and context to what was said, and tell the end."""
        said = ""
        if reason == "not_addressed" or reply.start is None:
            self._restore(before)
        else:
            said = self._settle(reply, reply.start.position)
        return ReplyDone(reason, stopwatch.milliseconds(), said, reply.text.state, tuple(reply.text.tokens))

    def _settle(self, reply: OngoingReply, start: int) -> str:
        """Put what was heard of `reply` into the history, and cut the context to it; returns it."""
        self._place, text = settled(reply, start, self._context)
        return text

    def _restore(self, place: Place) -> None:
        """As if the last question had not been asked."""
        self._context.rewind(min(place.end.position, self._context.length))
        self._place = place
        self._reply = None
