"""Pictures drawn on the fly, with what can be asked about them: shapes, colors, counts, digits, positions."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from sottovoce.demos.miniature.curriculum import sentence, stable_hash
from sottovoce.demos.miniature.facts import number_words

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40), "blue": (40, 80, 214), "green": (40, 160, 60), "yellow": (240, 210, 40),
    "purple": (140, 50, 170), "orange": (245, 135, 30), "black": (20, 20, 20), "pink": (245, 140, 190),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
POSITIONS = ("above", "below", "left of", "right of")
OPPOSITE_POSITION = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
MAX_COUNT = 6
DIGIT_RADIUS = 0.35
"""Of the font's size."""
ROUND_DIGITS = (0, 3, 5, 6, 8, 9)
"""Those that are taken for each other."""
NUMBER_QUESTIONS = ("what number is it", "which number do you see", "what digit is it", "which digit is this")
NUMBER_COLOR_QUESTIONS = ("what color is the number", "which color is the digit")

DESCRIBE = ("what do you see", "describe the picture", "what is in the picture", "tell me what you see",
            "what does the picture show")  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """One filled shape; position and radius as fractions of the picture's side."""

    kind: str
    color: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class VisualQuestion:
    """A question about a picture or a clip, in one of its phrasings, and the exact reply."""

    question: str
    reply: str


@dataclass(frozen=True)
class Picture:
    """A drawn picture, its caption, the questions it can answer, and what is where (a digit's kind is its word)."""

    image: Image.Image
    caption: str
    questions: tuple[VisualQuestion, ...]
    held_out: bool
    shapes: tuple[Shape, ...]
    lopsided: frozenset[str] = frozenset()
    """Replies that a wrong rule gives, too: in all that is not kept out, what looks or lies alike has no other."""


def _polygon(shape: Shape, side: int) -> list[tuple[float, float]]:
    x, y, r = shape.x * side, shape.y * side, shape.radius * side
    if shape.kind == "star":
        points = []
        for i in range(10):
            reach = r * (1.1 if i % 2 == 0 else 0.45)
            points.append((x + reach * math.sin(i * math.pi / 5), y - reach * math.cos(i * math.pi / 5)))
        return points
    if shape.kind == "cross":
        arm = r * 0.33
        corners = (
            (-arm, -r), (arm, -r), (arm, -arm), (r, -arm), (r, arm), (arm, arm),
            (arm, r), (-arm, r), (-arm, arm), (-r, arm), (-r, -arm), (-arm, -arm),
        )  # fmt: skip
        return [(x + dx, y + dy) for dx, dy in corners]
    corners_of = {
        "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
        "triangle": ((0, -1), (0.95, 0.8), (-0.95, 0.8)),
        "diamond": ((0, -1.1), (0.8, 0), (0, 1.1), (-0.8, 0)),
    }
    return [(x + r * dx, y + r * dy) for dx, dy in corners_of[shape.kind]]


def draw_shapes(shapes: list[Shape], background: tuple[int, int, int], side: int) -> Image.Image:
    """A square RGB picture, drawn at twice its size and reduced, so that edges are smooth."""
    image = Image.new("RGB", (2 * side, 2 * side), background)
    canvas = ImageDraw.Draw(image)
    for shape in shapes:
        if shape.kind == "circle":
            x, y, r = (2 * side * value for value in (shape.x, shape.y, shape.radius))
            canvas.ellipse((x - r, y - r, x + r, y + r), fill=COLORS[shape.color])
        else:
            canvas.polygon(_polygon(shape, 2 * side), fill=COLORS[shape.color])
    return image.resize((side, side), Image.Resampling.BOX)


def draw_background(draw: random.Random) -> tuple[int, int, int]:
    """A light gray, slightly tinted: every color of the table stands out on it."""
    level = draw.randint(205, 250)
    return (level, min(255, level + draw.randint(-5, 5)), min(255, level + draw.randint(-5, 5)))


def draw_digit(image: Image.Image, digit: int, color: tuple[int, int, int], place: Shape) -> None:
    """A digit onto a square picture, its middle at the place; a digit's radius is 0.35 of its font's size."""
    side = image.width
    font = ImageFont.load_default(size=place.radius / DIGIT_RADIUS * side)
    ImageDraw.Draw(image).text((place.x * side, place.y * side), str(digit), fill=color, font=font, anchor="mm")


def with_article(color: str, kind: str) -> str:
    """`an orange circle`."""
    return f"{'an' if color[0] in 'aeiou' else 'a'} {color} {kind}"


def plural(kind: str, count: int) -> str:
    """`crosses`, `star`."""
    if count == 1:
        return kind
    return kind + ("es" if kind == "cross" else "s")


def ask(draw: random.Random, phrasings: tuple[str, ...], reply: str) -> VisualQuestion:
    """A question in one of its phrasings."""
    return VisualQuestion(draw.choice(phrasings), reply)


def _single(draw: random.Random, side: int) -> Picture:
    kind, color = draw.choice(SHAPES), draw.choice(sorted(COLORS))
    radius = draw.uniform(0.14, 0.34)
    shape = Shape(kind, color, draw.uniform(radius * 1.15, 1 - radius * 1.15),
                  draw.uniform(radius * 1.15, 1 - radius * 1.15), radius)  # fmt: skip
    caption = sentence(with_article(color, kind))
    asked = (
        ask(draw, ("what color is it", f"what color is the {kind}", f"which color does the {kind} have"),
             f"It is {color}."),
        ask(draw, ("what shape is it", "what shape do you see", "which shape is it"), f"It is a {kind}."),
    )  # fmt: skip
    image = draw_shapes([shape], draw_background(draw), side)
    return Picture(image, caption, asked, stable_hash("single", kind, color) % 5 == 0, (shape,))


def _grid_places(draw: random.Random, count: int) -> list[tuple[float, float]]:
    cells = draw.sample([(column, row) for column in range(3) for row in range(3)], count)
    return [((c + 0.5 + draw.uniform(-0.12, 0.12)) / 3, (r + 0.5 + draw.uniform(-0.12, 0.12)) / 3) for c, r in cells]


def _several(draw: random.Random, side: int) -> Picture:
    kind, color, count = draw.choice(SHAPES), draw.choice(sorted(COLORS)), draw.randint(2, MAX_COUNT)
    radius = draw.uniform(0.085, 0.12)
    shapes = [Shape(kind, color, x, y, radius) for x, y in _grid_places(draw, count)]
    number, name = number_words(count), plural(kind, count)
    asked = (
        ask(draw, (f"how many {name} are there", f"how many {name} do you see", f"count the {name}"),
             f"There are {number} {name}."),
        ask(draw, ("what color are they", f"what color are the {name}"), f"They are {color}."),
    )  # fmt: skip
    image = draw_shapes(shapes, draw_background(draw), side)
    held_out = stable_hash("several", kind, color, count) % 5 == 0
    return Picture(image, sentence(f"{number} {color} {name}"), asked, held_out, tuple(shapes))


def _digit(draw: random.Random, side: int) -> Picture:
    digit, color = draw.randint(0, 9), draw.choice(sorted(COLORS))
    image = Image.new("RGB", (side, side), draw_background(draw))
    size = draw.uniform(0.45, 0.8)
    x, y = draw.uniform(0.4, 0.6), draw.uniform(0.42, 0.58)
    number = number_words(digit)
    shape = Shape(number, color, x, y, DIGIT_RADIUS * size)
    draw_digit(image, digit, COLORS[color], shape)
    asked = (
        ask(draw, NUMBER_QUESTIONS, f"It is the number {number}."),
        ask(draw, (*NUMBER_COLOR_QUESTIONS, "what color is it"), f"It is {color}."),
    )
    caption = sentence(f"the number {number} in {color}")
    alike = any(digit_held_out(other, color) for other in ROUND_DIGITS) and digit in ROUND_DIGITS
    lopsided = frozenset((asked[0].reply,) if alike else ())
    return Picture(image, caption, asked, digit_held_out(digit, color), (shape,), lopsided)


def digit_held_out(digit: int, color: str) -> bool:
    """Whether this digit in this color is kept out of training."""
    return stable_hash("digit", digit, color) % 5 == 0


def where_questions(what: str) -> tuple[str, ...]:
    """Where a thing is."""
    return f"where is the {what}", f"tell me where the {what} is"


def beside_questions(position: str, what: str) -> tuple[str, ...]:
    """What lies on a given side of a thing."""
    return f"what is {position} the {what}", f"what do you see {position} the {what}"


def color_questions(what: str) -> tuple[str, ...]:
    """The color of one of several things."""
    return f"what color is the {what}", f"which color does the {what} have"


def draw_places(draw: random.Random, position: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Middles of two things, the first on that side of the second."""
    near, far = draw.uniform(0.2, 0.28), draw.uniform(0.72, 0.8)
    aside, beside = draw.uniform(0.4, 0.6), draw.uniform(0.4, 0.6)
    start, end = (near, far) if position in ("above", "left of") else (far, near)
    if position in ("above", "below"):
        return (aside, start), (beside, end)
    return (start, aside), (end, beside)


def _pair(draw: random.Random, side: int) -> Picture:
    first, second = draw.sample(SHAPES, 2)
    color, other = draw.sample(sorted(COLORS), 2)
    position = draw.choice(POSITIONS)
    (x, y), (x2, y2) = draw_places(draw, position)
    radius = draw.uniform(0.12, 0.18)
    shapes = [Shape(first, color, x, y, radius), Shape(second, other, x2, y2, radius)]
    asked = (
        ask(draw, where_questions(first), f"The {first} is {position} the {second}."),
        ask(draw, beside_questions(position, second), sentence(with_article(color, first))),
        ask(draw, color_questions(second), f"The {second} is {other}."),
    )  # fmt: skip
    caption = sentence(f"{with_article(color, first)} {position} {with_article(other, second)}")
    # Asked for a caption, the model must choose one of two right answers: it names what is on the left or on top first.
    if position in ("below", "right of"):
        turned = OPPOSITE_POSITION[position]
        caption = sentence(f"{with_article(other, second)} {turned} {with_article(color, first)}")
    image = draw_shapes(shapes, draw_background(draw), side)
    held_out = _pair_held_out(first, second, position)
    turned_held_out = _pair_held_out(first, second, OPPOSITE_POSITION[position])
    # Where the one is, and the color of the other, can then be told from the two kinds alone.
    lopsided = frozenset((asked[0].reply, asked[2].reply) if turned_held_out else ())
    return Picture(image, caption, asked, held_out, tuple(shapes), lopsided)


def _pair_held_out(first: str, second: str, position: str) -> bool:
    return stable_hash("pair", *sorted((first, second)), position) % 5 == 0


def draw_picture(draw: random.Random, held_out: bool, side: int | None = None) -> Picture:
    """A picture of any kind whose combination is (or is not) kept out of training; its side is drawn when not given."""
    pixels = side if side is not None else draw.choice((112, 112, 112, 128, 160, 224))
    kind = draw.choice((_single, _several, _digit, _pair))
    while True:
        picture = kind(draw, pixels)
        if picture.held_out == held_out:
            return picture


def draw_visual_question(draw: random.Random, picture: Picture) -> VisualQuestion:
    """The caption in a third of the cases, else one of the picture's own questions."""
    if draw.random() < 1 / 3:
        return VisualQuestion(draw.choice(DESCRIBE), picture.caption)
    return draw.choice(picture.questions)
