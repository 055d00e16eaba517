"""Stage 3 as a whole: the voice, its codes, the codec, the speech decoder, each kept where it is done.

Every step leaves its result in the workspace and is skipped when that is there:

| file or folder | what |
| --- | --- |
| ``voice/replies{,-held-out}.txt`` | pieces of the miniature's replies, as they were when the voice was rendered |
| ``voice/{practice,replies,replies-held-out}/shard-NNNN.npz`` | rendered sentences |
| ``codec/listener``, ``codec/units`` | trainings of what makes codes |
| ``codec/units.safetensors`` | what makes codes, finished, or taken from beside a packed checkpoint |
| ``spoken/{practice,replies,held_out}.npz``, ``pronounced.npz`` | text and codes, text and phonemes |
| ``codec/state.pt``, ``speech_decoder/state.pt`` | trainings, resumable |
| ``codec``, ``speech_decoder``: ``model.json``, ``final.pt`` | the checkpoint's two folders |
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch

from sottovoce.demos.miniature.clips import draw_clip
from sottovoce.demos.miniature.curriculum import questions
from sottovoce.demos.miniature.followups import followups
from sottovoce.demos.miniature.pictures import draw_picture
from sottovoce.demos.miniature.sentences import say_after_me
from sottovoce.demos.miniature.settings import PARTS, Workspace
from sottovoce.demos.miniature.tokenizer import prepare
from sottovoce.demos.miniature.warm_start import PackedWeights

from .acoustic_units import AcousticUnits
from .codec_training import CodecTrainer, CodecTraining, train_codec
from .packing import write_codec, write_speech_decoder
from .pronunciation import Pronounced, Pronouncer, PronunciationCorpus, read_pronounced, write_pronounced
from .replies import ReplyTexts, split_replies
from .sentences import practice_sentences
from .speech_batches import BatchRecipe, SpeechCorpus
from .speech_decoder_training import SpeechDecoderTrainer, SpeechDecoderTraining, train_speech_decoder
from .spoken_codes import SpokenText, encode_utterances, read_spoken, write_spoken
from .unit_training import UnitTraining, train_units
from .voice import Utterance, VoiceSettings, read_shards, render


@dataclass(frozen=True)
class SpeechOutRecipe:
    """How much is said and learned: counts are sentences, those ``held_out`` are never trained on."""

    practice: int = 10_000
    replies: int = 2_500
    held_out_practice: int = 250
    held_out_replies: int = 125
    unit_sentences: int = 4_000
    codec_practice: int = 3_000
    codec_replies: int = 1_000
    pronunciations: int = 40_000
    practice_seed: int = 2026
    pronunciation_seed: int = 4051
    units: UnitTraining = field(default_factory=UnitTraining)
    codec: CodecTraining = field(default_factory=CodecTraining)
    speech_decoder: SpeechDecoderTraining = field(default_factory=SpeechDecoderTraining)


def train_speech_out(
    workspace: Workspace,
    recipe: SpeechOutRecipe | None = None,
    parts: Sequence[str] = PARTS[3],
    packed: PackedWeights | None = None,
) -> None:
    """Stage 3, or some parts of it: what of them is still to do, from nothing or from a checkpoint's weights."""
    stage = SpeechOutStage(workspace, recipe or SpeechOutRecipe())
    stage.render_voice()
    units = stage.find_units(packed)
    stage.encode(units)
    if "codec" in parts:
        stage.train_codec(units, packed)
    if "speech-decoder" in parts:
        stage.train_speech_decoder(units, packed)


def curriculum_replies() -> list[str]:
    """Replies of the whole curriculum, those of drawn pictures and clips as often as chance has it, each once."""
    draw = random.Random(0)
    replies = [exchange.reply for exchange in questions()]
    for stream, count in ((followups(1), 1_500), (say_after_me(11), 3_000)):
        replies += [exchange.reply for exchange in islice(stream, count)]
    for held_out in (False, True):
        for _ in range(1_000):
            picture, clip = draw_picture(draw, held_out, 32), draw_clip(draw, held_out, 32)
            replies += [picture.caption, *(question.reply for question in (*picture.questions, *clip.questions))]
    return list(dict.fromkeys(reply for reply in replies if reply))


class SpeechOutStage:
    """The steps of the stage over one workspace."""

    def __init__(self, workspace: Workspace, recipe: SpeechOutRecipe) -> None:
        self.root = workspace.root
        self.recipe = recipe
        tokenizer = prepare(workspace)
        self.tokenize: Callable[[str], Sequence[int]] = lambda text: (
            tokenizer.encode(text, add_special_tokens=False).ids
        )
        self.embeddings = workspace.embeddings

    def render_voice(self) -> None:
        """Practice sentences, replies to train on and replies to test with, all in the Piper voice."""
        recipe, texts = self.recipe, self._reply_texts()
        practice = practice_sentences(recipe.practice + recipe.held_out_practice, recipe.practice_seed)
        render(practice, self.root / "voice" / "practice")
        render(
            texts.held_out[::2][: recipe.held_out_replies],
            self.root / "voice" / "replies-held-out",
            VoiceSettings(seed=10_000),
        )
        render(texts.training[: recipe.replies], self.root / "voice" / "replies", VoiceSettings(seed=20_000))

    def find_units(self, packed: PackedWeights | None = None) -> AcousticUnits:
        """What makes codes, found once, or a packed checkpoint's: all that is learned on codes depends on it."""
        path = self.root / "codec" / "units.safetensors"
        if not path.exists() and packed is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            packed.units.write(path)
        elif not path.exists():
            practice = islice(read_shards(self.root / "voice" / "practice"), self.recipe.unit_sentences)
            replies = islice(read_shards(self.root / "voice" / "replies"), self.recipe.codec_replies)
            train_units(chain(practice, replies), self.recipe.units, path.parent).write(path)
        return AcousticUnits.read(path, self.recipe.units.settings)

    def encode(self, units: AcousticUnits) -> None:
        """Codes of everything that was rendered."""
        for name, folder in (
            ("practice", "practice"),
            ("replies", "replies"),
            ("held_out_replies", "replies-held-out"),
        ):
            if not self._spoken(name).exists():
                write_spoken(self._spoken(name), encode_utterances(units, read_shards(self.root / "voice" / folder)))

    def train_codec(self, units: AcousticUnits, packed: PackedWeights | None = None) -> None:
        """The generator, packed when it is done."""
        trainer = CodecTrainer(self.recipe.codec, units)
        if packed is not None:
            trainer.begin_last_segment(packed.codec)
        utterances: list[Utterance] = []
        spoken: list[SpokenText] = []
        for name, count in (("practice", self.recipe.codec_practice), ("replies", self.recipe.codec_replies)):
            utterances += islice(read_shards(self.root / "voice" / name), count)
            spoken += read_spoken(self._spoken(name))[:count]
        train_codec(trainer, utterances, spoken, self.root / "codec")
        write_codec(self.root / "codec", trainer.decoder)

    def train_speech_decoder(self, units: AcousticUnits, packed: PackedWeights | None = None) -> None:
        """Pronunciation first, then speech; packed when it is done."""
        recipe = self.recipe.speech_decoder
        embeddings = torch.from_numpy(np.load(self.embeddings))
        trainer = SpeechDecoderTrainer(recipe, embeddings, units.first_codebook(512))
        if packed is not None:
            trainer.model.load_state_dict(packed.speech_decoder)
        practice = read_spoken(self._spoken("practice"))
        training = practice[: self.recipe.practice] + read_spoken(self._spoken("replies"))
        unheard = practice[self.recipe.practice :] + read_spoken(self._spoken("held_out_replies"))
        train_speech_decoder(
            trainer,
            SpeechCorpus(training, self.tokenize, recipe.model, recipe.batches),
            PronunciationCorpus(self._pronounced(unheard), self.tokenize),
            SpeechCorpus(unheard[::4], self.tokenize, recipe.model, BatchRecipe(wrong_codes=0.0, length_jitter=0.0)),
            self.root / "speech_decoder",
        )
        write_speech_decoder(self.root / "speech_decoder", trainer.model, recipe.model)

    def _reply_texts(self) -> ReplyTexts:
        """Chosen once: a curriculum that changes later must not move learned sentences to the held-out side."""
        paths = [self.root / "voice" / name for name in ("replies.txt", "replies-held-out.txt")]
        if not all(path.exists() for path in paths):
            texts = split_replies(curriculum_replies())
            for path, pieces in zip(paths, (texts.training, texts.held_out), strict=True):
                _write_text(path, "".join(f"{piece}\n" for piece in pieces))
        training, held_out = (tuple(path.read_text(encoding="utf-8").splitlines()) for path in paths)
        return ReplyTexts(training, held_out)

    def _pronounced(self, unheard: Iterable[SpokenText]) -> list[Pronounced]:
        path = self.root / "pronounced.npz"
        if not path.exists():
            texts = self._reply_texts()
            left_out = frozenset(text.rstrip(".,?!") for text in (*texts.held_out, *(item.text for item in unheard)))
            practised = practice_sentences(self.recipe.pronunciations, self.recipe.pronunciation_seed, left_out)
            pronounce = Pronouncer()
            write_pronounced(path, [pronounce(text) for text in (*texts.training, *practised)])
        return read_pronounced(path)

    def _spoken(self, name: str) -> Path:
        return self.root / "spoken" / f"{name}.npz"


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
