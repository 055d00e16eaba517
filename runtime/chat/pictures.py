"""What was shown, by the names that turn taking knows it by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

Picture = TypeVar("Picture", str, Path)
"""By its name, or by its file."""

CAMERA = "camera-"
"""How the names of a camera's pictures begin; whoever shows a file names it otherwise."""


class ShownPictures:
    """Names for files, and files for names."""

    def __init__(self) -> None:
        self._files: dict[str, Path] = {}

    def add(self, file: Path, *, from_camera: bool = False) -> str:
        """A name for `file`."""
        kind = CAMERA if from_camera else "picture-"
        name = f"{kind}{len(self._files) + 1}{file.suffix.lower()}"
        self._files[name] = file
        return name

    def files(self, names: Sequence[str]) -> list[Path]:
        """The files to show."""
        return [self._files[name] for name in current(names)]


def unseen(shown: Sequence[Picture], known: Sequence[Picture]) -> list[Picture]:
    """Those of `shown` that are not among the `known` of a turn yet; the same picture may be shown twice."""
    left, new = list(known), []
    for picture in shown:
        if picture in left:
            left.remove(picture)
        else:
            new.append(picture)
    return new


def current(names: Sequence[str]) -> list[str]:
    """Of a camera only the newest picture: earlier ones are left over from speech that was not meant for us."""
    seen = [name for name in names if name.startswith(CAMERA)]
    return [name for name in names if name not in seen[:-1]]
