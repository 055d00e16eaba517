"""Stage 1, first part: the vision encoder learns to caption drawn pictures, apart from the language model.

Nothing is pretrained here, and a language model that cannot talk yet is a poor teacher of seeing. So the encoder and
the projector first name each word of the caption from the mean of a picture's embeddings, and what lies at the cell
of each single embedding, through heads that are thrown away. The language model then finds features that are worth
attending to.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sottovoce.demos.miniature.facts import number_words
from sottovoce.demos.miniature.lessons import FRONT_END
from sottovoce.demos.miniature.model import VISION, build_vision_encoder, use_bfloat16
from sottovoce.demos.miniature.pictures import COLORS, MAX_COUNT, SHAPES, Picture, draw_picture, plural
from sottovoce.demos.miniature.speech_out.training_state import batch_generator, learning_rate
from sottovoce.export.modules.vision_encoder import pixel_shuffle
from sottovoce.runtime.features.images import pixels

CAPTION_WORDS = (
    "", "a", "an", "the", "in", "of", "above", "below", "left", "right", "number", *sorted(COLORS), *SHAPES,
    *(plural(shape, 2) for shape in SHAPES), *(number_words(n) for n in range(max(10, MAX_COUNT + 1))),
)  # fmt: skip
LONGEST_CAPTION = 8
KINDS = ("", *SHAPES, *(number_words(n) for n in range(10)))
PLACE_COLORS = ("", *sorted(COLORS))
GRID = VISION.image_size // VISION.patch_size // 2
"""Embeddings a side."""


@dataclass(frozen=True)
class VisionRecipe:
    """How the vision encoder is trained on captions."""

    seed: int = 14
    steps: int = 6000
    batch_size: int = 40
    peak_rate: float = 1.5e-3
    report_every: int = 20
    save_every_seconds: float = 90.0


def caption_labels(caption: str) -> list[int]:
    """Places of a caption's words in `CAPTION_WORDS`, filled up with the empty word."""
    words = re.findall(r"[a-z]+", caption.lower())
    return [CAPTION_WORDS.index(word) for word in words] + [0] * (LONGEST_CAPTION - len(words))


def token_order() -> NDArray[np.int64]:
    """(embeddings,) which cell of the picture, row by row, each embedding stands for after the pixel shuffle."""
    side = 2 * GRID
    cells = torch.arange(side * side).reshape(side, side)
    cells = (cells // side // 2) * GRID + (cells % side) // 2
    shuffled = pixel_shuffle(cells.flatten()[None, :, None].float())[0]
    return shuffled[:, 0].long().numpy()


def place_labels(picture: Picture) -> NDArray[np.int64]:
    """(embeddings, 2): kind and color of what lies at each embedding's cell of the picture; 0 is nothing."""
    centre = (np.arange(GRID) + 0.5) / GRID
    cells = np.zeros((GRID, GRID, 2), dtype=np.int64)
    for shape in picture.shapes:
        reach = max(0.7 * shape.radius, 0.5 / GRID)
        rows, columns = np.abs(centre - shape.y) <= reach, np.abs(centre - shape.x) <= reach
        cells[np.ix_(rows, columns)] = KINDS.index(shape.kind), PLACE_COLORS.index(shape.color)
    return cells.reshape(-1, 2)[token_order()]


class VisionTrainer:
    """Vision encoder, its two heads and the optimizer."""

    def __init__(self, recipe: VisionRecipe) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.finished_steps = recipe, 0
        self.vision = build_vision_encoder()
        self.head = nn.Linear(VISION.llm_hidden_size, LONGEST_CAPTION * len(CAPTION_WORDS))
        self.places = nn.Linear(VISION.llm_hidden_size, len(KINDS) + len(PLACE_COLORS))
        use_bfloat16(self.vision)
        self.weights = [*self.vision.parameters(), *self.head.parameters(), *self.places.parameters()]
        self.optimizer = torch.optim.AdamW(self.weights, lr=0.0, fused=True, betas=(0.9, 0.98), weight_decay=0.02)

    def step(self) -> Mapping[str, float]:
        """One batch of pictures; how many captions come out right as a whole."""
        dice = batch_generator(self.recipe.seed, self.finished_steps)
        draw = random.Random(int(dice.integers(1 << 60)))
        drawn = [draw_picture(draw, held_out=False, side=VISION.image_size) for _ in range(self.recipe.batch_size)]
        labels = torch.tensor([caption_labels(picture.caption) for picture in drawn])
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.finished_steps, self.recipe.steps, self.recipe.peak_rate)
        where = torch.from_numpy(np.stack([place_labels(picture) for picture in drawn]))
        embeddings = self.vision(torch.from_numpy(pixels([picture.image for picture in drawn], FRONT_END)))
        scores = self.caption_scores(embeddings)
        kinds, colors = self.places(embeddings).split((len(KINDS), len(PLACE_COLORS)), dim=-1)
        named = F.cross_entropy(kinds.flatten(0, 1), where[..., 0].flatten())
        colored = F.cross_entropy(colors.flatten(0, 1), where[..., 1].flatten())
        loss = F.cross_entropy(scores.flatten(0, 1), labels.flatten()) + 2 * named + colored
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.finished_steps += 1
        right = (scores.detach().argmax(-1) == labels).all(1).float().mean()
        filled = where[..., 0] > 0
        found = (kinds.detach().argmax(-1) == where[..., 0])[filled].float().mean()
        return {"loss": float(loss.detach()), "captions": float(right), "places": float(found)}

    def caption_scores(self, embeddings: Tensor) -> Tensor:
        """(n, embeddings, 256) → (n, places, words)."""
        scores: Tensor = self.head(embeddings.mean(1))
        return scores.reshape(-1, LONGEST_CAPTION, len(CAPTION_WORDS))

    def state(self) -> dict[str, Any]:
        """Everything to go on from here."""
        return {
            "vision": self.vision.state_dict(), "head": self.head.state_dict(), "places": self.places.state_dict(),
            "optimizer": self.optimizer.state_dict(), "step": self.finished_steps,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.vision.load_state_dict(state["vision"])
        self.head.load_state_dict(state["head"])
        self.places.load_state_dict(state["places"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.finished_steps = state["step"]
