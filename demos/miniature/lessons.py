"""One training step's worth of lessons: typed and stretched text, pictures, clips, and (in stage 2) heard speech."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sottovoce.demos.miniature.clips import draw_clip
from sottovoce.demos.miniature.curriculum import Exchange
from sottovoce.demos.miniature.drills import draw_drill
from sottovoce.demos.miniature.model import CONTEXT_LENGTH, VISION
from sottovoce.demos.miniature.pictures import (
    DESCRIBE,
    Picture,
    VisualQuestion,
    draw_picture,
    draw_visual_question,
)
from sottovoce.demos.miniature.prompts import OTHER_SYSTEMS, SYSTEM, Ask, PromptWriter, Row, Sound, stretched, typed
from sottovoce.demos.miniature.speech_in import Spoken, draw_exchanges
from sottovoce.demos.miniature.tokenizer import STATE_NOISE, STATE_SPOKEN, STATE_TYPED
from sottovoce.runtime.features.images import pixels
from sottovoce.runtime.manifest import ImageFrontEnd

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRONT_END = ImageFrontEnd(
    image_size=VISION.image_size, mean=IMAGE_MEAN, std=IMAGE_STD, pad_to_square=False,
    min_tiles=1, max_tiles=1, thumbnail=False, tokens_per_tile=VISION.tokens_per_tile,
)  # fmt: skip


TEXTS_A_GROUP = 16
CONVERSATION_SHARE = 0.5
"""How many of the steps have a conversation among their lessons, of typed and stretched text and of heard speech."""
LONGEST_HEARD = 8
DRILL_SHARE = 0.5
"""How many of the pictures that are tried for a heard question are drills."""
LONG_EVERY, LONG_TURNS = 6, 40
"""Among how many of those one is long: as many turns as the context holds."""


@dataclass(frozen=True)
class Mixture:
    """How many lessons of each kind a step has."""

    typed: int = 9
    stretched: int = 11
    pictures: int = 8
    clips: int = 3
    noises: int = 1
    drills: int = 0
    """Pictures beyond those of the curriculum, against shortcuts."""
    captions_only: bool = False
    """Pictures are described, and asked nothing else."""


@dataclass(frozen=True)
class Lessons:
    """Rows and the pixels of their pictures, in order, (tiles, 3, S, S)."""

    rows: list[Row]
    pixels: NDArray[np.float32]

    @property
    def replies(self) -> int:
        """How many replies are learned."""
        return sum(row.replies for row in self.rows)


@dataclass(frozen=True)
class Heard:
    """Lessons about utterances that follow one another in a batch, and how many embeddings they are made of."""

    lessons: Lessons
    embeddings: int


def lessons_of(rows: list[Row], images: Sequence[Image.Image]) -> Lessons:
    """Rows with their pictures as pixels."""
    return Lessons(rows, pixels(images, FRONT_END) if images else np.zeros((0, 3, 1, 1), np.float32))


def reply_of(exchange: Exchange, spoken: bool) -> str:
    """The reply with its state token: ☟ and nothing more for talk that is meant for somebody else."""
    if not spoken:
        return STATE_TYPED + exchange.reply
    return STATE_NOISE if exchange.task in ("overheard", "noise") else STATE_SPOKEN + exchange.reply


class Teacher:
    """Draws lessons from dice: the same dice give the same lessons."""

    def __init__(self, writer: PromptWriter, table: NDArray[np.float32]) -> None:
        self.writer, self.table = writer, table

    def system(self, draw: random.Random) -> str:
        """Nearly always the one that is shipped."""
        return SYSTEM if draw.random() < 0.88 else draw.choice(OTHER_SYSTEMS)

    def heard(self, text: str, dice: np.random.Generator) -> Sound:
        """Text as made-up sound, every word with its space in front."""
        return stretched(self.writer.encode(" " + text) if text else (), self.writer.blank, self.table, dice)

    def text(self, exchange: Exchange, spoken: bool, draw: random.Random, dice: np.random.Generator) -> Row:
        """A typed or stretched exchange."""
        asked = Ask(self.heard(exchange.question, dice)) if spoken else Ask(typed(exchange.question, draw))
        return self.lesson(exchange, asked, spoken, draw, dice)

    def lesson(
        self, exchange: Exchange, asked: Ask, spoken: bool, draw: random.Random, dice: np.random.Generator
    ) -> Row:
        """Whatever was asked, behind its history; the state token of an earlier reply may be there or not."""
        history = []
        for turn in exchange.history:
            before = draw.random() < (0.7 if spoken else 0.2)
            content: str | Sound = self.heard(turn.question, dice) if before else typed(turn.question, draw)
            state = (STATE_SPOKEN if before else STATE_TYPED) if draw.random() < 0.5 else ""
            history.append((Ask(content), state + turn.reply))
        heard = isinstance(asked.content, Sound) and asked.content.vectors is None
        kind = "spoken" if heard else "stretched" if spoken else "typed"
        return self.writer.lesson(self.system(draw), history, asked, reply_of(exchange, spoken), kind)

    def visual(
        self, asked: VisualQuestion, images: int, spoken: bool, draw: random.Random, dice: np.random.Generator
    ) -> Row:
        """A question about pictures."""
        content: str | Sound = self.heard(asked.question, dice) if spoken else typed(asked.question, draw)
        state = STATE_SPOKEN if spoken else STATE_TYPED
        kind = "picture" if images == 1 else "clip"
        return self.writer.lesson(self.system(draw), (), Ask(content, images), state + asked.reply, kind)

    def draw(self, mixture: Mixture, dice: np.random.Generator) -> list[Lessons]:
        """A step's lessons without heard speech: texts of like length, pictures and clips apart, against padding."""
        draw = random.Random(int(dice.integers(1 << 60)))
        text, conversations = self._converse(self._draw_text(mixture, draw, dice), draw, dice)
        text.sort(key=lambda row: len(row.ids))
        texts = [lessons_of(text[start : start + TEXTS_A_GROUP], ()) for start in range(0, len(text), TEXTS_A_GROUP)]
        pictures = self._draw_pictures(mixture, draw, dice)
        clips = self._draw_clips(mixture.clips, draw, dice)
        return [group for group in (*conversations, *texts, pictures, clips) if group.rows]

    def _converse(
        self, rows: list[Row], draw: random.Random, dice: np.random.Generator
    ) -> tuple[list[Row], list[Lessons]]:
        """Some of the rows become one conversation: the rest, and that one as a group of its own.

        A reply is to be right at the twentieth turn, too, whatever was talked about before.
        """
        if len(rows) < 2 or draw.random() >= CONVERSATION_SHARE:
            return rows, []
        if draw.randrange(LONG_EVERY) == 0:
            long = Mixture(typed=LONG_TURNS // 3, stretched=LONG_TURNS - LONG_TURNS // 3, noises=0)
            members = [row for row in self._draw_text(long, draw, dice) if self._stays(row)]
        else:
            chosen = set(draw.sample(range(len(rows)), draw.randint(2, len(rows))))
            members = [row for i, row in enumerate(rows) if i in chosen and self._stays(row)]
            rows = [row for i, row in enumerate(rows) if i not in chosen or not self._stays(row)]
        draw.shuffle(members)
        return rows, [lessons_of([self._within_context(members)], ())] if len(members) > 1 else []

    def _within_context(self, members: Sequence[Row]) -> Row:
        while len((whole := self.writer.conversation(members)).ids) > CONTEXT_LENGTH:
            members = members[:-1]
        return whole

    def _stays(self, row: Row) -> bool:
        """Talk that was meant for others is taken out of the history again, and so stands in no conversation."""
        return self.writer.encode(STATE_NOISE)[0] not in row.labels

    def _draw_text(self, mixture: Mixture, draw: random.Random, dice: np.random.Generator) -> list[Row]:
        rows: list[Row] = []
        texts = draw_exchanges(draw.randrange(1 << 60), held_out=False, visual=False)
        for exchange in islice((e for e in texts if e.task != "overheard"), mixture.typed):
            rows.append(self.text(exchange, False, draw, dice))
        for exchange in islice(texts, mixture.stretched):
            rows.append(self.text(exchange, True, draw, dice))
        for _ in range(mixture.noises):
            rows.append(self.text(Exchange("", "", "noise", False), True, draw, dice))
        return rows

    def _draw_pictures(self, mixture: Mixture, draw: random.Random, dice: np.random.Generator) -> Lessons:
        rows: list[Row] = []
        images: list[Image.Image] = []
        for _ in range(mixture.pictures):
            picture, asked = _drawn_and_asked(draw)
            if mixture.captions_only:
                asked = VisualQuestion(draw.choice(DESCRIBE), picture.caption)
            images.append(picture.image.resize((VISION.image_size, VISION.image_size)))
            rows.append(self.visual(asked, 1, draw.random() < 0.4, draw, dice))
        for _ in range(mixture.drills):
            picture = draw_drill(draw, VISION.image_size)
            images.append(picture.image)
            rows.append(self.visual(draw.choice(picture.questions), 1, draw.random() < 0.4, draw, dice))
        return lessons_of(rows, images)

    def _draw_clips(self, count: int, draw: random.Random, dice: np.random.Generator) -> Lessons:
        rows: list[Row] = []
        images: list[Image.Image] = []
        for _ in range(count):
            clip = draw_clip(draw, held_out=False)
            images += clip.frames
            rows.append(self.visual(draw.choice(clip.questions), len(clip.frames), draw.random() < 0.4, draw, dice))
        return lessons_of(rows, images)

    def listen(self, spoken: Sequence[Spoken], tokens: Sequence[int], dice: np.random.Generator) -> list[Heard]:
        """Lessons about heard speech: `tokens` says how many embeddings the encoder makes of each utterance.

        The first few may make a conversation. A question about a picture is put to a picture that is drawn until one
        fits it.
        """
        draw = random.Random(int(dice.integers(1 << 60)))
        together = draw.randint(2, LONGEST_HEARD) if draw.random() < CONVERSATION_SHARE else 0
        lessons = [self._listen(one, length, draw, dice) for one, length in zip(spoken, tokens, strict=True)]
        stay = [row for row, _ in lessons[:together] if self._stays(row)]
        if len(stay) < together:  # to take some out, the embeddings would have to be put in another order
            together = 0
        groups = []
        for part, joined in ((slice(0, together), True), (slice(together, None), False)):
            rows, images = [row for row, _ in lessons[part]], [frame for _, frames in lessons[part] for frame in frames]
            if rows:
                whole = [self.writer.conversation(rows)] if joined else rows
                groups.append(Heard(lessons_of(whole, images), sum(tokens[part])))
        return groups

    def _listen(
        self, one: Spoken, length: int, draw: random.Random, dice: np.random.Generator
    ) -> tuple[Row, Sequence[Image.Image]]:
        exchange = one.exchange
        if exchange.task not in ("picture", "clip"):
            return self.lesson(exchange, Ask(Sound(length)), True, draw, dice), ()
        reply, frames = self._picture_for(exchange, draw)
        asked = Ask(Sound(length), len(frames))
        return self.writer.lesson(self.system(draw), (), asked, STATE_SPOKEN + reply, "spoken"), frames

    def _picture_for(self, exchange: Exchange, draw: random.Random) -> tuple[str, Sequence[Image.Image]]:
        """Draw small until a picture or clip answers the question, then draw that one in full."""
        while True:
            seed = draw.randrange(1 << 60)
            again = random.Random(seed)
            if exchange.task == "clip":
                clip = draw_clip(again, held_out=False, side=8)
                for asked in clip.questions:
                    if asked.question == exchange.question:
                        full = draw_clip(random.Random(seed), held_out=False)
                        return asked.reply, full.frames
                continue
            drill = again.random() < DRILL_SHARE
            picture = _drawn(again, drill, side=8)
            asks = picture.questions
            if picture.caption:
                asks += tuple(VisualQuestion(words, picture.caption) for words in DESCRIBE)
            for asked in asks:
                if asked.question == exchange.question and asked.reply not in picture.lopsided:
                    again.seed(seed)
                    again.random()
                    return asked.reply, [_drawn(again, drill, side=VISION.image_size).image]


def _drawn_and_asked(draw: random.Random) -> tuple[Picture, VisualQuestion]:
    """A picture of the curriculum and what is asked about it; nothing that a wrong rule would answer."""
    while True:
        picture = draw_picture(draw, held_out=False)
        asked = draw_visual_question(draw, picture)
        if asked.reply not in picture.lopsided:
            return picture, asked


def _drawn(draw: random.Random, drill: bool, side: int) -> Picture:
    return draw_drill(draw, side) if drill else draw_picture(draw, held_out=False, side=side)
