"""Short clips: which way a shape moves, and what changed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from sottovoce.demos.miniature.curriculum import sentence, stable_hash
from sottovoce.demos.miniature.pictures import (
    COLORS,
    SHAPES,
    Shape,
    VisualQuestion,
    draw_background,
    draw_shapes,
    with_article,
)

MIN_FRAMES = 4
MAX_FRAMES = 6

DIRECTIONS = {"to the left": (-1, 0), "to the right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Clip:
    """Frames one second apart, and the questions they can answer."""

    frames: tuple[Image.Image, ...]
    questions: tuple[VisualQuestion, ...]
    held_out: bool


def _moving(draw: random.Random, side: int, count: int) -> Clip:
    kind, color, direction = draw.choice(SHAPES), draw.choice(sorted(COLORS)), draw.choice(sorted(DIRECTIONS))
    dx, dy = DIRECTIONS[direction]
    radius = draw.uniform(0.12, 0.18)
    start, end, aside = draw.uniform(0.2, 0.3), draw.uniform(0.7, 0.8), draw.uniform(0.3, 0.7)
    if dx + dy < 0:
        start, end = end, start
    background = draw_background(draw)
    frames = []
    for i in range(count):
        along = start + (end - start) * i / (count - 1)
        place = (along, aside) if dx else (aside, along)
        frames.append(draw_shapes([Shape(kind, color, *place, radius)], background, side))
    asked = (
        VisualQuestion(draw.choice(("which way does it move", "where does it go", f"which way does the {kind} go",
                                    f"where does the {kind} move")), f"It moves {direction}."),
        VisualQuestion(draw.choice(("what happens", "what happens in the video", "describe the video")),
                       sentence(f"{with_article(color, kind)} moves {direction}")),
        VisualQuestion(draw.choice(("what changed", "what has changed", "what is different now")), "It moved."),
    )  # fmt: skip
    return Clip(tuple(frames), asked, stable_hash("moving", kind, color, direction) % 5 == 0)


def _changing(draw: random.Random, side: int, count: int) -> Clip:
    what = draw.choice(("color", "shape", "nothing"))
    kind, other_kind = draw.sample(SHAPES, 2)
    color, other_color = draw.sample(sorted(COLORS), 2)
    radius = draw.uniform(0.14, 0.24)
    x, y = draw.uniform(0.3, 0.7), draw.uniform(0.3, 0.7)
    turn = draw.randint(1, count - 1)
    later = Shape(other_kind if what == "shape" else kind, other_color if what == "color" else color, x, y, radius)
    background = draw_background(draw)
    first = draw_shapes([Shape(kind, color, x, y, radius)], background, side)
    frames = [first] * turn + [draw_shapes([later], background, side)] * (count - turn)
    reply = {
        "color": f"The {kind} turned {other_color}.",
        "shape": f"The {kind} became a {other_kind}.",
        "nothing": "Nothing changed.",
    }[what]
    asked = (
        VisualQuestion(draw.choice(("what changed", "what has changed", "what is different now")), reply),
        VisualQuestion(draw.choice(("which way does it move", "where does it go")), "It does not move."),
        VisualQuestion(draw.choice(("what color is it at the end", "what color is it now")), f"It is {later.color}."),
    )
    held_out = stable_hash("changing", what, kind, color, other_kind if what == "shape" else other_color) % 5 == 0
    return Clip(tuple(frames), asked, held_out)


def draw_clip(draw: random.Random, held_out: bool, side: int = 112) -> Clip:
    """A clip whose combination is (or is not) kept out of training, mostly of the fewest frames."""
    count = draw.choice((MIN_FRAMES, MIN_FRAMES, *range(MIN_FRAMES, MAX_FRAMES + 1)))
    kind = draw.choice((_moving, _changing))
    while True:
        clip = kind(draw, side, count)
        if clip.held_out == held_out:
            return clip
