"""Files are hashed on several cores, in the order in which they were asked for, and no longer than somebody waits."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import closing

import pytest

from sottovoce.runtime import hashing
from sottovoce.runtime.hashing import file_sha256, files_sha256


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / str(number) for number in range(9)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * (3_000_000 if number == 0 else 10 * number))
    return paths


def test_every_file_has_its_own(files):
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert list(files_sha256(files)) == expected == [file_sha256(path) for path in files]
    assert list(files_sha256([])) == []


def test_what_nobody_waits_for_is_not_read(files, monkeypatch):
    monkeypatch.setattr(hashing, "available_cores", lambda: 2)
    read = []

    class Slow:
        def update(self, block) -> None:
            read.append(len(block))
            time.sleep(0.02)

        def hexdigest(self) -> str:
            return "0" * 64

    monkeypatch.setattr(hashing, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(hashing.hashlib, "sha256", Slow)
    before = set(threading.enumerate())
    with closing(files_sha256(list(reversed(files)))) as hashes:
        next(hashes)
    assert set(threading.enumerate()) <= before
    assert len(read) < 100


def test_a_file_that_is_not_there(files, tmp_path):
    with closing(files_sha256([*files, tmp_path / "nowhere"])) as hashes, pytest.raises(FileNotFoundError):
        list(hashes)
