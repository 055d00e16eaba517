"""Pictures for training alone, against what a small model gets wrong about combinations that it never saw.

A fifth of the pairs and of the digits' colors is kept out of training, so what is left over is lopsided: where no cross
was ever above a circle, "below" is always right, and where no nine was ever black, a black round digit is an eight. A
model that learns such rules is right on everything it is trained on and wrong on what it is examined on. So lopsided
replies are not taught at all (`Picture.lopsided`), and these pictures teach the same without showing a combination
that was kept out: digits in colors far from all that have a name, shapes beside digits, and two shapes of one kind
that only their colors tell apart. (On such shortcuts: Geirhos et al., Shortcut Learning in Deep Neural Networks, 2020.)
"""

from __future__ import annotations

import random

from PIL import Image

from sottovoce.demos.miniature.curriculum import sentence
from sottovoce.demos.miniature.facts import number_words
from sottovoce.demos.miniature.pictures import (
    COLORS,
    DIGIT_RADIUS,
    NUMBER_QUESTIONS,
    OPPOSITE_POSITION,
    POSITIONS,
    SHAPES,
    Picture,
    Shape,
    ask,
    beside_questions,
    color_questions,
    draw_background,
    draw_digit,
    draw_places,
    draw_shapes,
    where_questions,
    with_article,
)

VISIBLE = 90
"""How far a color must lie from the background, in levels of the channel that differs most."""
NAMELESS = 80
"""How far from each color that has a name, in levels over all three channels."""
NO_NAME = ""


def _distance(one: tuple[int, int, int], other: tuple[int, int, int]) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _nameless_color(draw: random.Random, background: tuple[int, int, int]) -> tuple[int, int, int]:
    """A color that is seen on the background and that nobody would call by one of the names."""
    while True:
        color = (draw.randrange(256), draw.randrange(256), draw.randrange(256))
        seen = max(abs(a - b) for a, b in zip(color, background, strict=True)) >= VISIBLE
        if seen and all(_distance(color, named) >= NAMELESS**2 for named in COLORS.values()):
            return color


def _nameless_digit(draw: random.Random, side: int) -> Picture:
    """A digit of which only the number is asked."""
    digit, background = draw.randint(0, 9), draw_background(draw)
    color = _nameless_color(draw, background)
    number = number_words(digit)
    radius = DIGIT_RADIUS * draw.uniform(0.45, 0.8)
    shape = Shape(number, NO_NAME, draw.uniform(0.4, 0.6), draw.uniform(0.42, 0.58), radius)
    image = Image.new("RGB", (side, side), background)
    draw_digit(image, digit, color, shape)
    asked = ask(draw, NUMBER_QUESTIONS, f"It is the number {number}.")
    return Picture(image, "", (asked,), False, (shape,))


def _beside_a_digit(draw: random.Random, side: int) -> Picture:
    """A shape on one side of a digit, asked about from both."""
    kind, position = draw.choice(SHAPES), draw.choice(POSITIONS)
    color, digit, background = draw.choice(sorted(COLORS)), draw.randint(0, 9), draw_background(draw)
    number = f"number {number_words(digit)}"
    place, digit_place = draw_places(draw, position)
    shape = Shape(kind, color, *place, draw.uniform(0.12, 0.18))
    figure = Shape(number_words(digit), NO_NAME, *digit_place, DIGIT_RADIUS * draw.uniform(0.42, 0.55))
    image = draw_shapes([shape], background, side)
    draw_digit(image, digit, _nameless_color(draw, background), figure)
    turned = OPPOSITE_POSITION[position]
    asked = (
        ask(draw, where_questions(kind), f"The {kind} is {position} the {number}."),
        ask(draw, where_questions(number), f"The {number} is {turned} the {kind}."),
        ask(draw, beside_questions(position, number), sentence(with_article(color, kind))),
        ask(draw, color_questions(kind), f"The {kind} is {color}."),
        ask(draw, NUMBER_QUESTIONS, f"It is the {number}."),
    )
    return Picture(image, "", asked, False, (shape, figure))


def _alike(draw: random.Random, side: int) -> Picture:
    """Two shapes of one kind: which is where, only their colors can tell."""
    kind, position = draw.choice(SHAPES), draw.choice(POSITIONS)
    color, other = draw.sample(sorted(COLORS), 2)
    place, beside = draw_places(draw, position)
    radius = draw.uniform(0.12, 0.18)
    shapes = [Shape(kind, color, *place, radius), Shape(kind, other, *beside, radius)]
    first, second = f"{color} {kind}", f"{other} {kind}"
    asked = (
        ask(draw, where_questions(first), f"The {first} is {position} the {second}."),
        ask(draw, beside_questions(position, second), sentence(with_article(color, kind))),
    )
    return Picture(draw_shapes(shapes, draw_background(draw), side), "", asked, False, tuple(shapes))


def draw_drill(draw: random.Random, side: int) -> Picture:
    """A picture without a caption, of a combination that no examination asks for."""
    return draw.choice((_nameless_digit, _beside_a_digit, _beside_a_digit, _alike))(draw, side)
