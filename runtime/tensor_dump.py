"""The stages' tensors of one run, kept for comparing with the model they came from."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from sottovoce.runtime.backends.session import Array
from sottovoce.runtime.errors import InputError

TensorName = Literal[
    "audio.fbank",
    "audio.embeddings",
    "image.pixels",
    "image.embeddings",
    "llm.ids",
    "llm.embeddings",
    "llm.step_logits",
    "speech.text_frames",
    "speech.nar",
    "speech.step_logits",
    "speech.codes",
    "codec.waveform",
]


class TensorDump:
    """Collects tensors by name; what is added under one name is joined along the first axis.

    | name | shape |
    | --- | --- |
    | audio.fbank, audio.embeddings | (frames, mel bins), (tokens, width) |
    | image.pixels, image.embeddings | (tiles, 3, size, size), (tiles, tokens, width) |
    | llm.ids | (n,), with -200 for a tile and -500 for a recording |
    | llm.embeddings | (positions, width), the ids' with what was seen and heard spliced in |
    | llm.step_logits | (steps, vocabulary), one row a generated token |
    | speech.text_frames, speech.nar | (frames, width) |
    | speech.step_logits, speech.codes | (steps, codes + 4), (codes,) |
    | codec.waveform | (samples,), all codes of a piece of text decoded at once |
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[Array]] = {}

    def add(self, name: TensorName, values: Array) -> None:
        """Append a copy of `values` (n, …) to the tensor `name`."""
        self._parts.setdefault(name, []).append(np.array(values))

    def tensors(self) -> dict[str, Array]:
        """Everything collected so far."""
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write all tensors as a compressed NumPy archive: the whole file, or none.

        Raises:
            InputError: the folder does not exist.
            OSError: the disk is full or not writable.
        """
        target = Path(path)
        if not target.parent.is_dir():
            raise InputError("the folder to write into does not exist", file=target.parent, fix="create it first")
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            unfinished = Path(folder) / "tensors.npz"
            np.savez_compressed(unfinished, **self.tensors())  # type: ignore[arg-type]  # names are not its options
            os.replace(unfinished, target)
