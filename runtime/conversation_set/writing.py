"""Files that are whole on the disk, one process at a time, and refusals of the disk that name the file."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sottovoce.runtime.errors import InputError, SottovoceError

LOCK_SECONDS = 30.0
"""A captured turn is renamed into place in milliseconds; a lock held for longer belongs to a process that hangs."""
LOCK_POLL_SECONDS = 0.02


@contextmanager
def refusals_named(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an error that names the file.

    Raises:
        SottovoceError: the disk is full, or the place cannot be written.
    """
    try:
        yield
    except OSError as problem:
        file = problem.filename or path
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            message, fix = "the disk became full while a conversation was captured", "make room there"
        else:
            message = f"a conversation cannot be captured: {problem.strerror or problem}"
            fix = "check that the folder may be written to"
        message += "; what was captured before is as it was"
        raise SottovoceError(message, file=file, fix=f"{fix}, or choose another folder with --capture") from problem


def write_whole(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on the disk.

    Raises:
        OSError: the disk is full or not writable.
    """
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_whole(path: Path, content: bytes) -> None:
    """Give `path` new content: readers see the old or the new one, and after a failure it is the old one.

    Only one process at a time may do this (see `exclusive`).

    Raises:
        OSError: the disk is full or not writable.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        write_whole(partial, content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, among processes and threads; the system gives it back if the process dies.

    Raises:
        InputError: another process holds it and does not let go.
        OSError: the lock file cannot be made.
    """
    import fcntl  # not everywhere that the rest of the runtime could be imported

    with path.open("ab") as file:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    message = f"another process has been writing here for {LOCK_SECONDS:.0f} s"
                    raise InputError(message, file=path, fix="end it, or choose another folder") from None
                time.sleep(LOCK_POLL_SECONDS)
        yield
