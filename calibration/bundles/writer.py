"""A bundle is written beside its place and renamed into it: there is a whole bundle or none.

with BundleWriter(Path("assistant.bundle"), force=False) as writer:
    … write files below writer.folder …
    writer.seal(manifest)      # hashes what is there, writes bundle.json
    writer.publish()           # the only moment at which the bundle's place changes

Leaving the block in any other way (an error, a full disk, Ctrl-C) removes what was written.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from sottovoce.runtime.backends.optimized_graph import remove_kept
from sottovoce.runtime.bundle import MANIFEST_FILE
from sottovoce.runtime.errors import SottovoceError
from sottovoce.runtime.hashing import files_sha256
from sottovoce.runtime.manifest import BundleManifest, FileRecord
from sottovoce.runtime.progress import Progress, SilentProgress
from sottovoce.runtime.records import write_record

SPARE_BYTES = 8 << 20
"""Room for the graphs' own files, which are not weights."""


class _State(enum.Enum):
    CREATED = "created"
    OPEN = "open"
    SEALED = "sealed"
    PUBLISHED = "published"
    ABANDONED = "abandoned"


class BundleWriter:
    """One bundle being written.

    Args:
        path: where the bundle will be.
        force: replace the bundle that is there; the old one stays whole until the new one is complete.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        self.path = Path(os.path.abspath(path))  # not resolved: a link to a folder is not written through
        self.folder = self.path.parent / f".{self.path.name}.partial-{os.getpid()}"
        self._force = force
        self._state = _State.CREATED

    def __enter__(self) -> BundleWriter:
        """Make the folder to write in.

        Raises:
            SottovoceError: something is in the bundle's place that must not be replaced, or the disk refuses.
        """
        self._require(_State.CREATED)
        self.check_place()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)  # of a process that had this one's id before it
            (self.folder / "graphs").mkdir(parents=True)
        except OSError as problem:
            raise self._disk_error(problem) from problem
        self._state = _State.OPEN
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._state is not _State.PUBLISHED:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._state = _State.ABANDONED
        if isinstance(problem, OSError):
            raise self._disk_error(problem) from problem

    def check_place(self) -> None:
        """Nothing is replaced unasked, and nothing but a bundle (or an empty folder) is replaced at all.

        Raises:
            SottovoceError: something is in the bundle's place that must not be replaced.
        """
        if not os.path.lexists(self.path):
            return
        if self.path.is_symlink() or not self.path.is_dir():
            raise SottovoceError("the output is there and is not a folder", file=self.path, fix="choose another output")
        if not self._force:
            message = "the output folder is there already"
            raise SottovoceError(message, file=self.path, fix="choose another output, or replace it with --force")
        if any(self.path.iterdir()) and not (self.path / MANIFEST_FILE).is_file():
            message = f"the output folder is not a bundle (it has no {MANIFEST_FILE}), so it is not replaced"
            raise SottovoceError(message, file=self.path, fix="choose another output, or remove that folder yourself")

    def require_space(self, needed_bytes: int) -> None:
        """Refuse before hours of work what cannot end well.

        Raises:
            SottovoceError: the disk has less room than that.
        """
        self._require(_State.OPEN)
        needed_bytes += SPARE_BYTES
        free = shutil.disk_usage(self.folder).free
        if free < needed_bytes:
            message = f"the bundle needs about {needed_bytes / 1e6:,.0f} MB, and the disk has {free / 1e6:,.0f} MB left"
            raise SottovoceError(message, file=self.path.parent, fix="make room there, or choose another disk with -o")

    def write_array(self, name: str, blocks: Iterable[npt.NDArray[np.generic]]) -> str:
        """Write an array raw, little-endian and row-major, in blocks along its first axis; returns its name.

        Raises:
            OSError: the disk is full or not writable.
        """
        self._require(_State.OPEN)
        with (self.folder / name).open("wb") as file:
            for block in blocks:
                values = np.ascontiguousarray(block.astype(block.dtype.newbyteorder("<"), copy=False))
                file.write(values.reshape(-1).view(np.uint8).data)
        return name

    def copy(self, source: Path, name: str) -> str:
        """Copy a file into the bundle; returns its name there."""
        self._require(_State.OPEN)
        shutil.copyfile(source, self.folder / name)
        return name

    def seal(self, manifest: BundleManifest, progress: Progress | None = None) -> BundleManifest:
        """Hash all files and write `bundle.json`; returns the manifest with its `files`."""
        self._require(_State.OPEN)
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        total, done = sum(path.stat().st_size for path in paths), 0
        records = {}
        with closing(files_sha256(paths)) as hashes:
            for path, sha256 in zip(paths, hashes, strict=True):
                size = path.stat().st_size
                records[path.relative_to(self.folder).as_posix()] = FileRecord(bytes=size, sha256=sha256)
                done += size
                (progress or SilentProgress()).step("hashing the bundle", done, total)
        manifest = dataclasses.replace(manifest, files=records)
        text = json.dumps(write_record(manifest), indent=1, ensure_ascii=False)
        (self.folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
        self._state = _State.SEALED
        return manifest

    def reopen(self) -> None:
        """Take the seal off, so that what was learned from the sealed bundle can be put into it.

        Its graphs may have been loaded meanwhile: what was kept of that is not part of the bundle.
        """
        self._require(_State.SEALED)
        (self.folder / MANIFEST_FILE).unlink()
        remove_kept(self.folder)
        self._state = _State.OPEN

    def write_text(self, name: str, text: str) -> str:
        """Write a small file; returns its name."""
        self._require(_State.OPEN)
        (self.folder / name).write_text(text, encoding="utf-8")
        return name

    def publish(self) -> None:
        """Rename the finished bundle into its place, with the old one (if any) removed after that.

        Raises:
            SottovoceError: something came into the bundle's place meanwhile.
        """
        self._require(_State.SEALED)
        self.check_place()
        replaced = self.path.parent / f".{self.path.name}.replaced-{os.getpid()}"
        had_old = os.path.lexists(self.path)
        if had_old:
            self.path.rename(replaced)
        try:
            self.folder.rename(self.path)
        except BaseException:
            if had_old:
                replaced.rename(self.path)
            raise
        self._state = _State.PUBLISHED
        if had_old:
            shutil.rmtree(replaced, ignore_errors=True)

    def _disk_error(self, problem: OSError) -> SottovoceError:
        file = problem.filename or self.path
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            message = "the disk became full while the bundle was written; what was written is removed"
            return SottovoceError(message, file=self.path.parent, fix="make room there, or choose another disk with -o")
        message = f"cannot read or write: {problem.strerror or problem}; nothing was left behind"
        return SottovoceError(message, file=file, fix="check that the folder exists and that you may write to it")

    def _require(self, state: _State) -> None:
        if self._state is not state:
            raise RuntimeError(f"the bundle writer is {self._state.value}, this step needs it {state.value}")
