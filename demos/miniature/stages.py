"""The three stages by their numbers: which trainers run, on what, and where their states lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sottovoce.demos.miniature.encoder_training import EncoderRecipe, EncoderTrainer
from sottovoce.demos.miniature.joint_training import JointRecipe, JointTrainer
from sottovoce.demos.miniature.language_training import LanguageRecipe, LanguageTrainer
from sottovoce.demos.miniature.model import VISION
from sottovoce.demos.miniature.prompts import PromptWriter
from sottovoce.demos.miniature.settings import Workspace
from sottovoce.demos.miniature.speech_batches import SpeechData
from sottovoce.demos.miniature.speech_out.training_state import Trainer, load_state, run_training
from sottovoce.demos.miniature.tokenizer import prepare
from sottovoce.demos.miniature.vision_training import VisionRecipe, VisionTrainer
from sottovoce.demos.miniature.warm_start import PackedWeights
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.progress import Progress

SPEECH_SHARDS = max(JointRecipe.shards, *(shards for _, shards in EncoderRecipe.growth))
SPEECH_SEED = 1


class ResumableTrainer(Trainer, Protocol):
    """A trainer that can be stepped and can take over a state."""

    def step(self) -> Mapping[str, float]:
        """One batch."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        ...


def train_vision(workspace: Workspace, progress: Progress, packed: PackedWeights | None = None) -> None:
    """Stage 1, first part: captions, without the language model."""
    trainer = VisionTrainer(VisionRecipe())
    if packed is not None:
        trainer.vision.load_state_dict(packed.vision)
    _run(trainer, workspace.states / "vision", progress)


def train_language(workspace: Workspace, progress: Progress, packed: PackedWeights | None = None) -> None:
    """Stage 1, second part: vision and language together, the vision encoder from its own training."""
    writer, table = _writer(workspace), np.load(workspace.embeddings)
    trainer = LanguageTrainer(LanguageRecipe(), writer, table)
    if packed is not None:
        trainer.learner.load_state_dict(packed.learner["learner"])
    else:
        trainer.start_from(_required(workspace.states / "vision" / "state.pt"))
    _run(trainer, workspace.states / "language", progress)


def train_encoder(workspace: Workspace, progress: Progress, packed: PackedWeights | None = None) -> None:
    """Stage 2, first part: letters and tokens by CTC. Needs nothing of stage 1, so both may run at once."""
    writer, table, recipe = _writer(workspace), np.load(workspace.embeddings), EncoderRecipe()
    data = SpeechData(workspace.speech, recipe.shards_at(0))
    trainer = EncoderTrainer(recipe, data, writer, table)
    if packed is not None:
        trainer.encoder.load_state_dict(packed.encoder["encoder"])
    _run(trainer, workspace.states / "encoder", progress)


def train_joint(workspace: Workspace, progress: Progress, packed: PackedWeights | None = None) -> None:
    """Stage 2, second part: from both states as they are now, or from a checkpoint; unless it has begun already."""
    writer, table, recipe = _writer(workspace), np.load(workspace.embeddings), JointRecipe()
    trainer = JointTrainer(recipe, SpeechData(workspace.speech, recipe.shards), writer, table)
    folder = workspace.states / "joint"
    if packed is not None:
        trainer.start_from(packed.learner, packed.encoder)
        trainer.begin_last_segment()
    elif not (folder / "state.pt").exists():
        trainer.start_from(*(_required(workspace.states / name / "state.pt") for name in ("language", "encoder")))
    _run(trainer, folder, progress)


def _writer(workspace: Workspace) -> PromptWriter:
    return PromptWriter(prepare(workspace), VISION.tokens_per_tile)


def _required(path: Path) -> dict[str, Any]:
    state = load_state(path)
    if state is None:
        raise SottovoceError(f"there is no state of the {path.parent.name} training", file=str(path),
                             fix="run train --stage 1, then train --stage 2 --part encoder")  # fmt: skip
    return state


def _run(trainer: ResumableTrainer, folder: Path, progress: Progress) -> None:
    state = load_state(folder / "state.pt")
    if state is not None:
        trainer.load(state)

    def step() -> Mapping[str, float]:
        figures = trainer.step()
        progress.step(folder.name, trainer.finished_steps, trainer.recipe.steps)
        return figures

    run_training(trainer, step, folder, folder.name)
