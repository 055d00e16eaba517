"""How fast speech is made on one core: the speech decoder, the codec, and both while the language model decodes.

    OMP_NUM_THREADS=1 python tests/benchmarks/speech_out.py BUNDLE [--rounds 7] [--json]

A reply's worth of sentences is spoken, greedily, by sessions of one thread. "Beside" a language model that decodes
without a pause means that it has the next core; "sharing its core" that speech and language model are both held to one
core (Linux only), which is the harder case: a conversation's language model is done long before its reply is said.
Real-time factors are seconds of sound per second, medians and quartiles over rounds in which the kinds take turns.
Exit code 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from judged import Bar, none_missed

from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.console import Console
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.sampling import Sampler, SamplingOptions
from sottovoce.runtime.speech.decoder import SpeechDecoder, SpeechDecoderParts
from sottovoce.runtime.stages.codec import time_steps

LEAST = 5.0
CONTEXT = 256
DECODED = 256
SENTENCES = (
    "Seven plus five is twelve.",
    "The capital of Italy is Rome, and the opposite of hot is cold.",
    "I turned on the light in the kitchen.",
    "There is a red circle above a blue square.",
)


class LanguageModelAtWork(threading.Thread):
    """Decodes without a pause until it is stopped, behind a context of 256 positions."""

    def __init__(self, model: Model) -> None:
        super().__init__(name="language model", daemon=True)
        self._model, self._stopped, self.tokens = model, threading.Event(), 0

    def run(self) -> None:
        """Token after token."""
        language_model, table = self._model.language_model, self._model.token_embeddings
        sampler = Sampler(SamplingOptions(greedy=True))
        cache = language_model.create_cache()
        token = sampler.pick(language_model.prefill(table.rows(np.arange(CONTEXT) % table.spec.rows), cache))
        while not self._stopped.is_set():
            cache.rewind(CONTEXT)
            for _ in range(DECODED):
                token = sampler.pick(language_model.step(table.rows([token]), cache))
                self.tokens += 1
                if self._stopped.is_set():
                    return

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self._stopped.set()
        self.join()


@contextmanager
def one_core() -> Iterator[None]:
    """This process's threads, those that are started within and those there are, on one core alone."""
    before = os.sched_getaffinity(0)
    _hold_all_threads({min(before)})
    try:
        yield
    finally:
        _hold_all_threads(before)


def _hold_all_threads(cores: set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores)


def speech_decoder_alone(model: Model) -> tuple[float, list[list[int]]]:
    """Seconds from text to codes, and the codes."""
    spec = model.manifest.speech
    parts = SpeechDecoderParts(
        spec, model.token_embeddings, model.code_embeddings, model.speech_text, model.speech_codes
    )
    decoder = SpeechDecoder(parts, Sampler(SamplingOptions(greedy=True)), Stopwatch())
    started = time.perf_counter()
    codes = [list(decoder.codes(model.tokenizer.encode_plain(sentence.lower()))) for sentence in SENTENCES]
    return time.perf_counter() - started, codes


def codec_alone(model: Model, codes: list[list[int]]) -> tuple[float, float]:
    """Seconds from codes to sound, all of a sentence at once, and seconds of sound."""
    steps = [list(time_steps(sentence, model.codec.books)) for sentence in codes]
    started = time.perf_counter()
    samples = sum(len(model.codec(sentence)) for sentence in steps)
    return time.perf_counter() - started, samples / model.manifest.speech.sample_rate


def spoken(assistant: Assistant) -> tuple[float, float]:
    """Seconds from text to streamed sound, as a conversation speaks, and seconds of sound."""
    started = time.perf_counter()
    samples = sum(len(chunk.samples) for text in SENTENCES for chunk in assistant.say(text, greedy=True)
                  if hasattr(chunk, "samples"))  # fmt: skip
    return time.perf_counter() - started, samples / assistant.sample_rate


def measure(assistant: Assistant, model: Model, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Real-time factors of every round, the first left out; and the tokens a second of the language model beside."""
    factors: dict[str, list[float]] = {}
    tokens: dict[str, float] = {}

    def note(name: str, seconds: float, sound: float) -> None:
        factors.setdefault(name, []).append(sound / seconds)

    def beside(name: str) -> None:
        at_work = LanguageModelAtWork(model)
        at_work.start()
        before = at_work.tokens
        seconds, sound = spoken(assistant)
        tokens[name] = (at_work.tokens - before) / seconds
        at_work.stop()
        note(name, seconds, sound)

    for _ in range(rounds + 1):
        seconds, codes = speech_decoder_alone(model)
        codec_seconds, sound = codec_alone(model, codes)
        note("speech decoder", seconds, sound)
        note("codec", codec_seconds, sound)
        note("both, streamed", *spoken(assistant))
        beside("both, beside the language model")
        if hasattr(os, "sched_setaffinity"):
            with one_core():
                beside("both, sharing its core")
    return {name: values[1:] for name, values in factors.items()}, tokens


def main() -> int:
    """Print the table; 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console = Console(options.json)
    model = Model(Bundle.open(options.bundle), threads=1)
    with Assistant(model) as assistant:
        factors, tokens = measure(assistant, model, 2 if options.quick else options.rounds)
    rows, figures, bars = [], {}, []
    for name, values in factors.items():
        low, middle, high = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
        beside = tokens.get(name)  # a bar where a language model decodes meanwhile
        bars.append(Bar(name, middle, None if beside is None else LEAST))
        rows.append([
            name, f"{middle:.1f} ×", f"{low:.1f} to {high:.1f}", "" if beside is None else f"{beside:.0f}",
            bars[-1].wanted, bars[-1].verdict,
        ])  # fmt: skip
        figures[name] = {"real_time": middle, "quartiles": [low, high], "language_model_tokens_s": beside}
    header = ["one core", "real time", "quartiles", "its tokens/s", "should be", "reached"]
    console.table("", header, rows, [1, 2, 3, 4])
    console.result({"sentences": len(SENTENCES), "rates": figures})
    return 0 if none_missed(bars) else 1


if __name__ == "__main__":
    sys.exit(main())
