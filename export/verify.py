"""`sottovoce verify`: every graph of a bundle against the PyTorch stage it was made from.

Each stage is given the *reference's* inputs, so that an error shows where it arises and nowhere else. Greedy tokens are
compared teacher-forced: the bundle writes a reply, and the reference says at each step what it would have written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sottovoce.calibration.divergence.built_in_inputs import synthetic_picture, synthetic_speech
from sottovoce.export.checkpoint.folder import resolve_checkpoint
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.parity import (
    BARS,
    ParityReport,
    StageParity,
    TensorParity,
    TokenParity,
    compare_tensor,
    compare_tokens,
)
from sottovoce.export.reference import Reference
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.embeddings import EmbeddingTable
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.features.audio_file import read_audio
from sottovoce.runtime.features.fbank import mel_filterbank
from sottovoce.runtime.features.images import pixels, read_image, tile_image
from sottovoce.runtime.manifest import STAGES, StageName
from sottovoce.runtime.progress import Progress, SilentProgress
from sottovoce.runtime.stages.audio_encoder import AudioEncoder
from sottovoce.runtime.stages.codec import Codec, time_steps
from sottovoce.runtime.stages.language_model import LanguageModel
from sottovoce.runtime.stages.speech_codes import SpeechCodes
from sottovoce.runtime.stages.speech_text import SpeechText
from sottovoce.runtime.stages.vision_encoder import VisionEncoder
from sottovoce.runtime.text.prompt import AUDIO_ID, IMAGE_ID, PromptBuilder, UserContent
from sottovoce.runtime.text.tokenizer import Tokenizer

Floats = npt.NDArray[np.float32]
MAX_TILES = 3
"""More tiles prove nothing more, and a full-size tile takes PyTorch seconds."""


@dataclass(frozen=True)
class VerifyOptions:
    """What to compare with.

    Args:
        audio: a recording; None for a synthetic one.
        image: a picture; None for a synthetic one.
        text: the typed part of the prompt, and what the speech decoder says.
        steps: greedy tokens and codes to compare.
        ignored_config_keys: as in `ExportOptions`.
    """

    audio: Path | None = None
    image: Path | None = None
    text: str = "What is the time?"
    steps: int = 24
    ignored_config_keys: tuple[str, ...] = ()


def verify(
    bundle: str | Path, checkpoint: str, options: VerifyOptions, progress: Progress | None = None
) -> ParityReport:
    """Compare all six stages.

    Raises:
        SottovoceError: the bundle or the checkpoint cannot be read, or they have different sizes.
    """
    opened = Bundle.open(bundle, progress=progress)
    source = Checkpoint.open(resolve_checkpoint(checkpoint), options.ignored_config_keys)
    width = source.config.language_model.hidden_size
    if opened.manifest.token_embeddings.width != width:
        message = (
            f"the bundle is {opened.manifest.token_embeddings.width} wide, the checkpoint's language model {width}"
        )
        raise SottovoceError(message, file=bundle, fix="give the checkpoint that this bundle was made from")
    return _Comparison(opened, Reference(source), options, progress or SilentProgress()).run()


@dataclass
class _Comparison:
    """The six comparisons in the order of computing; what the reference made goes on to the next stage."""

    bundle: Bundle
    reference: Reference
    options: VerifyOptions
    progress: Progress
    stages: list[StageParity] = field(default_factory=list)

    def run(self) -> ParityReport:
        heard = self._audio()
        seen = self._image()
        self._language_model(heard, seen)
        self._codec(self._speech())
        return ParityReport(tuple(self.stages))

    def _audio(self) -> Floats:
        front_end = self.bundle.manifest.audio
        recording = read_audio(self.options.audio) if self.options.audio else synthetic_speech(front_end.sample_rate)
        features = mel_filterbank(recording, front_end)
        with self._session("audio_encoder") as (session, tensors, _):
            expected = self.reference.audio_embeddings(features)
            tensors.append(
                self._compare("audio_encoder", "audio.embeddings", expected, AudioEncoder(session)(features))
            )
        return expected

    def _image(self) -> Floats:
        front_end = self.bundle.manifest.image
        picture = read_image(self.options.image) if self.options.image else synthetic_picture(front_end.image_size)
        shown = pixels(tile_image(picture, front_end)[:MAX_TILES], front_end)
        with self._session("vision_encoder") as (session, tensors, _):
            expected = self.reference.image_embeddings(shown)
            tensors.append(self._compare("vision_encoder", "image.embeddings", expected, VisionEncoder(session)(shown)))
        return expected

    def _language_model(self, heard: Floats, seen: Floats) -> None:
        manifest = self.bundle.manifest
        builder = PromptBuilder(Tokenizer(self.bundle.file(manifest.tokenizer)), manifest.prompt)
        content = UserContent(tiles=len(seen), audio=True, text=self.options.text)
        ids = builder.system(manifest.prompt.system_image) + builder.user(content)
        with self._session("language_model") as (session, tensors, tokens):
            table = EmbeddingTable(self.bundle, manifest.token_embeddings)
            rows = self.reference.token_embeddings([max(i, 0) for i in ids])
            found_rows = table.rows([max(i, 0) for i in ids])
            tensors.append(self._compare("language_model", "llm.token_embeddings", rows, found_rows))
            prompt = _splice(ids, rows, heard, seen)
            model = LanguageModel(session)
            cache = model.create_cache()
            found = [model.prefill(prompt, cache)]
            while len(found) < self.options.steps:
                found.append(model.step(table.rows([int(found[-1].argmax())]), cache))
            said = [int(logits.argmax()) for logits in found[:-1]]
            history = np.concatenate([prompt, self.reference.token_embeddings(said)]) if said else prompt
            expected = self.reference.language_model_logits(history, last=self.options.steps)
            tensors.append(self._compare("language_model", "llm.step_logits", expected, np.stack(found)))
            tokens.append(compare_tokens(expected, np.stack(found), BARS[session.spec.floats]))

    def _speech(self) -> list[int]:
        manifest = self.bundle.manifest
        speech = manifest.speech
        ids = Tokenizer(self.bundle.file(manifest.tokenizer)).encode_plain(self.options.text.lower())
        frames = self.reference.token_embeddings(ids).reshape(-1, speech.frame_width)
        with self._session("speech_text") as (session, tensors, _):
            conditioned = self.reference.conditioned_frames(frames)
            tensors.append(self._compare("speech_text", "speech.nar", conditioned, SpeechText(session)(frames)))
        with self._session("speech_codes") as (session, tensors, tokens):
            rows = EmbeddingTable(self.bundle, manifest.code_embeddings)
            model = SpeechCodes(session)
            cache = model.create_cache()
            model.prefill(np.concatenate([rows.rows([speech.begin_id]), conditioned]), cache)
            found = [model.step(rows.rows([speech.start_id]), cache)]
            codes = [int(found[-1][: speech.codes].argmax())]
            while len(found) < self.options.steps:
                found.append(model.step(rows.rows([codes[-1]]), cache))
                codes.append(int(found[-1][: speech.codes].argmax()))
            expected = self.reference.code_logits(frames, codes[:-1])
            tensors.append(self._compare("speech_codes", "speech.step_logits", expected, np.stack(found)))
            tokens.append(compare_tokens(expected, np.stack(found), BARS[session.spec.floats]))
        return codes

    def _codec(self, codes: list[int]) -> None:
        with self._session("codec") as (session, tensors, _):
            codec = Codec(session, self.bundle.manifest.speech.samples_per_code)
            steps = list(time_steps(codes, codec.books))
            expected, found = self.reference.waveform(steps), codec(steps)
            tensors.append(self._compare("codec", "codec.waveform", expected, found))

    def _compare(self, stage: StageName, tensor: str, expected: Floats, found: Floats) -> TensorParity:
        return compare_tensor(tensor, expected, found, BARS[self.bundle.graph(stage).floats])

    @contextmanager
    def _session(self, stage: StageName) -> Iterator[tuple[OnnxRuntimeSession, list[TensorParity], list[TokenParity]]]:
        """One stage's session and the lists its comparisons go to."""
        self.progress.step("comparing stages", STAGES.index(stage), len(STAGES))
        started = time.perf_counter()
        spec = self.bundle.graph(stage)
        session = OnnxRuntimeSession(stage, spec, self.bundle.file(spec.file))
        tensors: list[TensorParity] = []
        tokens: list[TokenParity] = []
        try:
            yield session, tensors, tokens
        finally:
            session.close()
        seconds = round(time.perf_counter() - started, 3)
        self.stages.append(StageParity(stage, spec.precision, seconds, tuple(tensors), tokens[0] if tokens else None))
        self.progress.step("comparing stages", STAGES.index(stage) + 1, len(STAGES))


def _splice(ids: list[int], rows: Floats, heard: Floats, seen: Floats) -> Floats:
    """Token rows with the embeddings of what was heard and seen in their places."""
    tiles = iter(seen)
    parts: list[Floats] = []
    for place, token in enumerate(ids):
        if token == IMAGE_ID:
            parts.append(next(tiles))
        else:
            parts.append(heard if token == AUDIO_ID else rows[place : place + 1])
    return np.concatenate(parts)
