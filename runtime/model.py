"""A bundle ready to compute: its tables and tokenizer, and its stages, each loaded when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

from sottovoce.runtime.backends import check_backend, open_session
from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.cores import available_cores
from sottovoce.runtime.embeddings import EmbeddingTable
from sottovoce.runtime.errors import BackendError, BundleError
from sottovoce.runtime.manifest import STAGES, BundleManifest, StageName
from sottovoce.runtime.stages.audio_encoder import AudioEncoder
from sottovoce.runtime.stages.codec import Codec
from sottovoce.runtime.stages.language_model import LanguageModel
from sottovoce.runtime.stages.speech_codes import SpeechCodes
from sottovoce.runtime.stages.speech_text import SpeechText
from sottovoce.runtime.stages.vision_encoder import VisionEncoder
from sottovoce.runtime.text.prompt import PromptBuilder
from sottovoce.runtime.text.tokenizer import Tokenizer

Stage = TypeVar("Stage")


class Model:
    """What all conversations with one bundle share.

    Args:
        bundle: a checked bundle.
        backend: the inference engine, "auto" for the best that is there.
        threads: CPU cores to use; None for all that this process may use.
        open_stage: loads a stage's graph; None: as the backend does it.
        require_engine: refuse to compute with anything but TensorRT engines that fit this machine.

    Raises:
        BackendError: there is no such backend.
        BundleError: a table or the tokenizer does not fit the rest.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: str = "auto",
        threads: int | None = None,
        open_stage: Callable[[StageName], Session] | None = None,
        require_engine: bool = False,
    ) -> None:
        self.bundle = bundle
        self.backend = check_backend(backend, bundle, require_engine)
        self._open_stage = open_stage or (
            lambda stage: open_session(bundle, stage, self.backend, threads, require_engine)
        )
        manifest = bundle.manifest
        self.tokenizer = Tokenizer(bundle.file(manifest.tokenizer))
        if self.tokenizer.size > manifest.token_embeddings.rows:
            raise BundleError(
                f"{self.tokenizer.size} tokens, but token_embeddings has {manifest.token_embeddings.rows} rows",
                file=bundle.file(manifest.tokenizer),
                fix="export the checkpoint again",
            )
        self.prompt = PromptBuilder(self.tokenizer, manifest.prompt)
        self.token_embeddings = EmbeddingTable(bundle, manifest.token_embeddings)
        self.code_embeddings = EmbeddingTable(bundle, manifest.code_embeddings)
        self._sessions: dict[StageName, Session] = {}
        self._stages: dict[StageName, object] = {}
        self._closed = False

    @property
    def manifest(self) -> BundleManifest:
        """What the bundle says about itself."""
        return self.bundle.manifest

    @property
    def audio_encoder(self) -> AudioEncoder:
        """Loaded when first used, like all stages."""
        return self._stage("audio_encoder", AudioEncoder)

    @property
    def vision_encoder(self) -> VisionEncoder:
        """Loaded when a picture comes."""
        return self._stage("vision_encoder", VisionEncoder)

    @property
    def language_model(self) -> LanguageModel:
        """The decoder of text."""
        return self._stage("language_model", LanguageModel)

    @property
    def speech_text(self) -> SpeechText:
        """The speech decoder's first half."""
        return self._stage("speech_text", SpeechText)

    @property
    def speech_codes(self) -> SpeechCodes:
        """The speech decoder's second half."""
        return self._stage("speech_codes", SpeechCodes)

    @property
    def codec(self) -> Codec:
        """Codes to samples."""
        return self._stage("codec", lambda session: Codec(session, self.manifest.speech.samples_per_code))

    @property
    def context_length(self) -> int:
        """Positions that a conversation may fill."""
        cache = self.bundle.graph("language_model").cache
        limit = self.manifest.generation.context_length
        return min(limit, cache.max_length) if cache is not None else limit

    def session(self, stage: StageName) -> Session:
        """The loaded graph of `stage`, for what the stage's class does not offer.

        Raises:
            BackendError: the engine refused the graph, or the model is closed.
        """
        if self._closed:
            raise BackendError(
                "this assistant is closed", fix="open it again, or keep using it inside its `with` block"
            )
        if stage not in self._sessions:
            self._sessions[stage] = self._open_stage(stage)
        return self._sessions[stage]

    def load(self, stages: Iterable[StageName]) -> None:
        """Open the graphs of these stages now, several at once: reading and optimizing one leaves a core idle.

        Raises:
            BackendError: the engine refused a graph, or the model is closed.
        """
        missing = [stage for stage in stages if stage not in self._sessions]
        with ThreadPoolExecutor(available_cores(), "load") as pool:
            for opened in [pool.submit(self.session, stage) for stage in missing]:
                opened.result()

    def widened_stages(self) -> dict[StageName, bool]:
        """For each stage whether float16 weights are computed in float32 here; loads all stages."""
        return {stage: self.session(stage).widened for stage in STAGES}

    def close(self) -> None:
        """Release all engines' memory."""
        self._closed = True
        self._stages.clear()
        while self._sessions:
            self._sessions.popitem()[1].close()

    def _stage(self, name: StageName, make: Callable[[Session], Stage]) -> Stage:
        session = self.session(name)
        if name not in self._stages:
            self._stages[name] = make(session)
        return cast("Stage", self._stages[name])
