"""What one user turn brings, made ready for the language model: features, pixels, and finally parts to feed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.dialogue.context import Part, embeddings_of
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.features.audio_file import AudioSource, Waveform, read_audio
from sottovoce.runtime.features.fbank import mel_filterbank, token_count
from sottovoce.runtime.manifest import BundleManifest
from sottovoce.runtime.model import Model
from sottovoce.runtime.profile import Stopwatch
from sottovoce.runtime.tensor_dump import TensorDump
from sottovoce.runtime.text.prompt import AUDIO_ID, IMAGE_ID, UserContent

if TYPE_CHECKING:
    from sottovoce.runtime.features.images import ImageSource

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Question:
    """What the user said and showed.

    Raises:
        InputError: nothing at all, or pictures together with a video, which the model was not made for.
    """

    text: str | None = None
    audio: AudioSource | Waveform | None = None
    images: Sequence[ImageSource] = ()
    video: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.images, (str, os.PathLike)):
            raise InputError(f"images is {str(self.images)!r}, expected a list", fix=f"give [{str(self.images)!r}]")
        if not self.text and self.audio is None and not len(self.images) and self.video is None:
            raise InputError("nothing was asked", fix="give a text, a recording, a picture or a video")
        if len(self.images) and self.video is not None:
            raise InputError("pictures and a video in one turn", fix="ask about them in two turns")


@dataclass(frozen=True)
class PreparedQuestion:
    """A question's front-end features: log mel energies (frames, bins) and pixels (tiles, 3, size, size)."""

    content: UserContent
    features: Floats | None
    pixels: Floats | None
    has_video: bool = False

    def positions(self, ids: Sequence[int], manifest: BundleManifest) -> int:
        """How many positions `ids` fill once the places of pictures and recordings are filled."""
        heard = 0 if self.features is None else token_count(len(self.features), manifest.audio)
        seen = manifest.image.tokens_per_tile
        return len(ids) + ids.count(AUDIO_ID) * (heard - 1) + ids.count(IMAGE_ID) * (seen - 1)


def prepare(question: Question, manifest: BundleManifest, stopwatch: Stopwatch) -> PreparedQuestion:
    """Read the question's files and compute its features; takes the spans `audio_features` and `image_features`.

    Raises:
        InputError: a file that cannot be read, or a recording that is too long or too short.
    """
    features = pixels = None
    if question.audio is not None:
        with stopwatch.measure("audio_features"):
            audio, limit = question.audio, manifest.audio.max_seconds
            waveform = audio if isinstance(audio, Waveform) else read_audio(audio, max_seconds=limit)
            features = mel_filterbank(waveform, manifest.audio)
    if len(question.images) or question.video is not None:
        with stopwatch.measure("image_features"):
            pixels = _pixels(question, manifest)
    content = UserContent(0 if pixels is None else len(pixels), features is not None, question.text or "")
    return PreparedQuestion(content, features, pixels, question.video is not None)


def parts_of(
    ids: Sequence[int], prepared: PreparedQuestion, model: Model, stopwatch: Stopwatch, dump: TensorDump | None
) -> list[Part]:
    """Run the encoders and put what they give in the places that `ids` hold for it.

    Takes the spans `load`, `audio_encoder` and `vision_encoder`.
    """
    heard = None if prepared.features is None else _hear(prepared.features, model, stopwatch)
    seen = None if prepared.pixels is None else _see(prepared.pixels, model, stopwatch)
    parts = spliced(ids, heard, seen)
    if dump is not None:
        named = {"audio.fbank": prepared.features, "audio.embeddings": heard}
        named |= {"image.pixels": prepared.pixels, "image.embeddings": seen}
        embeddings = embeddings_of(parts, model.token_embeddings.rows)
        # The type of `named` was taken from its first values; the dump takes arrays of any type.
        named |= {"llm.ids": np.asarray(ids, dtype=np.int64), "llm.embeddings": embeddings}  # type: ignore[dict-item]
        for name, values in named.items():
            if values is not None:
                dump.add(name, values)  # type: ignore[arg-type]  # the names above are the dump's
    return parts


def see(question: Question, model: Model, stopwatch: Stopwatch) -> Floats:
    """A question's pictures or frames → (tiles, tokens of a tile, width).

    Raises:
        InputError: one that cannot be read.
    """
    with stopwatch.measure("image_features"):
        pixels = _pixels(question, model.manifest)
    return _see(pixels, model, stopwatch)


def _pixels(question: Question, manifest: BundleManifest) -> Floats:
    from sottovoce.runtime.features.images import pixels, read_image, tile_image

    if question.video is not None:
        from sottovoce.runtime.features.video import read_video

        return pixels(read_video(question.video, manifest.video), manifest.image)
    tiles = [tile for image in question.images for tile in tile_image(read_image(image), manifest.image)]
    return pixels(tiles, manifest.image)


def _hear(features: Floats, model: Model, stopwatch: Stopwatch) -> Floats:
    with stopwatch.measure("load"):
        encoder = model.audio_encoder
    with stopwatch.measure("audio_encoder"):
        return encoder(features)


def _see(pixels: Floats, model: Model, stopwatch: Stopwatch) -> Floats:
    with stopwatch.measure("load"):
        encoder = model.vision_encoder
    with stopwatch.measure("vision_encoder"):
        return encoder(pixels)


def spliced(ids: Sequence[int], heard: Floats | None, seen: Iterable[Floats] | None) -> list[Part]:
    """Ids, and the encoders' embeddings in place of the markers, in order."""
    parts: list[Part] = []
    tiles = iter([] if seen is None else seen)
    recordings = iter([] if heard is None else [heard])
    start = 0
    for place, token in enumerate(ids):
        if token in (IMAGE_ID, AUDIO_ID):
            parts += [tuple(ids[start:place]), next(tiles if token == IMAGE_ID else recordings)]
            start = place + 1
    parts.append(tuple(ids[start:]))
    return parts
