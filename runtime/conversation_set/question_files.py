"""What was said and shown in one question, as files: WAV at the model's rate, lossless PNG, clips as they are."""

from __future__ import annotations

import io
import os
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sottovoce.runtime.conversation_set.writing import refusals_named, write_whole
from sottovoce.runtime.features.audio_file import Waveform, read_audio
from sottovoce.runtime.manifest import AudioFrontEnd
from sottovoce.runtime.question import Question

if TYPE_CHECKING:
    from sottovoce.runtime.features.images import ImageSource

BLOCK_BYTES = 1 << 20
CLIP_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".flv", ".ogv", ".gif", ".mjpeg")
"""The only part of a user's path that is kept, and only if it is one of these: some formats are known by it alone."""


@dataclass(frozen=True)
class CaptureLimits:
    """How much is captured at most.

    Args:
        conversations: lines in the set.
        total_bytes: of all files in the folder.
        picture_pixels: of one picture.
        clip_bytes: of one clip.
    """

    conversations: int = 1000
    total_bytes: int = 2 << 30
    picture_pixels: int = 25_000_000
    clip_bytes: int = 256 << 20


class NotCaptured(Exception):
    """A turn is left out of the set, for the reason in the message: no failure, a bound was reached."""


@dataclass(frozen=True)
class QuestionFiles:
    """Names of the files that hold a question."""

    audio: str | None = None
    images: tuple[str, ...] = ()
    video: str | None = None


@dataclass(frozen=True)
class QuestionWriter:
    """Writes questions into one folder.

    Args:
        folder: where the files go.
        front_end: says how the model hears.
        limits: larger pictures and clips are not written.
    """

    folder: Path
    front_end: AudioFrontEnd
    limits: CaptureLimits

    def write(self, question: Question, stem: str) -> QuestionFiles:
        """Write all that the question brings, under names that begin with `stem`.

        Raises:
            NotCaptured: a picture or clip is larger than the limits.
            InputError: a file of the question cannot be read (any more).
            SottovoceError: the disk is full or not writable.
        """
        audio = video = None
        if question.audio is not None:
            source, limit = question.audio, self.front_end.max_seconds
            waveform = source if isinstance(source, Waveform) else read_audio(source, max_seconds=limit)
            audio = self._write_audio(waveform, f"{stem}-audio.wav")
        pictures = enumerate(question.images, start=1)
        images = tuple(self._write_picture(image, f"{stem}-picture-{number}.png") for number, image in pictures)
        if question.video is not None:
            video = self._copy_clip(Path(question.video), stem)
        return QuestionFiles(audio, images, video)

    def _write_audio(self, waveform: Waveform, name: str) -> str:
        """16-bit mono. A recording of 16 bits at the model's rate keeps its very samples."""
        samples = waveform.at_rate(self.front_end.sample_rate).samples
        # The inverse of reading: libsndfile would multiply floats with 32767, and every loud sample came out one off.
        whole = np.clip(np.rint(samples * np.float32(32768.0)), -32768, 32767).astype("<i2")
        content = io.BytesIO()
        with wave.open(content, "wb") as recording:
            recording.setnchannels(1)
            recording.setsampwidth(2)
            recording.setframerate(self.front_end.sample_rate)
            recording.writeframes(whole.tobytes())
        return self._write(name, content.getvalue())

    def _write_picture(self, source: ImageSource, name: str) -> str:
        """The pixels that the model was shown, and nothing else of the file: no place and time, no profile."""
        from PIL import Image

        from sottovoce.runtime.features.images import read_image

        picture = read_image(source)
        pixels, limit = picture.width * picture.height, self.limits.picture_pixels
        if pixels > limit:
            raise NotCaptured(f"a picture has {pixels:,} pixels, and at most {limit:,} are captured")
        content = io.BytesIO()
        # A device must not wait for the best compression: level 1 is several times as fast, and little larger.
        Image.fromarray(np.asarray(picture)).save(content, "PNG", compress_level=1)
        return self._write(name, content.getvalue())

    def _copy_clip(self, source: Path, stem: str) -> str:
        suffix = source.suffix.lower()
        name = f"{stem}-clip{suffix if suffix in CLIP_SUFFIXES else ''}"
        target, copied = self.folder / name, 0
        with refusals_named(target), source.open("rb") as clip, target.open("wb") as copy:
            while block := clip.read(BLOCK_BYTES):
                copied += len(block)
                if copied > self.limits.clip_bytes:
                    raise NotCaptured(f"a clip has more than the {self.limits.clip_bytes >> 20} MB that are captured")
                copy.write(block)
            copy.flush()
            os.fsync(copy.fileno())
        return name

    def _write(self, name: str, content: bytes) -> str:
        with refusals_named(self.folder / name):
            write_whole(self.folder / name, content)
        return name
