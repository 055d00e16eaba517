"""What the stages of a bundle are fed: noted while the bundle itself listens, looks, thinks and speaks.

Both bundles are then given these same inputs, stage by stage, so that what one stage does wrong is not counted again in
the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sottovoce.calibration.divergence.built_in_inputs import synthetic_picture, synthetic_speech
from sottovoce.calibration.evaluation_set import read_evaluation_set
from sottovoce.calibration.replay import replay
from sottovoce.runtime.assistant import Assistant
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.session import Array, CacheBuffers
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.contracts import tensor_by_role
from sottovoce.runtime.conversation_set.capture_record import read_capture_record
from sottovoce.runtime.features.audio_file import read_audio
from sottovoce.runtime.features.fbank import mel_filterbank
from sottovoce.runtime.features.images import pixels, read_image, tile_image
from sottovoce.runtime.manifest import STAGES, StageName
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.progress import Progress
from sottovoce.runtime.sampling import Sampler, SamplingOptions
from sottovoce.runtime.speech.decoder import SpeechDecoder, SpeechDecoderParts
from sottovoce.runtime.stages.codec import time_steps

Floats = npt.NDArray[np.float32]
CONVERSATIONS = 4
"""Of a set, so many conversations are held: each of their calls is computed several times, with all its values."""
DECODER_CALLS, OTHER_CALLS = 128, 8
"""Calls of a stage that are kept."""


@dataclass(frozen=True)
class StageCall:
    """One call of a stage.

    Args:
        feeds: inputs by name, but for the buffers of a cache.
        sequence: which cache it goes on in, from 0; None for a stage without one.
        cached: positions in the cache before.
        positions: positions that it appends.
    """

    feeds: Mapping[str, Array]
    sequence: int | None = None
    cached: int = 0
    positions: int = 0


@dataclass(frozen=True)
class StageInputs:
    """What to hold the bundles against each other with.

    Args:
        data: a set of conversations; None for a built-in one, made of the following.
        audio: a recording; None for a synthetic one.
        image: a picture; None for a synthetic one.
        text: the typed part of the question, and what is spoken.
        steps: tokens and codes of the built-in conversation.
    """

    data: Path | None = None
    audio: Path | None = None
    image: Path | None = None
    text: str = "What is the time?"
    steps: int = 24


class RecordingSession(OnnxRuntimeSession):
    """A stage whose first calls are kept."""

    def __init__(self, bundle: Bundle, stage: StageName) -> None:
        spec = bundle.graph(stage)
        super().__init__(stage, spec, bundle.file(spec.file))
        self.calls: list[StageCall] = []
        self._caches: list[CacheBuffers] = []
        self._most = OTHER_CALLS if spec.cache is None else DECODER_CALLS

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once, and keep what was fed."""
        if len(self.calls) < self._most:
            self.calls.append(StageCall(_copied(feeds)))
        return super().run(feeds, outputs)

    def run_with_cache(self, feeds: Mapping[str, Array], cache: CacheBuffers) -> dict[str, Array]:
        """Run once, and keep what was fed, and to which cache."""
        if len(self.calls) < self._most:
            if not any(known is cache for known in self._caches):
                self._caches.append(cache)
            sequence = next(number for number, known in enumerate(self._caches) if known is cache)
            positions = feeds[tensor_by_role(self.spec.inputs, "embeddings").name].shape[1]
            cached = int(feeds[tensor_by_role(self.spec.inputs, "cache_length").name][0])  # type: ignore[call-overload]
            self.calls.append(StageCall(_copied(feeds), sequence, cached, positions))
        return super().run_with_cache(feeds, cache)


def record_calls(bundle: Bundle, inputs: StageInputs, progress: Progress) -> dict[StageName, list[StageCall]]:
    """Hold conversations with `bundle` and note what each of its stages was fed, in order.

    A stage that the set does not use is fed with the built-in inputs.

    Raises:
        InputError: a set, recording or picture that cannot be read, or captures of another model.
        BackendError: the engine refuses one of the bundle's graphs.
    """
    sessions: dict[StageName, RecordingSession] = {}

    def open_stage(stage: StageName) -> RecordingSession:
        sessions[stage] = RecordingSession(bundle, stage)
        return sessions[stage]

    with Assistant(model := Model(bundle, open_stage=open_stage)) as assistant:
        if inputs.data is None:
            _ask(assistant, bundle, inputs)
        else:
            _hold(assistant, bundle, inputs.data, progress)
        used = {stage for stage, session in sessions.items() if session.calls}
        if "audio_encoder" not in used:
            model.audio_encoder(_features(bundle, inputs))
        if "vision_encoder" not in used:
            model.vision_encoder(_pixels(bundle, inputs))
        if not {"speech_text", "speech_codes", "codec"} <= used:
            _speak(model, inputs)
    return {stage: sessions[stage].calls for stage in STAGES}


def _hold(assistant: Assistant, bundle: Bundle, data: Path, progress: Progress) -> None:
    items = read_evaluation_set(data)[:CONVERSATIONS]
    read_capture_record(data, bundle.manifest)  # another model's captures are refused
    for number, item in enumerate(items):
        progress.step("holding conversations", number, len(items))
        replay(assistant, item, data, speech=True)
    progress.step("holding conversations", len(items), len(items))


def _ask(assistant: Assistant, bundle: Bundle, inputs: StageInputs) -> None:
    front_ends = bundle.manifest
    audio = read_audio(inputs.audio) if inputs.audio else synthetic_speech(front_ends.audio.sample_rate)
    picture = read_image(inputs.image) if inputs.image else synthetic_picture(front_ends.image.image_size)
    conversation = assistant.conversation(greedy=True, max_new_tokens=inputs.steps, speech=False)
    for _ in conversation.ask(inputs.text, audio, [picture]):
        pass


def _features(bundle: Bundle, inputs: StageInputs) -> Floats:
    front_end = bundle.manifest.audio
    return mel_filterbank(
        read_audio(inputs.audio) if inputs.audio else synthetic_speech(front_end.sample_rate), front_end
    )


def _pixels(bundle: Bundle, inputs: StageInputs) -> Floats:
    front_end = bundle.manifest.image
    picture = read_image(inputs.image) if inputs.image else synthetic_picture(front_end.image_size)
    return pixels(tile_image(picture, front_end), front_end)


def _speak(model: Model, inputs: StageInputs) -> None:
    """So many codes of the text, greedily, and their sound."""
    speech, codec = model.manifest.speech, model.codec
    parts = SpeechDecoderParts(
        speech, model.token_embeddings, model.code_embeddings, model.speech_text, model.speech_codes
    )
    decoder = SpeechDecoder(parts, Sampler(SamplingOptions(greedy=True), np.random.SeedSequence(0)), Stopwatch())
    ids = model.tokenizer.encode_plain(inputs.text.lower())
    codes = list(itertools.islice(decoder.codes(ids), max(inputs.steps, codec.books)))
    if len(codes) < codec.books:  # it fell silent at once
        codes = [code % speech.codes for code in range(8 * codec.books)]
    codec(list(time_steps(codes, codec.books)))


def _copied(feeds: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(values) for name, values in feeds.items()}
