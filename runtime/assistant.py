"""The door to everything: open a bundle, converse, speak."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.conversation import Conversation
from sottovoce.runtime.conversation_options import ConversationOptions
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.progress import Progress
from sottovoce.runtime.reply import AudioChunk, ReplyDone
from sottovoce.runtime.sampling import Sampler, SamplingOptions
from sottovoce.runtime.speech.output import open_speech_output
from sottovoce.runtime.tensor_dump import TensorDump
from sottovoce.runtime.text.speech_text import SpeechPieces

HEARING: tuple[StageName, ...] = ("audio_encoder", "language_model")
SPEAKING: tuple[StageName, ...] = ("speech_text", "speech_codes", "codec")
FIRST_WORDS = "Hello."
"""Said to nobody, so that the speech stages have run once."""


class Assistant:
    """A bundle that can be talked with; use it as a context manager, or `close` it.

    Args:
        model: the bundle's stages.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    @classmethod
    def open(  # noqa: PLR0913  # the public interface: each option by its name
        cls,
        path: str | os.PathLike[str],
        backend: str = "auto",
        *,
        threads: int | None = None,
        require_engine: bool = False,
        verify_hashes: bool = True,
        progress: Progress | None = None,
    ) -> Assistant:
        """Check a bundle and make it ready; its graphs are loaded when they are first used.

        Args:
            path: the folder that `sottovoce export` wrote.
            backend: the inference engine: "auto" for the best that is there, "onnxruntime" for the CPU, "tensorrt" for
                the bundle's engines; "cuda", "ort-tensorrt" and "nv-tensorrt-rtx" for ONNX Runtime on a GPU.
            threads: CPU cores to use; None for all that this process may use.
            require_engine: fail where an engine of the bundle cannot be used, instead of going on with ONNX Runtime.
            verify_hashes: compare every file's SHA-256 (about a second per gigabyte and core).
            progress: told of the checking.

        Raises:
            BundleError: not a bundle, of another version, or damaged.
            BackendError: there is no such backend.
        """
        bundle = Bundle.open(path, verify_hashes=verify_hashes, progress=progress)
        return cls(Model(bundle, backend, threads, require_engine=require_engine))

    @property
    def bundle(self) -> Bundle:
        """The bundle's manifest and files."""
        return self._model.bundle

    @property
    def sample_rate(self) -> int:
        """Samples a second of all speech that is given out."""
        return self._model.manifest.speech.sample_rate

    def conversation(  # noqa: PLR0913  # the public interface: each option by its name
        self,
        system: str | None = None,
        *,
        greedy: bool = False,
        seed: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float | None = None,
        max_new_tokens: int | None = None,
        speech: bool = True,
        dump: TensorDump | None = None,
    ) -> Conversation:
        """Begin a conversation. What is None is as the bundle says.

        Args:
            system: who the assistant is and how it should answer.
            greedy: always the most likely token and code, without a repetition penalty unless one is given.
            seed: the same seed and the same questions give the same replies.
            temperature: above 1 wilder, below 1 tamer; 0 is greedy.
            top_k: pick among so many most likely tokens (0: all).
            top_p: pick among the most likely tokens that reach this probability.
            repetition_penalty: above 1, tokens already used in the reply become less likely.
            max_new_tokens: a reply ends after so many.
            speech: False for text alone.
            dump: collects the stages' tensors.

        Raises:
            InputError: a value outside its range.
            BackendError: the language model cannot be loaded.
        """
        generation = self._model.manifest.generation
        own_penalty = 1.0 if greedy else generation.repetition_penalty
        sampling = SamplingOptions(
            greedy=greedy,
            temperature=generation.temperature if temperature is None else temperature,
            top_k=generation.top_k if top_k is None else top_k,
            top_p=generation.top_p if top_p is None else top_p,
            repetition_penalty=own_penalty if repetition_penalty is None else repetition_penalty,
        )
        limit = generation.max_new_tokens if max_new_tokens is None else max_new_tokens
        if limit < 1:
            raise InputError(f"max_new_tokens is {limit}", fix="choose 1 or more")
        options = ConversationOptions(system, sampling, self._speech_sampling(greedy), seed, limit, speech, dump=dump)
        return Conversation(self._model, options)

    def say(
        self, text: str, *, greedy: bool = False, seed: int | None = None, dump: TensorDump | None = None
    ) -> Iterator[AudioChunk | ReplyDone]:
        """Speak a text, piece after piece; the last event is `ReplyDone("stop", …)`.

        Raises:
            InputError: there is nothing in the text that can be spoken.
        """
        pieces = SpeechPieces(self._model.manifest.speech, self._model.manifest.prompt.states)
        spoken = [*pieces.append(text), *pieces.finish()]
        if not spoken:
            raise InputError(f"nothing in this text can be spoken: {text[:40]!r}", fix="give some words")
        sampler = Sampler(self._speech_sampling(greedy), np.random.SeedSequence(seed).spawn(2)[1])
        return self._say([piece.text for piece in spoken], text, sampler, dump)

    def load(self, *, speech: bool = True) -> None:
        """Load what every spoken turn needs now, so that the first is answered as soon as the later ones.

        Args:
            speech: also what replies are spoken with.

        Raises:
            BackendError: a graph cannot be loaded.
        """
        self._model.load(HEARING + SPEAKING if speech else HEARING)
        if speech:
            for _ in self.say(FIRST_WORDS, greedy=True):
                pass

    def widened_stages(self) -> dict[StageName, bool]:
        """For each stage whether its float16 weights are computed in float32 here; loads all stages."""
        return self._model.widened_stages()

    def close(self) -> None:
        """Release the engines' memory; conversations of this assistant end with it."""
        self._model.close()

    def __enter__(self) -> Assistant:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()

    def _speech_sampling(self, greedy: bool) -> SamplingOptions:
        return SamplingOptions(greedy=greedy, top_k=self._model.manifest.speech.top_k)

    def _say(
        self, pieces: list[str], text: str, sampler: Sampler, dump: TensorDump | None
    ) -> Iterator[AudioChunk | ReplyDone]:
        stopwatch = Stopwatch()
        output = open_speech_output(self._model, sampler, stopwatch, dump)
        for piece in pieces:
            for samples in output.say(piece):
                stopwatch.mark("first_audio")
                yield AudioChunk(samples, epoch=0)
        yield ReplyDone("stop", stopwatch.milliseconds(), text)
