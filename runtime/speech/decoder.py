"""A piece of text into speech codes: text frames, the non-autoregressive half, then code after code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.embeddings import EmbeddingTable
from sottovoce.runtime.errors import BundleError
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.manifest import SpeechSpec
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.sampling import Sampler
from sottovoce.runtime.stages.speech_codes import SpeechCodes
from sottovoce.runtime.stages.speech_text import SpeechText
from sottovoce.runtime.tensor_dump import TensorDump

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SpeechDecoderParts:
    """What the speech decoder is made of."""

    spec: SpeechSpec
    token_embeddings: EmbeddingTable
    code_embeddings: EmbeddingTable
    speech_text: SpeechText
    speech_codes: SpeechCodes


class SpeechDecoder:
    """Text ids → codes, one at a time. Every piece of text starts from an empty cache.

    Args:
        parts: the two graphs and the two tables.
        sampler: picks the codes.
        stopwatch: takes the spans `speech_text` and `speech_codes`.
        dump: takes what was computed, if anyone asked.
        cache: of another decoder, which is not used any more; None makes one when it is needed.
    """

    def __init__(
        self,
        parts: SpeechDecoderParts,
        sampler: Sampler,
        stopwatch: Stopwatch,
        dump: TensorDump | None = None,
        cache: KVCache | None = None,
    ) -> None:
        self._parts = parts
        self._sampler = sampler
        self._stopwatch = stopwatch
        self._dump = dump
        self._cache = cache
        spec = parts.spec
        self._frames_per_token = parts.token_embeddings.spec.width // spec.frame_width
        self._banned = [row for row in range(spec.codes, parts.code_embeddings.spec.rows) if row != spec.end_id]

    def codes(self, ids: Sequence[int]) -> Iterator[int]:
        """The codes that say `ids`; begin, start and padding ids are never among them."""
        if self._cache is None:
            self._cache = self._parts.speech_codes.create_cache()
        cache = self._cache
        # Half of the context for the text, half for its codes: longer text is said part after part.
        part = max(1, (cache.max_length // 2 - 1) // self._frames_per_token)
        for start in range(0, len(ids), part):
            cache.reset()
            yield from self._codes_of_part(ids[start : start + part], cache)

    def _codes_of_part(self, ids: Sequence[int], cache: KVCache) -> Iterator[int]:
        spec, codes = self._parts.spec, self._parts.speech_codes
        conditioned = self._conditioned(ids)
        begin = self._parts.code_embeddings.rows([spec.begin_id])
        if begin.shape[1] != conditioned.shape[1]:
            raise BundleError(
                f"rows of code_embeddings are {begin.shape[1]} wide, conditioned frames {conditioned.shape[1]}",
                fix="export the checkpoint again",
            )
        with self._stopwatch.measure("speech_codes"):
            codes.prefill(np.concatenate([begin, conditioned]), cache)
        said: list[int] = []
        code = spec.start_id
        while len(said) < spec.max_codes and cache.room:
            with self._stopwatch.measure("speech_codes"):
                code = self._next(codes.step(self._parts.code_embeddings.rows([code]), cache), said)
            if code == spec.end_id:
                return
            said.append(code)
            if self._dump is not None:
                self._dump.add("speech.codes", np.array([code], dtype=np.int64))
            yield code

    def _conditioned(self, ids: Sequence[int]) -> Floats:
        """(n,) ids → (frames, width): each embedding of the language model is cut into frames."""
        with self._stopwatch.measure("speech_text"):
            frames = self._parts.token_embeddings.rows(list(ids)).reshape(-1, self._parts.spec.frame_width)
            conditioned = self._parts.speech_text(frames)
        if self._dump is not None:
            self._dump.add("speech.text_frames", frames)
            self._dump.add("speech.nar", conditioned)
        return conditioned

    def _next(self, logits: Floats, said: Sequence[int]) -> int:
        if self._dump is not None:
            self._dump.add("speech.step_logits", logits[None])
        spec = self._parts.spec
        if spec.penalty != 1.0 and spec.penalty_window > 0 and said and not self._sampler.options.is_greedy:
            # VITA divides negative logits too, which favours them: its models were heard that way.
            logits = logits.copy()
            recent = np.unique(said[-spec.penalty_window :])
            logits[recent] /= spec.penalty
        return self._sampler.pick(logits, banned=self._banned)
