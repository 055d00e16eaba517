"""`sottovoce.json` beside a checkpoint: what its trainer knows and the released layout has no place for.

    {"system_prompts": {"plain": "…", "image": "…", "video": "…"}, "max_tiles": 1}

Both keys may be left out; without the file, the released model's habits are taken.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sottovoce.runtime.errors import CheckpointError
from sottovoce.runtime.records import read_record

EXTRAS_FILE = "sottovoce.json"
MAX_FILE_BYTES = 1 << 20
MAX_TILES = 64


@dataclass(frozen=True)
class SystemPrompts:
    """The system text of each kind of conversation that the model was trained with."""

    plain: str
    image: str
    video: str


@dataclass(frozen=True)
class CheckpointExtras:
    """The file's contents.

    Args:
        system_prompts: None for the exporter's own.
        max_tiles: the most tiles that a picture was cut into while training; None for the released model's 12.
    """

    system_prompts: SystemPrompts | None = None
    max_tiles: int | None = None


def read_extras(checkpoint: Path) -> CheckpointExtras:
    """Read the file; an empty record if there is none.

    Raises:
        CheckpointError: not JSON, or a number of tiles that cannot be.
        RecordError: an unknown key, or a value of another type.
    """
    path = checkpoint / EXTRAS_FILE
    if not path.is_file():
        return CheckpointExtras()
    if path.stat().st_size > MAX_FILE_BYTES:
        raise CheckpointError(f"more than {MAX_FILE_BYTES} bytes", file=path, fix="shorten its texts")
    try:
        data = json.loads(path.read_bytes())
    except ValueError as problem:
        raise CheckpointError(f"not JSON: {problem}", file=path, fix="correct it or remove it") from problem
    extras = read_record(CheckpointExtras, data, source=str(path))
    if extras.max_tiles is not None and not 1 <= extras.max_tiles <= MAX_TILES:
        message = f"max_tiles is {extras.max_tiles}, expected 1 to {MAX_TILES}"
        raise CheckpointError(message, file=path, fix="give the number that the model was trained with")
    return extras
