"""One question asked and its reply taken as a listener would, with everything noted that happened when."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.features.audio_file import Waveform
from sottovoce.runtime.profiling.recording import Call, Recording, Span
from sottovoce.runtime.reply import AudioChunk, Reason, ReplyDone

if TYPE_CHECKING:
    from sottovoce.runtime.features.images import ImageSource


CUT_TEXTS, CUT_SECONDS = 16, 2.0
"""Of a reply whose every operator is written down: that takes half a megabyte a token, and more tells nothing new."""


@dataclass(frozen=True)
class Asked:
    """The same question for every turn; the same seed makes all replies the same.

    Args:
        text: typed words.
        audio: a recording that is in memory already, so that no turn waits for a disk.
        images: pictures.
        max_new_tokens: a reply ends after so many; None: as the bundle says.
        seed: of what is drawn.
        speech: False for text alone.
        cut_short: take no more of the reply than `CUT_TEXTS` pieces of text or `CUT_SECONDS` of speech.
    """

    text: str | None = None
    audio: Waveform | None = None
    images: Sequence[ImageSource] = ()
    max_new_tokens: int | None = None
    seed: int = 0
    speech: bool = True
    cut_short: bool = False


@dataclass(frozen=True)
class Chunk:
    """Samples of speech that were given out, so many seconds after the question."""

    at: float
    samples: int


@dataclass(frozen=True)
class Turn:
    """What happened in one turn; `start` and `end` are seconds of `time.perf_counter`."""

    start: float
    end: float
    timings: Mapping[str, float]
    chunks: tuple[Chunk, ...]
    text: str
    tokens: tuple[int, ...]
    reason: Reason
    spans: tuple[Span, ...] = field(default=())
    calls: tuple[Call, ...] = field(default=())

    @property
    def milliseconds(self) -> float:
        """The whole turn."""
        return 1000 * (self.end - self.start)


def take_turn(assistant: Assistant, asked: Asked, recording: Recording | None = None) -> Turn:
    """Ask in a new conversation, and take the events as they come.

    Args:
        assistant: whose stages, if `recording` is given, are timed into it.
        asked: what is asked.
        recording: takes spans; what it held before is dropped.

    Raises:
        InputError: the question cannot be taken.
        BackendError: the engine failed.
    """
    if recording is None:
        return _take(assistant, asked)
    recording.take()
    with recording.listening():
        turn = _take(assistant, asked)
    spans, calls = recording.take()
    return replace(turn, spans=spans, calls=calls)


def _take(assistant: Assistant, asked: Asked) -> Turn:
    conversation = assistant.conversation(seed=asked.seed, max_new_tokens=asked.max_new_tokens, speech=asked.speech)
    chunks: list[Chunk] = []
    texts, done = 0, ReplyDone("cancelled", {})
    start = time.perf_counter()
    for event in conversation.ask(asked.text, asked.audio, asked.images):
        if isinstance(event, AudioChunk):
            chunks.append(Chunk(time.perf_counter() - start, len(event.samples)))
        elif isinstance(event, ReplyDone):
            done = event
        else:
            texts += 1
        spoken = sum(chunk.samples for chunk in chunks) / assistant.sample_rate
        if asked.cut_short and (texts >= CUT_TEXTS or spoken >= CUT_SECONDS):
            conversation.cancel()  # the events still come to their end
    end = time.perf_counter()
    return Turn(start, end, done.timings, tuple(chunks), done.text, done.tokens, done.reason)
