"""The SHA-256 of a file, and of many on several cores."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sottovoce.runtime.cores import available_cores

BLOCK_BYTES = 1 << 20


def file_sha256(path: Path, stop: threading.Event | None = None) -> str:
    """Hexadecimal digits; read in blocks: a mapped file would count as this process's memory, a read one does not.

    Args:
        path: the file.
        stop: once it is set, nobody wants to know any more.

    Raises:
        OSError: the file cannot be read.
    """
    digest, block = hashlib.sha256(), bytearray(BLOCK_BYTES)
    view = memoryview(block)
    with path.open("rb", buffering=0) as file:
        while (stop is None or not stop.is_set()) and (count := file.readinto(view)):
            digest.update(view[:count])
    return digest.hexdigest()


def files_sha256(paths: Sequence[Path]) -> Generator[str, None, None]:
    """Of every file, in this order; once it is closed, nothing is read any more.

    Raises:
        OSError: a file cannot be read.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(available_cores(), "hash") as pool:
        pending = [pool.submit(file_sha256, path, stop) for path in paths]
        try:
            for found in pending:
                yield found.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
