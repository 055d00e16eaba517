"""One reply in the making: token after token, and its speech as soon as a piece of it is written."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.conversation_options import ConversationOptions
from sottovoce.runtime.dialogue.context import Context
from sottovoce.runtime.dialogue.turns import OngoingReply
from sottovoce.runtime.manifest import BundleManifest
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.reply import AudioChunk, Reason, ReplyEvent, TextDelta
from sottovoce.runtime.sampling import Sampler
from sottovoce.runtime.speech.overlapped import OverlappedSpeaker
from sottovoce.runtime.speech.speaker import Speaker

Logits = npt.NDArray[np.float32]


class Answering:
    """Makes the events of one reply as they are taken; the end itself is told by the conversation.

    Args:
        manifest: stop tokens and state tokens.
        context: where the reply is appended.
        options: limits, and whether speech overlaps with writing.
        sampler: picks the tokens.
        stopwatch: takes the span `decode` and the moments `first_token` and `first_audio`.
    """

    def __init__(
        self,
        manifest: BundleManifest,
        context: Context,
        options: ConversationOptions,
        sampler: Sampler,
        stopwatch: Stopwatch,
    ) -> None:
        self._manifest = manifest
        self._context = context
        self._options = options
        self._sampler = sampler
        self._stopwatch = stopwatch

    def events(self, reply: OngoingReply, logits: Logits) -> Generator[ReplyEvent, None, Reason]:
        """Text and speech of `reply`, whose first token follows `logits`; returns the reason for the end."""
        with ExitStack() as stack:
            speaker: Speaker | OverlappedSpeaker | None = reply.speaker
            if reply.speaker is not None and self._options.overlap:
                speaker = overlapped = OverlappedSpeaker(reply.speaker)
                stack.callback(overlapped.stop)
            reason: Reason = "length"
            while not reply.cancelled:
                token = self._pick(logits, reply)
                self._stopwatch.mark("first_token")
                if token in self._manifest.generation.stop_ids:
                    reason = "stop"
                    break
                delta = reply.text.append(token)
                if reply.text.state == self._manifest.prompt.states.not_addressed:
                    return "not_addressed"
                yield from self._say(reply, speaker, delta)
                if len(reply.text.tokens) >= self._options.max_new_tokens or not self._has_room():
                    break
                with self._stopwatch.measure("decode"):
                    logits = self._context.append([(token,)])
            yield from self._say(reply, speaker, reply.text.finish(), is_last=True)
        return "cancelled" if reply.cancelled else reason

    def _pick(self, logits: Logits, reply: OngoingReply) -> int:
        if self._options.dump is not None:
            self._options.dump.add("llm.step_logits", logits[None])
        return self._sampler.pick(logits, used=reply.text.tokens)

    def _has_room(self) -> bool:
        """Whether another token fits, if need be after old turns are forgotten in the middle of the reply."""
        if self._context.room < 1:
            self._context.make_room(self._context.limit // 4)
        return self._context.room >= 1

    def _say(
        self, reply: OngoingReply, speaker: Speaker | OverlappedSpeaker | None, text: str, is_last: bool = False
    ) -> Iterator[ReplyEvent]:
        """Give out new text, and the speech that there is."""
        if reply.cancelled:
            return
        if text:
            yield TextDelta(text)
        if speaker is None:
            return
        yield from self._audio(reply, speaker.append(text))
        if is_last and not reply.cancelled:
            yield from self._audio(reply, speaker.finish())

    def _audio(self, reply: OngoingReply, segments: Iterator[npt.NDArray[np.float32]]) -> Iterator[ReplyEvent]:
        for samples in segments:
            if reply.cancelled:  # in another thread, while these samples were computed
                return
            self._stopwatch.mark("first_audio")
            yield AudioChunk(samples, reply.epoch)
