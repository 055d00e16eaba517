"""The one exception that users meet: what was wrong, where, and how to fix it."""

from __future__ import annotations

import os
from typing import Any


class SottovoceError(Exception):
    """A failure that a person can act on.

    Args:
        message: what was found and what was expected, with the tensor, key or flag by name.
        file: the file or folder it was found in, if there is one.
        fix: what to do about it, as an instruction.
    """

    def __init__(self, message: str, *, file: str | os.PathLike[str] | None = None, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = os.fspath(file) if file is not None else None
        self.fix = fix

    def __str__(self) -> str:
        where = f"{self.file}: " if self.file else ""
        how = f"\n  fix: {self.fix}" if self.fix else ""
        return f"{where}{self.message}{how}"

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints: `{"error": {"message", "file", "fix"}}`."""
        return {"error": {"message": self.message, "file": self.file, "fix": self.fix}}


class CheckpointError(SottovoceError):
    """The checkpoint is not what its own configuration says it is, or is not one that can be read."""


class BundleError(SottovoceError):
    """The bundle is damaged, of another version, or not a bundle."""


class InputError(SottovoceError):
    """A recording, picture, video or text that cannot be taken."""


class BackendError(SottovoceError):
    """The inference engine refused a graph, a device or a feed."""
