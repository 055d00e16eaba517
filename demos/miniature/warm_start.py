"""Training goes on from a packed checkpoint: the weights of a machine that is gone, with new optimizers.

Heads that only training needs (letters, phonemes) are not in a checkpoint: they are learned again on the way.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sottovoce.demos.miniature.settings import Workspace
from sottovoce.demos.miniature.speech_out.acoustic_units import AcousticUnits
from sottovoce.demos.miniature.tokenizer import TOKENIZER_FILES
from sottovoce.export.checkpoint.names import Component
from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.runtime.errors import SottovoceError


def units_beside(checkpoint: Path) -> Path:
    """Where the acoustic units of a packed checkpoint lie: found again elsewhere, they would be other ones."""
    return checkpoint.with_name(f"{checkpoint.name}-units.safetensors")


class PackedWeights:
    """The parts of a checkpoint as the trainers' modules name them, in float32.

    Args:
        folder: a packed checkpoint.

    Raises:
        CheckpointError: it is none, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._checkpoint, self._folder = Checkpoint.open(folder), folder
        self._checkpoint.check_finite()

    def bring_tokenizer(self, workspace: Workspace) -> None:
        """Give the workspace the checkpoint's tokenizer and embedding table: its weights know no other.

        A tokenizer that is learned here would be another one as soon as the curriculum has changed.

        Raises:
            SottovoceError: trainings have begun here with another tokenizer.
        """
        pairs = [(self._folder / name, workspace.tokenizer / name) for name in TOKENIZER_FILES]
        if all(there.exists() and filecmp.cmp(packed, there, shallow=False) for packed, there in pairs):
            return
        begun = sorted(workspace.states.glob("*/state.pt"))
        if begun:
            raise SottovoceError(
                f"the {begun[0].parent.name} training has begun with another tokenizer than {self._folder} has",
                file=str(workspace.tokenizer), fix="choose another folder with --work, or remove its states",
            )  # fmt: skip
        workspace.tokenizer.mkdir(parents=True, exist_ok=True)
        for packed, there in pairs:
            shutil.copyfile(packed, there.with_name(f"{there.name}.partial"))
            os.replace(there.with_name(f"{there.name}.partial"), there)
        np.save(workspace.embeddings, self.learner["learner"]["llm.model.embed_tokens.weight"].numpy())

    @property
    def learner(self) -> dict[str, Any]:
        """Language model and vision encoder, as a state of the language training."""
        parts = {"llm": self._part("language_model"), "vision": self.vision}
        named = {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}
        return {"learner": named}

    @property
    def vision(self) -> dict[str, Tensor]:
        """Vision encoder and projector."""
        return self._part("vision")

    @property
    def encoder(self) -> dict[str, Any]:
        """Audio encoder and adapter, as a state of the encoder's training without its head."""
        return {"encoder": self._part("audio")}

    @property
    def speech_decoder(self) -> dict[str, Tensor]:
        """The speech decoder's weights."""
        return self._part("speech_decoder")

    @property
    def codec(self) -> dict[str, Tensor]:
        """The generator and the codebook."""
        return self._part("codec")

    @property
    def units(self) -> AcousticUnits:
        """What makes the codes that the codec speaks: it lies beside the checkpoint.

        Raises:
            SottovoceError: it does not.
        """
        path = units_beside(self._folder)
        if not path.exists():
            raise SottovoceError("the acoustic units of this checkpoint are missing", file=str(path),
                                 fix="bring the file that pack wrote beside the checkpoint")  # fmt: skip
        return AcousticUnits.read(path)

    def _part(self, component: Component) -> dict[str, Tensor]:
        state = self._checkpoint.component_state(component)
        return {name: state[name].float() for name in state}
