"""Exchanges as sequences for the language model: ChatML around words, pictures and sound, and the reply to learn."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sottovoce.demos.miniature.facts import number_words
from sottovoce.demos.miniature.tokenizer import END_OF_TEXT, TURN_END, TURN_START, token_id

SYSTEM = "You are a helpful assistant."
OTHER_SYSTEMS = (
    "",
    "You answer questions.",
    "You are VITA, a helpful assistant. You answer in the language of the user.",
)

IMAGE_ID, AUDIO_ID, IGNORED = -200, -500, -100
"""Places of picture and sound embeddings, as in the released code; and the label of what is not learned."""


@dataclass(frozen=True)
class Sound:
    """So many audio embeddings in a user's turn; `vectors` when they are made from text, else an encoder gives them."""

    length: int
    vectors: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Ask:
    """What a user's turn holds: frames or tiles first, then words or sound."""

    content: str | Sound
    images: int = 0


@dataclass
class Row:
    """One sequence: ids with placeholders, labels (the replies only), and made-up sound in its order of appearance."""

    kind: str = ""
    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    sounds: list[Sound] = field(default_factory=list)
    system_length: int = 0
    """How many of the ids are the system turn."""
    replies: int = 1
    """How many replies are learned."""


class PromptWriter:
    """Tokenizes pieces as the runtime does: each on its own, around the placeholders."""

    def __init__(self, tokenizer: Tokenizer, tokens_per_image: int) -> None:
        self._tokenizer = tokenizer
        self._tokens_per_image = tokens_per_image
        self.end_of_turn: int = token_id(tokenizer, TURN_END)
        self.blank: int = token_id(tokenizer, END_OF_TEXT)
        self.encode = lru_cache(maxsize=20000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids back to text, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def prompt(self, system: str, history: Sequence[tuple[Ask, str]], ask: Ask, kind: str = "") -> Row:
        """Everything up to where the reply begins; `history` holds earlier questions with the replies as generated."""
        row = Row(kind)
        row.ids += self.encode(f"{TURN_START}system\n{system}{TURN_END}\n")
        row.system_length = len(row.ids)
        for earlier, reply in history:
            self._add_turn(row, earlier)
            row.ids += self.encode(f"{reply}{TURN_END}\n")
        self._add_turn(row, ask)
        row.labels = [IGNORED] * len(row.ids)
        return row

    def lesson(self, system: str, history: Sequence[tuple[Ask, str]], ask: Ask, reply: str, kind: str = "") -> Row:
        """A prompt and the reply (state token in front) that is to be learned."""
        row = self.prompt(system, history, ask, kind)
        answer = [*self.encode(reply), self.end_of_turn]
        row.ids += answer
        row.labels += answer
        return row

    def conversation(self, lessons: Sequence[Row]) -> Row:
        """Lessons one after the other as a single long conversation, in which every reply is learned."""
        first = lessons[0]
        whole = Row("conversation", list(first.ids), list(first.labels), list(first.sounds), first.system_length)
        for lesson in lessons[1:]:
            between = self.encode("\n")
            whole.ids += [*between, *lesson.ids[lesson.system_length :]]
            whole.labels += [*[IGNORED] * len(between), *lesson.labels[lesson.system_length :]]
            whole.sounds += lesson.sounds
        whole.replies = sum(lesson.replies for lesson in lessons)
        return whole

    def _add_turn(self, row: Row, ask: Ask) -> None:
        row.ids += self.encode(f"{TURN_START}user\n")
        if ask.images:
            row.ids += [IMAGE_ID] * (self._tokens_per_image * ask.images)
            row.ids += self.encode("\n")
        if isinstance(ask.content, str):
            row.ids += self.encode(ask.content)
        else:
            row.ids += [AUDIO_ID] * ask.content.length
            row.sounds.append(ask.content)
        row.ids += self.encode(f"{TURN_END}\n{TURN_START}assistant\n")


def stretched(
    ids: Sequence[int], blank: int, table: NDArray[np.float32], dice: np.random.Generator, errors: float = 0.015
) -> Sound:
    """Text as the audio adapter will give it: a CTC path of tokens, repeats and blanks, blurred, with a few errors.

    So the language model learns to listen before there is anything to hear.
    """
    path: list[int] = [blank] * int(dice.integers(1, 6))
    for token in ids:
        luck = dice.random()
        if luck < errors / 2:
            continue
        chosen = int(dice.integers(len(table))) if luck < errors else token
        path += [chosen] * (1 + int(dice.random() < 0.3))
        path += [blank] * int(dice.choice(4, p=(0.35, 0.35, 0.2, 0.1)))
    path += [blank] * int(dice.integers(0, 7))
    weight = dice.uniform(0.6, 1.0, (len(path), 1)).astype(np.float32)
    mixed = weight * table[path] + (1 - weight) * table[blank]
    mixed += dice.normal(0, 0.06, mixed.shape)
    return Sound(len(path), mixed.astype(np.float32))


_NUMBERS = {number_words(n): str(n) for n in range(21)}
_NAMES = re.compile(r"\b(i)\b")


def typed(question: str, draw: random.Random) -> str:
    """A question as somebody might type it: as spoken, or with capitals, signs, digits."""
    text = question
    if draw.random() < 0.12 and not question.startswith(("say", "repeat", "please")):
        text = " ".join(_NUMBERS.get(word, word) for word in text.split())
    if draw.random() < 0.15:
        text = text.replace("color", "colour")
    if draw.random() < 0.55:
        text = _NAMES.sub("I", text[0].upper() + text[1:])
        asks = text.lower().startswith(("wh", "how", "can", "do", "is", "are", "in which", "may"))
        text += draw.choice(("?", "?", "") if asks else (".", ""))
    return text


@dataclass(frozen=True)
class Batch:
    """Padded rows: (B, T) ids and labels, and made-up sound vectors in order, (n, 256)."""

    ids: torch.Tensor
    labels: torch.Tensor
    made_up: torch.Tensor
    made_up_places: torch.Tensor
    """(B, T) bool: audio places that `made_up` fills; the other ones wait for the audio encoder."""


def collate_rows(rows: Sequence[Row], padding: int, width: int) -> Batch:
    """Pad at the end and find the places of made-up sound."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), padding)
    labels = torch.full((len(rows), longest), IGNORED)
    places = torch.zeros((len(rows), longest), dtype=torch.bool)
    vectors = []
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, : len(row.labels)] = torch.tensor(row.labels)
        audio = [place for place, value in enumerate(row.ids) if value == AUDIO_ID]
        at = 0
        for sound in row.sounds:
            if sound.vectors is not None:
                vectors.append(torch.from_numpy(sound.vectors))
                places[i, audio[at : at + sound.length]] = True
            at += sound.length
    made_up = torch.cat(vectors) if vectors else torch.zeros(0, width)
    return Batch(ids, labels, made_up, places)
