"""Stage 1, second part: reading first, then pictures are described (align), then all is asked together (instruct).

The paper starts from a language model that can read; nothing is pretrained here, so that comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sottovoce.demos.miniature.learner import Learner
from sottovoce.demos.miniature.lessons import Lessons, Mixture, Teacher
from sottovoce.demos.miniature.prompts import PromptWriter
from sottovoce.demos.miniature.speech_out.training_state import batch_generator, learning_rate


@dataclass(frozen=True)
class Phase:
    """So many steps of one mixture."""

    steps: int
    mixture: Mixture


READ = Phase(900, Mixture(typed=28, stretched=34, pictures=0, clips=0, noises=2))
ALIGN = Phase(150, Mixture(typed=8, stretched=8, pictures=20, clips=0, noises=0, captions_only=True))
INSTRUCT = Phase(1150, Mixture(typed=8, stretched=9, pictures=14, clips=5, noises=1))


@dataclass(frozen=True)
class LanguageRecipe:
    """How language model and vision encoder are trained together."""

    seed: int = 12
    phases: tuple[Phase, ...] = (READ, ALIGN, INSTRUCT)
    peak_rate: float = 2e-3
    report_every: int = 20
    save_every_seconds: float = 90.0

    @property
    def steps(self) -> int:
        """All phases one after the other."""
        return sum(phase.steps for phase in self.phases)

    def mixture_at(self, step: int) -> Mixture:
        """What that step's lessons are drawn from; the last phase's when all are over."""
        for phase in self.phases:
            if step < phase.steps:
                return phase.mixture
            step -= phase.steps
        return self.phases[-1].mixture


def teach(learner: Learner, groups: Sequence[Lessons]) -> dict[str, float]:
    """Add the gradients of groups of lessons, every reply counting the same.

    Returns:
        The mean loss, and for each kind of lesson the share of replies that were right as a whole (teacher-forced).
    """
    total, loss = sum(group.replies for group in groups), 0.0
    right: dict[str, list[bool]] = {}
    for group in groups:
        part, correct = learner.reply_loss(group.rows, torch.from_numpy(group.pixels))
        part = part * (group.replies / total)
        part.backward()
        loss += float(part.detach())
        for row, is_right in zip(group.rows, correct.tolist(), strict=True):
            right.setdefault(row.kind, []).append(is_right)
    return {"loss": loss, **{kind: sum(marks) / len(marks) for kind, marks in right.items()}}


class LanguageTrainer:
    """Language model, vision encoder and optimizer."""

    def __init__(self, recipe: LanguageRecipe, writer: PromptWriter, table: NDArray[np.float32]) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.finished_steps = recipe, 0
        self.teacher = Teacher(writer, table)
        self.learner = Learner(table, writer.blank)
        self.weights = [weight for weight in self.learner.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=0.0, fused=True, betas=(0.9, 0.98), weight_decay=0.05)

    def start_from(self, vision: Mapping[str, Any]) -> None:
        """Take over the vision encoder that has learned to caption."""
        self.learner.vision.load_state_dict(vision["vision"])

    def step(self) -> Mapping[str, float]:
        """One batch; how many replies of each kind came out right as a whole (teacher-forced)."""
        dice = batch_generator(self.recipe.seed, self.finished_steps)
        torch.manual_seed(int(dice.integers(1 << 40)))
        lessons = self.teacher.draw(self.recipe.mixture_at(self.finished_steps), dice)
        rate = learning_rate(self.finished_steps, self.recipe.steps, self.recipe.peak_rate, decay_share=0.6)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        figures = teach(self.learner, lessons)
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.finished_steps += 1
        return figures

    def state(self) -> dict[str, Any]:
        """Everything to go on from here."""
        return {
            "learner": self.learner.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.finished_steps,
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.finished_steps = state["step"]
