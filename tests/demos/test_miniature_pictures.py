"""Pictures and clips against what is said of them, read back from their pixels."""

from __future__ import annotations

import random
import re

import numpy as np
from PIL import Image

from sottovoce.demos.miniature.clips import MIN_FRAMES, draw_clip
from sottovoce.demos.miniature.drills import draw_drill
from sottovoce.demos.miniature.facts import number_words
from sottovoce.demos.miniature.pictures import COLORS, POSITIONS, SHAPES, Shape, draw_picture

SIDE = 112
NUMBERS = {number_words(n): n for n in range(10)}


def _mask(image: Image.Image, color: str) -> np.ndarray:
    """Where the picture has about this color."""
    difference = np.asarray(image, dtype=int) - np.array(COLORS[color])
    return (np.abs(difference) <= 12).all(axis=-1)


def _pieces(mask: np.ndarray) -> int:
    """Connected regions of at least ten pixels, by flood fill."""
    left, count = mask.copy(), 0
    while left.any():
        stack, size = [tuple(np.argwhere(left)[0])], 0
        while stack:
            y, x = stack.pop()
            if 0 <= y < left.shape[0] and 0 <= x < left.shape[1] and left[y, x]:
                left[y, x] = False
                size += 1
                stack += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        count += size >= 10
    return count


def _centre(image: Image.Image, color: str) -> np.ndarray:
    return np.argwhere(_mask(image, color)).mean(axis=0)


def test_captions_of_several_count_what_is_drawn() -> None:
    draw, seen = random.Random(1), set()
    for i in range(300):
        picture = draw_picture(draw, held_out=i % 4 == 0, side=SIDE)
        match = re.fullmatch(r"(Two|Three|Four|Five|Six) (\w+) (\w+)\.", picture.caption)
        if match:
            count = NUMBERS[match[1].lower()]
            assert _pieces(_mask(picture.image, match[2])) == count, picture.caption
            seen.add(count)
    assert seen == {2, 3, 4, 5, 6}


def test_captions_of_pairs_say_where_things_are() -> None:
    draw, seen = random.Random(2), set()
    for i in range(300):
        picture = draw_picture(draw, held_out=i % 4 == 0, side=SIDE)
        match = re.fullmatch(r"An? (\w+) \w+ (above|left of) an? (\w+) \w+\.", picture.caption)
        if match:
            axis = 0 if match[2] == "above" else 1
            assert _centre(picture.image, match[1])[axis] < _centre(picture.image, match[3])[axis] - 20, picture.caption
            seen.add(match[2])
    assert seen == {"above", "left of"}


def test_clips_move_where_they_say() -> None:
    draw, seen = random.Random(3), set()
    for i in range(120):
        clip = draw_clip(draw, held_out=i % 4 == 0, side=SIDE)
        assert len(clip.frames) >= MIN_FRAMES
        match = next((re.fullmatch(r"An? (\w+) \w+ moves (.+)\.", asked.reply) for asked in clip.questions[1:2]), None)
        if match:
            down, right = _centre(clip.frames[-1], match[1]) - _centre(clip.frames[0], match[1])
            found = (
                ("down" if down > 0 else "up")
                if abs(down) > abs(right)
                else ("to the left" if right < 0 else "to the right")
            )
            assert found == match[2]
            seen.add(found)
    assert seen == {"up", "down", "to the left", "to the right"}


def test_held_out_combinations_never_show_in_training() -> None:
    draw = random.Random(4)
    sides = {held_out: {draw_picture(draw, held_out, 16).caption for _ in range(1500)} for held_out in (True, False)}
    singles = {side: {c for c in found if re.fullmatch(r"An? \w+ \w+\.", c)} for side, found in sides.items()}
    assert singles[True], "nothing was held out"
    assert not singles[True] & singles[False]


def test_the_same_dice_draw_the_same_picture_at_any_size() -> None:
    small, large = (draw_picture(random.Random(9), False, side) for side in (8, SIDE))
    assert (small.caption, small.questions) == (large.caption, large.questions)
    assert small.image.size == (8, 8)
    assert large.image.size == (SIDE, SIDE)


def test_drills_show_no_combination_that_is_kept_out() -> None:
    draw, kinds = random.Random(4), set()
    for _ in range(400):
        picture = draw_drill(draw, SIDE)
        for shape in picture.shapes:
            assert shape.kind in SHAPES or shape.color not in COLORS, shape
        shapes = sorted(shape.kind for shape in picture.shapes if shape.kind in SHAPES)
        assert len(set(shapes)) <= 1, "pairs of two kinds are examined"
        kinds.add((len(picture.shapes), len(shapes)))
    assert kinds == {(1, 0), (2, 1), (2, 2)}


def test_drills_say_where_things_are() -> None:
    draw, seen = random.Random(5), set()
    for _ in range(200):
        picture = draw_drill(draw, SIDE)
        replies = [asked.reply for asked in picture.questions if asked.question.startswith(("where", "tell me where"))]
        for reply in replies:
            match = re.fullmatch(r"The (.+) is (above|below|left of|right of) the (.+)\.", reply)
            assert match, reply
            near, far = (_drilled(picture.shapes, words) for words in (match[1], match[3]))
            x, y = far.x - near.x, far.y - near.y
            actual = ("below" if y < 0 else "above") if abs(y) > abs(x) else ("right of" if x < 0 else "left of")
            assert match[2] == actual, reply
            seen.add(actual)
    assert seen == {"above", "below", "left of", "right of"}


def _drilled(shapes: tuple[Shape, ...], words: str) -> Shape:
    """The one that `number seven`, `cross` or `red cross` names."""
    parts = words.split()
    named = [shape for shape in shapes if shape.kind == parts[-1]]
    if len(named) > 1:
        named = [shape for shape in named if shape.color == parts[0]]
    assert len(named) == 1, words
    return named[0]


def test_lopsided_replies_are_those_whose_opposite_is_kept_out() -> None:
    """Of what may be taught, no two kinds of shapes leave only one of two opposite positions."""
    draw, taught = random.Random(6), set()
    for _ in range(4000):
        picture = draw_picture(draw, held_out=False, side=8)
        for asked in picture.questions:
            match = re.fullmatch(r"The (\w+) is (above|below|left of|right of) the (\w+)\.", asked.reply)
            if match and asked.reply not in picture.lopsided:
                taught.add((frozenset((match[1], match[3])), match[2]))
    opposite = dict(zip(POSITIONS, ("below", "above", "right of", "left of"), strict=True))
    assert len(taught) > 20
    assert all((kinds, opposite[position]) in taught for kinds, position in taught)
