"""Files that can be read at any moment of their growing, also when the program is killed meanwhile.

Nothing waits in a buffer of this process: every line and every piece of sound is given to the operating system at once,
which keeps it when the process dies (not when the power fails). A WAV's samples are written first and then its header,
in one call each, so that the header never promises what is not there.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PRIVATE = 0o600
"""What people say in a room: for the owner alone."""
WAV_HEADER_BYTES = 58
MAX_WAV_BYTES = (1 << 32) - 1
IEEE_FLOAT = 3


class LinesFile:
    """JSON objects, one a line.

    Args:
        path: a file that does not exist yet.

    Raises:
        OSError: it does, or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._handle = _create(path)

    def append(self, line: bytes) -> None:
        """Add what `line_of` made.

        Raises:
            OSError: the disk is full.
        """
        _write_all(self._handle, line, os.fstat(self._handle).st_size)

    def close(self) -> None:
        """Nothing more comes."""
        os.close(self._handle)


def line_of(data: Mapping[str, Any]) -> bytes:
    """An object as a line, its end included."""
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:  # half a character, from a terminal that is not UTF-8: escaped, it can be read back
        return json.dumps(data, separators=(",", ":")).encode() + b"\n"


class GrowingWav:
    """Mono WAV of 32-bit floats: the very samples that were heard or made, at any level.

    Args:
        path: a file that does not exist yet.
        sample_rate: samples a second.

    Raises:
        OSError: it does, or cannot be made.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        self._rate = sample_rate
        self._handle = _create(path)
        self.samples = 0
        """How many there are."""
        self._write_header()

    def append(self, samples: npt.NDArray[np.float32]) -> None:
        """Add samples (n,).

        Raises:
            OSError: the disk is full, or the file as large as a WAV can be.
        """
        content = np.ascontiguousarray(samples, dtype="<f4").tobytes()
        self._check_size(len(samples))
        _write_all(self._handle, content, WAV_HEADER_BYTES + 4 * self.samples)
        self.samples += len(samples)
        self._write_header()

    def append_silence(self, samples: int) -> None:
        """Add so many samples of 0.

        Raises:
            OSError: the disk is full, or the file as large as a WAV can be.
        """
        self._check_size(samples)
        os.ftruncate(self._handle, WAV_HEADER_BYTES + 4 * (self.samples + samples))
        self.samples += samples
        self._write_header()

    def close(self) -> None:
        """Nothing more comes."""
        os.close(self._handle)

    def _check_size(self, more: int) -> None:
        if WAV_HEADER_BYTES + 4 * (self.samples + more) > MAX_WAV_BYTES:
            raise OSError("a WAV file cannot hold more than 4 GiB")

    def _write_header(self) -> None:
        size = 4 * self.samples
        form = struct.pack("<4sIHHIIHHH", b"fmt ", 18, IEEE_FLOAT, 1, self._rate, 4 * self._rate, 4, 32, 0)
        fact = struct.pack("<4sII", b"fact", 4, self.samples)
        head = struct.pack("<4sI4s", b"RIFF", WAV_HEADER_BYTES - 8 + size, b"WAVE")
        _write_all(self._handle, head + form + fact + struct.pack("<4sI", b"data", size), 0)


def _create(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)


def _write_all(handle: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written
