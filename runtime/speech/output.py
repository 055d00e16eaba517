"""Pieces of text into segments of samples, each given out as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.manifest import SpeechSpec
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.sampling import Sampler
from sottovoce.runtime.speech.decoder import SpeechDecoder, SpeechDecoderParts
from sottovoce.runtime.speech.stream import CutRule, SpeechStream, Step
from sottovoce.runtime.stages.codec import Codec, time_steps
from sottovoce.runtime.tensor_dump import TensorDump
from sottovoce.runtime.text.tokenizer import Tokenizer

Samples = npt.NDArray[np.float32]


@dataclass
class SpeechOutput:
    """The voice of one reply: its first piece is cut short for a quick start, later ones are cut longer.

    Args:
        spec: ids, limits and streaming rules.
        tokenizer: text to ids.
        decoder: ids to codes.
        codec: codes to samples.
        stopwatch: takes the span `codec`.
        dump: takes the waveform, if anyone asked.
    """

    spec: SpeechSpec
    tokenizer: Tokenizer
    decoder: SpeechDecoder
    codec: Codec
    stopwatch: Stopwatch
    dump: TensorDump | None = None
    _begun: bool = field(default=False, init=False)

    def say(self, text: str, is_cancelled: Callable[[], bool] = lambda: False) -> Iterator[Samples]:
        """Segments (n,) of the speech of `text`, which is cleaned and spelled out already.

        Between two codes `is_cancelled` is asked; if so, nothing more is given out.
        """
        stream = self._stream(is_first=not self._begun)
        self._begun = True
        said: list[Step] = []
        for code in time_steps(self.decoder.codes(self.tokenizer.encode_plain(text)), self.codec.books):
            if is_cancelled():
                return
            said.append(code)
            segment = stream.append(code)
            if segment is not None:
                yield segment
        rest = stream.finish()
        if self.dump is not None and said:
            self.dump.add("codec.waveform", self._decode(said))
        if rest is not None and not is_cancelled():
            yield rest

    def _stream(self, is_first: bool) -> SpeechStream:
        piece = self.spec.first_piece if is_first else self.spec.later_pieces
        rule = CutRule(self.spec.cut_window_samples, self.spec.cut_search_samples, piece.threshold)
        return SpeechStream(self._decode, self.spec.samples_per_code, piece, rule, self.spec.onset if is_first else ())

    def _decode(self, codes: Sequence[Step]) -> Samples:
        with self.stopwatch.measure("codec"):
            return self.codec(codes)


def open_speech_output(
    model: Model,
    sampler: Sampler,
    stopwatch: Stopwatch,
    dump: TensorDump | None = None,
    cache: KVCache | None = None,
) -> SpeechOutput:
    """The voice of a bundle, for one reply; takes the span `load` if its stages are not loaded yet.

    Args:
        model: the bundle's stages.
        sampler: picks the codes.
        stopwatch: of the reply.
        dump: takes what is computed, if anyone asked.
        cache: of the speech codes, which an earlier reply is through with.
    """
    spec = model.manifest.speech
    with stopwatch.measure("load"):
        parts = SpeechDecoderParts(
            spec, model.token_embeddings, model.code_embeddings, model.speech_text, model.speech_codes
        )
        codec = model.codec
    decoder = SpeechDecoder(parts, sampler, stopwatch, dump, cache)
    return SpeechOutput(spec, model.tokenizer, decoder, codec, stopwatch, dump)
