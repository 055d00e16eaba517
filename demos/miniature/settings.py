"""Where the miniature's work lies, and the sizes it is trained at."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

WORKSPACE_VARIABLE = "SOTTOVOCE_MINIATURE"
PARTS = {1: ("vision", "language"), 2: ("encoder", "joint"), 3: ("voice", "codec", "speech-decoder")}
"""What each stage does one after the other. Codec and speech decoder need nothing of each other and may run at once."""


@dataclass(frozen=True)
class Workspace:
    """The folder of everything that is made and not committed: data, training states, curves, the packed checkpoint."""

    root: Path

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer's files."""
        return self.root / "tokenizer"

    @property
    def embeddings(self) -> Path:
        """The frozen token embedding table, (vocabulary, 256) float32."""
        return self.root / "embeddings.npy"

    @property
    def speech(self) -> Path:
        """Shards of synthetic speech for the audio encoder."""
        return self.root / "speech_in"

    @property
    def states(self) -> Path:
        """One resumable state file a training."""
        return self.root / "states"

    @property
    def curves(self) -> Path:
        """Loss and accuracy over steps, as tables and pictures."""
        return self.root / "curves"

    @property
    def checkpoint(self) -> Path:
        """The packed checkpoint, in the layout of the released model."""
        return self.root / "checkpoint"


def default_workspace() -> Workspace:
    """`$SOTTOVOCE_MINIATURE`, or a folder of the user's cache."""
    chosen = os.environ.get(WORKSPACE_VARIABLE)
    return Workspace(Path(chosen) if chosen else Path.home() / ".cache" / "sottovoce" / "miniature")
