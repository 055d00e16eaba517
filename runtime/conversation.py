"""Turns with one user: what was said stays in the KV cache, so that no turn is ever computed twice."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.capture import CapturedSpeech
from sottovoce.runtime.conversation_options import ConversationOptions
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.features.audio_file import AudioSource, Waveform
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.question import PreparedQuestion, Question, embed, prepare
from sottovoce.runtime.reply import AudioChunk, Reason, ReplyDone, ReplyEvent, ReplyText, TextDelta
from sottovoce.runtime.sampling import Sampler
from sottovoce.runtime.speech.output import open_speech_output
from sottovoce.runtime.speech.speaker import Speaker
from sottovoce.runtime.turns import OngoingReply, Place, Turn

if TYPE_CHECKING:
    from sottovoce.runtime.features.images import ImageSource

Logits = npt.NDArray[np.float32]
ReplyEvents = Generator[ReplyEvent, None, None]


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
        self._captured = CapturedSpeech(model.manifest.audio.max_seconds)
        self._cache = model.language_model.create_cache()
        self._place = Place(0, (), ())
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
        return self._cache.length

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
        return self._begin(Question(text, audio, images, video))

    def accept_waveform(self, samples: npt.ArrayLike, sample_rate: int) -> None:
        """Take what was just captured from a microphone, (n,) samples in -1…1 or int16.

        Raises:
            InputError: not audio, at another rate than before, or more than the model hears in one turn.
        """
        self._captured.append(samples, sample_rate)

    def end_of_speech(self) -> Iterator[ReplyEvent]:
        """The user has finished speaking: the events of the reply, as `ask` gives them.

        Raises:
            InputError: nothing was captured.
        """
        return self._begin(Question(audio=self._captured.take()))

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
        reply.played_samples = played_samples
        reply.cancelled = True
        if self._active is None and reply.start is not None:
            self._settle(reply, reply.start)

    def _begin(self, question: Question) -> Iterator[ReplyEvent]:
        self._end_active()
        self._epoch += 1
        self._question = question
        # Known from now on, so that a cancel while the question is being heard is not lost.
        self._reply = OngoingReply(self._epoch, ReplyText(self._model.tokenizer, self._model.manifest.prompt.states))
        self._active = self._events(question, self._reply)
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

    def _events(self, question: Question, reply: OngoingReply) -> ReplyEvents:
        stopwatch = Stopwatch()
        before = self._place
        try:
            logits = self._hear(question, reply, stopwatch)
            reason = yield from self._answer(reply, logits, stopwatch)
            done = self._done(reply, reason, before, stopwatch)
        except GeneratorExit:
            # Nobody takes the rest, which is as good as a cancel.
            if reply.start is not None:
                self._settle(reply, reply.start)
            raise
        except BaseException:
            self._restore(before)
            raise
        finally:
            self._active = None
        yield done

    def _hear(self, question: Question, reply: OngoingReply, stopwatch: Stopwatch) -> Logits:
        """Append the question to the cache: the logits of the reply's first token."""
        model = self._model
        prepared = prepare(question, model.manifest, stopwatch)
        ids = [*self._opening(prepared), *model.prompt.user(prepared.content)]
        self._check_room(prepared.positions(ids, model.manifest))
        embeddings = embed(ids, prepared, model, stopwatch, self._options.dump)
        with stopwatch.measure("prefill"):
            logits = model.language_model.prefill(embeddings, self._cache)
        content = prepared.content
        asked = Turn("user", content.text, content.audio, content.tiles)
        reply.start, reply.history = self._cache.length, (*self._place.history, asked)
        if self._options.speech:
            reply.speaker = self._speaker(reply, stopwatch)
        return logits

    def _speaker(self, reply: OngoingReply, stopwatch: Stopwatch) -> Speaker:
        model = self._model
        return Speaker(
            model.manifest.speech,
            model.manifest.prompt.states,
            lambda: open_speech_output(model, self._speech_sampler, stopwatch, self._options.dump),
            lambda: reply.cancelled,
        )

    def _opening(self, prepared: PreparedQuestion) -> list[int]:
        """What comes before the user's turn: the system text, or the end of the last reply."""
        prompt = self._model.prompt
        if self._place.length == 0:
            images = prepared.content.tiles > 0 and not prepared.has_video
            own = prompt.system_text(images=images, video=prepared.has_video)
            return prompt.system(own if self._options.system is None else self._options.system)
        return [*self._place.unfed, *prompt.tokenizer.encode(prompt.spec.turn_end), *prompt.after_reply()]

    def _check_room(self, positions: int) -> None:
        used, limit = self._cache.length, self._model.context_length
        if used + positions >= limit:
            before = f" after {used} of the conversation" if used else ""
            message = f"the question fills {positions} positions{before}; the model's context holds {limit}"
            fix = "start a new conversation" if used else "ask with less text, fewer pictures or a shorter recording"
            raise InputError(message, fix=fix)

    def _answer(self, reply: OngoingReply, logits: Logits, stopwatch: Stopwatch) -> Generator[ReplyEvent, None, Reason]:
        """Text and speech, interleaved; returns the reason for the end."""
        reason: Reason = "length"
        while not reply.cancelled:
            token = self._pick(logits, reply)
            stopwatch.mark("first_token")
            if token in self._model.manifest.generation.stop_ids:
                reason = "stop"
                break
            delta = reply.text.append(token)
            if reply.text.state == self._model.manifest.prompt.states.not_addressed:
                return "not_addressed"
            yield from self._say(reply, delta, stopwatch)
            if len(reply.text.tokens) >= self._options.max_new_tokens or self._is_full():
                break
            with stopwatch.measure("decode"):
                row = self._model.token_embeddings.rows([token])
                logits = self._model.language_model.step(row, self._cache)
        yield from self._say(reply, reply.text.finish(), stopwatch, is_last=True)
        return "cancelled" if reply.cancelled else reason

    def _pick(self, logits: Logits, reply: OngoingReply) -> int:
        if self._options.dump is not None:
            self._options.dump.add("llm.step_logits", logits[None])
        return self._text_sampler.pick(logits, used=reply.text.tokens)

    def _say(self, reply: OngoingReply, text: str, stopwatch: Stopwatch, is_last: bool = False) -> Iterator[ReplyEvent]:
        """Give out new text, and the speech of the pieces that it completes."""
        if reply.cancelled:
            return
        if text:
            yield TextDelta(text)
        if reply.speaker is None:
            return
        for samples in itertools.chain(reply.speaker.append(text), reply.speaker.finish() if is_last else ()):
            if reply.cancelled:  # in another thread, while these samples were computed
                return
            stopwatch.mark("first_audio")
            yield AudioChunk(samples, reply.epoch)

    def _is_full(self) -> bool:
        return self._cache.length >= self._model.context_length

    def _done(self, reply: OngoingReply, reason: Reason, before: Place, stopwatch: Stopwatch) -> ReplyDone:
        """Bring history and cache to what was said, and tell the end."""
        said = ""
        if reason == "not_addressed" or reply.start is None:
            self._restore(before)
        else:
            said = self._settle(reply, reply.start)
        return ReplyDone(reason, stopwatch.milliseconds(), said, reply.text.state, tuple(reply.text.tokens))

    def _settle(self, reply: OngoingReply, start: int) -> str:
        """Put what was heard of `reply` into the history, and cut the cache to it; returns it."""
        kept = reply.text.tokens_within(len(reply.heard()))
        text = reply.text.text[: reply.text.ends[kept - 1]] if kept else ""
        if kept == len(reply.text.tokens):
            text = reply.text.text
        fed = min(kept, self._cache.length - start)
        self._cache.rewind(start + fed)
        history = (*reply.history, Turn("assistant", text))
        self._place = Place(self._cache.length, tuple(reply.text.tokens[fed:kept]), history)
        return text

    def _restore(self, place: Place) -> None:
        """As if the last question had not been asked."""
        self._cache.rewind(min(place.length, self._cache.length))
        self._place = place
        self._reply = None
