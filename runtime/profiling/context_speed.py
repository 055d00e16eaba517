"""Prefill and decode by length of context: what a position costs, and how much of that is our Python."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.model import Model
from sottovoce.runtime.profiling.recording import Recording
from sottovoce.runtime.progress import Progress
from sottovoce.runtime.sampling import Sampler, SamplingOptions

CONTEXTS = (256, 1024, 4096)
DECODED = 16
"""Tokens that end at the context's length; fewer where that is very short."""
SECONDS_A_CONTEXT = 20.0
LEAST_REPETITIONS = 3


@dataclass(frozen=True)
class ContextSpeed:
    """The language model at one length of context.

    Args:
        context: positions that are filled when the last token is there.
        prefilled: positions of the prompt, fed in the runtime's slices.
        prefill_ms: a position of the prompt, one value a repetition.
        decode_ms: a token, the values of each repetition.
        python_share: of a decoded token's time, how much is spent outside of the session's call: 0 to 1.
    """

    context: int
    prefilled: int
    prefill_ms: tuple[float, ...]
    decode_ms: tuple[tuple[float, ...], ...]
    python_share: float

    @property
    def prefill_tokens_per_second(self) -> float:
        """By the median repetition."""
        return 1000 / float(np.median(self.prefill_ms))

    @property
    def decode_tokens_per_second(self) -> float:
        """By the median token."""
        return 1000 / float(np.median([value for run in self.decode_ms for value in run]))


def context_speeds(
    model: Model, recording: Recording, contexts: Sequence[int], repetitions: int, progress: Progress
) -> list[ContextSpeed]:
    """Measure at every length that the model's context holds.

    Args:
        model: its language model is timed into `recording`.
        recording: as said.
        contexts: lengths; those that do not fit are left out.
        repetitions: of each length; fewer, but at least three, where they take long.
        progress: told of each length.

    Raises:
        BackendError: the engine failed.
    """
    fitting = [context for context in contexts if 2 <= context <= model.context_length]
    speeds = []
    for done, context in enumerate(fitting, 1):
        speeds.append(_at_context(model, recording, context, repetitions))
        progress.step("language model by length of context", done, len(fitting))
    return speeds


def _at_context(model: Model, recording: Recording, context: int, repetitions: int) -> ContextSpeed:
    decoded = min(DECODED, context // 2)
    cache, prompt = model.language_model.create_cache(), context - decoded
    prefill_ms, decode_ms, shares = [], [], []
    deadline = time.perf_counter() + SECONDS_A_CONTEXT
    for repetition in range(repetitions + 1):
        if repetition > LEAST_REPETITIONS and time.perf_counter() > deadline:
            break
        prefill, token = _prefill(model, cache, prompt)
        recording.take()
        steps = _decode(model, cache, token, decoded)
        inside = sum(call.milliseconds for call in recording.take()[1])
        if repetition:  # the first one fills caches and buffers
            prefill_ms.append(prefill / prompt)
            decode_ms.append(tuple(steps))
            shares.append(1 - inside / sum(steps))
    return ContextSpeed(context, prompt, tuple(prefill_ms), tuple(decode_ms), float(np.median(shares)))


def _prefill(model: Model, cache: KVCache, prompt: int) -> tuple[float, int]:
    """Milliseconds of a prompt from an empty cache, and the token that follows it."""
    cache.reset()
    ids = np.arange(prompt) % model.token_embeddings.spec.rows  # what they mean changes nothing
    started = time.perf_counter()
    logits = model.language_model.prefill(model.token_embeddings.rows(ids), cache)
    return 1000 * (time.perf_counter() - started), int(np.argmax(logits))


def _decode(model: Model, cache: KVCache, token: int, count: int) -> list[float]:
    """Milliseconds of each of `count` tokens: the row of the last, the graph, the choice of the next."""
    generation = model.manifest.generation
    sampler = Sampler(
        SamplingOptions(
            temperature=generation.temperature, top_k=generation.top_k, top_p=generation.top_p,
            repetition_penalty=generation.repetition_penalty,
        ),
        seed=0,
    )  # fmt: skip
    steps, used = [], []
    for _ in range(count):
        started = time.perf_counter()
        used.append(token)
        logits = model.language_model.step(model.token_embeddings.rows([token]), cache)
        token = sampler.pick(logits, used=used)
        steps.append(1000 * (time.perf_counter() - started))
    return steps
