"""Sets for `sottovoce evaluate` and for calibration: `set.jsonl` beside its recordings, pictures and clips."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sottovoce.demos.miniature import augmentation
from sottovoce.demos.miniature.clips import draw_clip
from sottovoce.demos.miniature.curriculum import Exchange, questions
from sottovoce.demos.miniature.followups import followups
from sottovoce.demos.miniature.pictures import DESCRIBE, draw_picture
from sottovoce.demos.miniature.prompts import typed
from sottovoce.demos.miniature.sentences import overheard, say_after_me
from sottovoce.demos.miniature.tokenizer import STATE_NOISE, STATE_SPOKEN, STATE_TYPED
from sottovoce.demos.miniature.voices import SAMPLE_RATE, Voice, draw_held_out_voice, draw_training_voice, speak

PICTURE_SIDE = 112


@dataclass
class Item:
    """One line of `set.jsonl`; paths are relative to its folder."""

    task: str
    reply: str
    state: str
    text: str | None = None
    audio: str | None = None
    images: list[str] = field(default_factory=list)
    video: str | None = None
    history: list[dict[str, str]] = field(default_factory=list)
    voice: str | None = None


class SetWriter:
    """Writes items and their files into a folder; `training` turns the hold-out around, for calibration."""

    def __init__(self, folder: Path, seed: int, training: bool = False) -> None:
        self.folder, self.held_out = folder, not training
        self._draw = random.Random(f"set {seed} {training}")
        self._shaken = np.random.default_rng(self._draw.randrange(1 << 40))
        self._files = 0
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, tasks: Sequence[str], count: int) -> Iterator[str]:
        """Make `count` items of each task, yielding the task's name after each item; `set.jsonl` comes last, whole."""
        lines = []
        for task in tasks:
            for item in islice(getattr(self, f"_{task}")(), count):
                lines.append(json.dumps(_without_defaults(item), ensure_ascii=False))
                yield task
        partial = self.folder / ".set.jsonl"
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.rename(self.folder / "set.jsonl")

    def _voice(self, engine: str) -> Voice:
        if not self.held_out:
            return draw_training_voice(self._draw)
        return draw_held_out_voice(self._draw, "flite" if engine == "flite" else "espeak")

    def _say(self, text: str, engine: str = "espeak") -> tuple[str, str]:
        """Speak with little silence around and at some distance; returns the file's name and the voice's label."""
        voice = self._voice(engine)
        samples = speak(voice, [text], self._draw)[0]
        return self._save_audio(around(samples, self._shaken)), voice.label

    def _save_audio(self, samples: NDArray[np.float32]) -> str:
        import soundfile

        name = f"audio-{self._files:04d}.wav"
        self._files += 1
        soundfile.write(self.folder / name, samples, SAMPLE_RATE, subtype="PCM_16")
        return name

    def _save_picture(self, image: Image.Image) -> str:
        name = f"picture-{self._files:04d}.png"
        self._files += 1
        image.save(self.folder / name)
        return name

    def _questions(self) -> Iterator[Exchange]:
        """Tasks in turn, so that the many sums do not drown the few animals."""
        pool: dict[str, list[Exchange]] = {}
        for exchange in questions():
            # All of small talk is learned: what is new in it here is the voice alone.
            if exchange.held_out == self.held_out or exchange.task == "small_talk":
                pool.setdefault(exchange.task, []).append(exchange)
        while True:
            for exchanges in pool.values():
                yield self._draw.choice(exchanges)

    def _side(self, stream: Iterator[Exchange]) -> Iterator[Exchange]:
        return (exchange for exchange in stream if exchange.held_out == self.held_out)

    def _spoken_question(self, engine: str = "espeak", task: str = "spoken_question") -> Iterator[Item]:
        for exchange in self._questions():
            audio, voice = self._say(exchange.question, engine)
            yield Item(task, exchange.reply, STATE_SPOKEN, audio=audio, voice=voice)

    def _spoken_question_new_synthesizer(self) -> Iterator[Item]:
        yield from self._spoken_question("flite", "spoken_question_new_synthesizer")

    def _typed_question(self) -> Iterator[Item]:
        for exchange in self._questions():
            yield Item("typed_question", exchange.reply, STATE_TYPED, text=typed(exchange.question, self._draw))

    def _follow_up(self) -> Iterator[Item]:
        for i, exchange in enumerate(self._side(followups(self._draw.randrange(1 << 40)))):
            history = [
                {"role": role, "text": text}
                for turn in exchange.history
                for role, text in (("user", turn.question), ("assistant", turn.reply))
            ]
            if i % 2:
                yield Item("follow_up", exchange.reply, STATE_TYPED, text=typed(exchange.question, self._draw),
                           history=history)  # fmt: skip
            else:
                audio, voice = self._say(exchange.question)
                yield Item("follow_up", exchange.reply, STATE_SPOKEN, audio=audio, voice=voice, history=history)

    def _say_after_me(self) -> Iterator[Item]:
        for exchange in self._side(say_after_me(self._draw.randrange(1 << 40))):
            audio, voice = self._say(exchange.question)
            yield Item("say_after_me", exchange.reply, STATE_SPOKEN, audio=audio, voice=voice)

    def _picture_caption(self) -> Iterator[Item]:
        while True:
            picture = draw_picture(self._draw, self.held_out, PICTURE_SIDE)
            asked = typed(self._draw.choice(DESCRIBE), self._draw)
            yield Item("picture_caption", picture.caption, STATE_TYPED, text=asked,
                       images=[self._save_picture(picture.image)])  # fmt: skip

    def _picture_question(self) -> Iterator[Item]:
        while True:
            picture = draw_picture(self._draw, self.held_out, PICTURE_SIDE)
            asked = self._draw.choice(picture.questions)
            yield Item("picture_question", asked.reply, STATE_TYPED, text=typed(asked.question, self._draw),
                       images=[self._save_picture(picture.image)])  # fmt: skip

    def _spoken_picture_question(self) -> Iterator[Item]:
        while True:
            picture = draw_picture(self._draw, self.held_out, PICTURE_SIDE)
            asked = self._draw.choice(picture.questions)
            audio, voice = self._say(asked.question)
            yield Item("spoken_picture_question", asked.reply, STATE_SPOKEN, audio=audio, voice=voice,
                       images=[self._save_picture(picture.image)])  # fmt: skip

    def _clip_question(self) -> Iterator[Item]:
        while True:
            clip = draw_clip(self._draw, self.held_out, PICTURE_SIDE)
            asked = self._draw.choice(clip.questions)
            name = f"clip-{self._files:04d}.mkv"
            self._files += 1
            write_clip(self.folder / name, clip.frames)
            yield Item("clip_question", asked.reply, STATE_TYPED, text=typed(asked.question, self._draw), video=name)

    def _not_addressed(self) -> Iterator[Item]:
        for i, exchange in enumerate(self._side(overheard(self._draw.randrange(1 << 40)))):
            if i % 2:
                audio, voice = self._save_audio(augmentation.disturbance(self._shaken)), "noise"
            else:
                audio, voice = self._say(exchange.question)
            yield Item("not_addressed", "", STATE_NOISE, audio=audio, voice=voice)


TASKS = (
    "spoken_question", "spoken_question_new_synthesizer", "typed_question", "follow_up", "say_after_me",
    "picture_caption", "picture_question", "spoken_picture_question", "clip_question", "not_addressed",
)  # fmt: skip
CALIBRATION_TASKS = ("spoken_question", "typed_question", "say_after_me", "picture_question", "clip_question")


def around(samples: NDArray[np.float32], dice: np.random.Generator) -> NDArray[np.float32]:
    """Silence before and after, a little noise, and some gain."""
    samples = samples / (np.abs(samples).max() + 1e-6) * float(dice.uniform(0.2, 0.9))
    before, after = (int(dice.uniform(0.1, 0.3) * SAMPLE_RATE) for _ in range(2))
    samples = np.pad(samples, (before, after))
    hiss = augmentation.noise(len(samples), dice) * np.std(samples) * 10 ** (-dice.uniform(25, 45) / 20)
    return np.clip(samples + hiss, -1, 1).astype(np.float32)


def write_clip(path: Path, frames: Sequence[Image.Image]) -> None:
    """A lossless clip of one frame a second."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=Fraction(1))
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "bgr0"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_image(frame)):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def _without_defaults(item: Item) -> dict[str, Any]:
    return {key: value for key, value in asdict(item).items() if value not in (None, [])}
