"""Real-time factors: time spent for each second of speech, heard or spoken; below 1 it keeps up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sottovoce.runtime.assistant import FIRST_WORDS, Assistant
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.model import Model
from sottovoce.runtime.profiling.turn import Turn
from sottovoce.runtime.progress import Progress
from sottovoce.runtime.reply import AudioChunk

SpeechWork = Literal["speech in", "speech out alone", "speech out while decoding"]
SPOKEN_SECONDS = 4.0
"""Enough of a text's speech; random weights never come to an end."""
FILLED = 64
"""Positions in the cache when decoding beside the speech begins."""


@dataclass(frozen=True)
class RealTimeFactor:
    """One kind of work on speech.

    Args:
        work: hearing (features and encoder), or speaking (speech decoder and codec).
        factors: seconds spent for a second of speech, one value a run.
        audio_seconds: of speech in one run.
        tokens_per_second: what the language model decoded meanwhile; None where it did not.
    """

    work: SpeechWork
    factors: tuple[float, ...]
    audio_seconds: float
    tokens_per_second: float | None = None

    @property
    def factor(self) -> float:
        """Of the median run."""
        return float(np.median(self.factors))


def heard_factor(turns: Sequence[Turn], seconds: float) -> RealTimeFactor:
    """Of hearing a question of `seconds`, from turns that heard it."""
    spans = ("audio_features", "audio_encoder")
    spent = [sum(span.milliseconds for span in turn.spans if span.name in spans) / 1000 for turn in turns]
    return RealTimeFactor("speech in", tuple(one / seconds for one in spent), seconds)


def spoken_factors(
    assistant: Assistant, model: Model, text: str, runs: int, progress: Progress
) -> list[RealTimeFactor]:
    """Of saying `text`, at most `SPOKEN_SECONDS` of it, alone and while the language model decodes; none if mute.

    Args:
        assistant: speaks.
        model: the assistant's.
        text: a reply; what cannot be spoken is replaced by a word that can.
        runs: of each kind.
        progress: told of each run.

    Raises:
        BackendError: the engine failed.
    """
    alone, beside, decoded = [], [], []
    seconds = 0.0
    for run in range(runs):
        spent, seconds = _say(assistant, text)
        if not seconds:
            return []
        alone.append(spent / seconds)
        with _decoding(model) as decoder:
            started = time.perf_counter()
            spent, seconds = _say(assistant, text)
            beside.append(spent / max(seconds, 1e-9))
            decoded.append(decoder.tokens / (time.perf_counter() - started))
        progress.step("speech alone and while decoding", run + 1, runs)
    return [
        RealTimeFactor("speech out alone", tuple(alone), seconds),
        RealTimeFactor("speech out while decoding", tuple(beside), seconds, float(np.median(decoded))),
    ]


def _say(assistant: Assistant, text: str) -> tuple[float, float]:
    """Seconds spent, and seconds of speech."""
    started, spoken = time.perf_counter(), 0.0
    try:
        events = assistant.say(text, seed=0)
    except InputError:
        events = assistant.say(FIRST_WORDS, seed=0)
    for event in events:
        if isinstance(event, AudioChunk):
            spoken += len(event.samples) / assistant.sample_rate
        if spoken >= SPOKEN_SECONDS:
            break
    return time.perf_counter() - started, spoken


class _Decoder:
    """Decodes in a thread until it is told to stop, as a reply that is being written does."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._stopped = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="decoding beside speech")
        self.tokens = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what went wrong in it is raised here."""
        self._stopped.set()
        self._thread.join()
        if self._problem is not None:
            raise self._problem

    def _run(self) -> None:
        try:
            model = self._model
            filled = min(FILLED, model.context_length - 1)
            cache = model.language_model.create_cache()
            model.language_model.prefill(model.token_embeddings.rows(np.zeros(filled, np.int64)), cache)
            token = 0
            while not self._stopped.is_set():
                if cache.length >= model.context_length:
                    cache.rewind(filled)
                token = int(np.argmax(model.language_model.step(model.token_embeddings.rows([token]), cache)))
                self.tokens += 1
        except BaseException as problem:  # noqa: BLE001  # raised again by `stop`
            self._problem = problem


@contextmanager
def _decoding(model: Model) -> Iterator[_Decoder]:
    decoder = _Decoder(model)
    decoder.start()
    try:
        yield decoder
    finally:
        decoder.stop()
