"""A target's engines on disk: checked before they are believed, and replaced all at once or not at all.

Each engine's file bears its hash in its name, so that new engines lie beside the old ones until the record, which is
replaced last, names the new; then those that no record names are removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines.record import (
    FORMAT_VERSION,
    RECORD_FILE,
    EngineFolderRecord,
    EngineRecord,
    engines_folder,
    record_text,
)
from sottovoce.runtime.hashing import file_sha256

ENGINE_SUFFIX = ".engine"
TIMINGS_FILE = "timing.cache"
UNFINISHED = ".building-"
HASH_DIGITS = 12


def whole_engine(bundle: Bundle, target: str, record: EngineRecord) -> EngineRecord | None:
    """The record of an engine whose file is the one that was built, with the time at which it was written; else None.

    A file of the size and time that were written down is believed to be the same, so that a build with nothing to do
    does not read gigabytes. One of another time (it was copied) is read and compared, and its time is then in the
    record. Whoever loads an engine compares its hash in any case.
    """
    path = engines_folder(bundle, target) / record.file
    if path.is_symlink() or not path.is_file():
        return None
    found = path.stat()
    if found.st_size != record.bytes:
        return None
    if found.st_mtime_ns != record.modified_ns and file_sha256(path) != record.sha256:
        return None
    return replace(record, modified_ns=found.st_mtime_ns)


def engine_file_name(stage: str, sha256: str) -> str:
    """Of an engine with this hash."""
    return f"{stage}-{sha256[:HASH_DIGITS]}{ENGINE_SUFFIX}"


class EngineFolderWriter:
    """Takes a target's new engines; unless `commit` is called, leaving it leaves the folder as it was.

    Args:
        bundle: whose engines.
        target: name of the target.
    """

    def __init__(self, bundle: Bundle, target: str) -> None:
        self._target = target
        self._folder = engines_folder(bundle, target)
        self._beside = self._folder / f"{UNFINISHED}{os.getpid()}"

    def __enter__(self) -> EngineFolderWriter:
        self._beside.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(self._folder, self._beside)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._beside, ignore_errors=True)
        for folder in (self._folder, self._folder.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def add(self, stage: str, plan: memoryview) -> tuple[str, str, int]:
        """Write one engine beside its place → its file's name, SHA-256 and time of writing.

        Raises:
            OSError: the disk is full or not writable.
        """
        unnamed = self._beside / stage
        with unnamed.open("wb") as file:
            file.write(plan)
        sha256 = file_sha256(unnamed)
        name = engine_file_name(stage, sha256)
        os.replace(unnamed, self._beside / name)
        return name, sha256, (self._beside / name).stat().st_mtime_ns

    def commit(self, engines: Mapping[str, EngineRecord]) -> None:
        """Make these the target's engines: those that were added, and those of before that are kept.

        Raises:
            OSError: the disk is full or not writable.
        """
        record = self._beside / RECORD_FILE
        record.write_text(record_text(EngineFolderRecord(FORMAT_VERSION, self._target, engines)), encoding="utf-8")
        for path in self._beside.glob(f"*{ENGINE_SUFFIX}"):
            os.replace(path, self._folder / path.name)
        os.replace(record, self._folder / RECORD_FILE)
        used = {engine.file for engine in engines.values()}
        for path in self._folder.glob(f"*{ENGINE_SUFFIX}"):
            if path.name not in used:
                path.unlink(missing_ok=True)


def _remove_abandoned(folder: Path, own: Path) -> None:
    """What a build left that was killed."""
    for path in folder.glob(f"{UNFINISHED}*"):
        process = path.name.removeprefix(UNFINISHED)
        if path != own and not (process.isdecimal() and _is_running(int(process))):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
