"""Training goes on from a packed checkpoint: the weights of a machine that is gone, with new optimizers.

Heads that only training needs (letters, phonemes) are not in a checkpoint: they are learned again on the way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from sottovoce.export.checkpoint.names import Component
from sottovoce.export.checkpoint.reader import Checkpoint


class PackedWeights:
    """The parts of a checkpoint as the trainers' modules name them, in float32.

    Args:
        folder: a packed checkpoint.

    Raises:
        CheckpointError: it is none, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._checkpoint = Checkpoint.open(folder)
        self._checkpoint.check_finite()

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

    def _part(self, component: Component) -> dict[str, Tensor]:
        state = self._checkpoint.component_state(component)
        return {name: state[name].float() for name in state}
