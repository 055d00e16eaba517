"""What a conversation's replies are spoken with: one after another, so that they share what costs time to make."""

from __future__ import annotations

import weakref

from sottovoce.runtime.dialogue.turns import OngoingReply
from sottovoce.runtime.kv_cache import KVCache
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.sampling import Sampler
from sottovoce.runtime.speech.output import SpeechOutput, open_speech_output
from sottovoce.runtime.speech.speaker import Speaker
from sottovoce.runtime.tensor_dump import TensorDump


class Voice:
    """Gives each reply its speaker; at most one of them is used at a time.

    Args:
        model: the bundle's stages, of which those for speech are loaded with the first piece that is spoken.
        sampler: picks the codes.
    """

    def __init__(self, model: Model, sampler: Sampler) -> None:
        self._model = model
        self._sampler = sampler
        self._cache: KVCache | None = None

    def speaker(self, reply: OngoingReply, stopwatch: Stopwatch, dump: TensorDump | None) -> Speaker:
        """For a reply that begins; it falls silent when the reply is cancelled."""
        manifest, ongoing = self._model.manifest, weakref.ref(reply)

        def is_cancelled() -> bool:
            # Weak, since the reply has its speaker: all that both hold would wait for a collection of cycles.
            asked = ongoing()
            return asked is None or asked.cancelled

        return Speaker(manifest.speech, manifest.prompt.states, lambda: self._open(stopwatch, dump), is_cancelled)

    def _open(self, stopwatch: Stopwatch, dump: TensorDump | None) -> SpeechOutput:
        if self._cache is None:
            with stopwatch.measure("load"):
                self._cache = self._model.speech_codes.create_cache()
        return open_speech_output(self._model, self._sampler, stopwatch, dump, self._cache)
