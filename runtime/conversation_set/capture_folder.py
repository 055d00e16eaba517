"""A folder that captured conversations are added to: whole turns, up to a bound, by several processes at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.conversation_set.capture_record import (
    ANOTHER_FOLDER,
    CAPTURE_FILE,
    CaptureRecord,
    read_capture_record,
)
from sottovoce.runtime.conversation_set.item import SET_FILE
from sottovoce.runtime.conversation_set.question_files import CaptureLimits, NotCaptured
from sottovoce.runtime.conversation_set.writing import exclusive, refusals_named, replace_whole
from sottovoce.runtime.errors import InputError
from sottovoce.runtime.manifest import AudioFrontEnd

LOCK_FILE = ".capture.lock"
OWN_PREFIX = ".capture."
"""Of what is in a folder before its `capture.json` is: the lock, and that file while it is written."""
PRIVATE = 0o700
"""People's voices: the folder is made for its owner alone."""


@dataclass(frozen=True)
class CaptureUsage:
    """What a folder holds: lines of the set, and bytes of all files."""

    conversations: int
    bytes: int


class CaptureFolder:
    """Made by `open`. Several of them, in several processes, may add to the same folder.

    Args:
        path: the folder; it holds a `capture.json`.
        front_end: how the bundle's model hears.
        limits: what the folder may hold.
    """

    def __init__(self, path: Path, front_end: AudioFrontEnd, limits: CaptureLimits) -> None:
        self.path = path
        self.front_end = front_end
        self.limits = limits

    @classmethod
    def open(cls, path: str | os.PathLike[str], bundle: Bundle, limits: CaptureLimits | None = None) -> CaptureFolder:
        """Make sure that conversations with `bundle` may be captured into the folder `path`, making it if need be.

        A folder keeps the replies of one bundle: they are the measure that other bundles are held against.

        Args:
            path: a new or empty folder, or one that the same bundle's conversations were captured into.
            bundle: the one that replies.
            limits: what the folder may hold; None for the defaults.

        Raises:
            InputError: the folder holds something else, or captures of another bundle, model or format.
            SottovoceError: it cannot be written to.
        """
        folder = cls(Path(path), bundle.manifest.audio, limits or CaptureLimits())
        if folder.path.exists() and not folder.path.is_dir():
            raise InputError("this is a file, expected a folder to capture into", file=path, fix=ANOTHER_FOLDER)
        with refusals_named(folder.path):
            folder.path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            folder._require_own()  # before the lock file is put into a folder that is somebody else's
        with folder._locked():
            folder._claim(bundle)
        return folder

    def usage(self) -> CaptureUsage:
        """What is there now."""
        return CaptureUsage(len(self._lines()), _bytes_below(self.path))

    def check_room(self) -> None:
        """Before files are written for nothing.

        Raises:
            NotCaptured: the folder is full.
        """
        self._check_room(len(self._lines()), 0)

    @contextmanager
    def unfinished(self) -> Iterator[Path]:
        """A folder beside the set for the files of a turn that is being written; gone at the end of the block."""
        with refusals_named(self.path):
            folder = tempfile.TemporaryDirectory(prefix=".", suffix=".partial", dir=self.path)
        with folder as path:
            yield Path(path)

    def put(self, line: bytes, files: Path, replaced: bytes | None) -> None:
        """Move the files into the folder and add the line that names them to the set; or change nothing.

        Args:
            line: of the set, its end included.
            files: the folder in which they were written, from `unfinished`.
            replaced: an earlier line of the same conversation, which goes.

        Raises:
            NotCaptured: the folder is full.
            SottovoceError: the disk is full or not writable.
        """
        with self._locked():
            lines = [kept for kept in self._lines() if kept != replaced]
            self._check_room(len(lines), len(line))
            placed: list[Path] = []
            try:
                with refusals_named(self.path / SET_FILE):
                    for file in sorted(files.iterdir()):
                        placed.append(file.rename(self.path / file.name))
                    replace_whole(self.path / SET_FILE, b"".join([*lines, line]))
            except BaseException:
                if line not in self._lines():
                    for file in placed:
                        file.unlink(missing_ok=True)
                raise

    def _claim(self, bundle: Bundle) -> None:
        """Write this bundle's record into a new folder, or find it in one that is in use."""
        own, path = CaptureRecord.of(bundle), self.path / CAPTURE_FILE
        found = read_capture_record(self.path, bundle.manifest)
        if found is None:
            self._require_own()
            with refusals_named(path):
                replace_whole(path, own.as_json())
        elif found.bundle_sha256 != own.bundle_sha256:
            message = f"another bundle's conversations are in here: bundle.json has the SHA-256 {own.bundle_sha256}"
            message += f", captured was with {found.bundle_sha256}"
            raise InputError(message, file=path, fix=ANOTHER_FOLDER)

    def _require_own(self) -> None:
        """Nothing is in the folder, or it is one for captures."""
        names = os.listdir(self.path)
        others = [name for name in names if not name.startswith(OWN_PREFIX)]
        if others and CAPTURE_FILE not in names:
            message = f"no {CAPTURE_FILE} is in this folder, but {len(others)} others are, such as {min(others)!r}"
            raise InputError(f"{message}; expected none", file=self.path, fix=ANOTHER_FOLDER)

    def _check_room(self, conversations: int, line_bytes: int) -> None:
        """The files of the new turn lie below the folder already, so that they count."""
        if conversations >= self.limits.conversations:
            raise NotCaptured(f"{self.path} is full: it holds {conversations:,} conversations, and no more may be")
        size = _bytes_below(self.path) + line_bytes
        if size > self.limits.total_bytes:
            found = f"with this turn it would hold {size:,} bytes, and {self.limits.total_bytes:,} may be"
            raise NotCaptured(f"{self.path} is full: {found}")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with refusals_named(self.path), exclusive(self.path / LOCK_FILE):
            yield

    def _lines(self) -> list[bytes]:
        """The set's lines, ends included."""
        listing = self.path / SET_FILE
        if not listing.is_file():
            return []
        return [line + b"\n" for line in listing.read_bytes().split(b"\n") if line.strip()]


def _bytes_below(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:  # another process renamed or removed it meanwhile
                continue
    return total
