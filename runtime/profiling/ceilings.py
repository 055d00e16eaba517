"""What this machine can do at best, measured before anything is loaded: bytes and multiply-adds a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from sottovoce.runtime.profiling.matmul_graph import matmul_graph
from sottovoce.runtime.progress import Progress

LEAST_BYTES, MOST_BYTES = 256 << 20, 1 << 30
CACHES_OVER = 4
"""The array is so many times as large as the last cache, so that memory is measured and not the cache."""
LAST_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LEAST_PASSES, LEAST_SECONDS = 6, 0.7
MATRIX = 1024
"""Rows and columns: 4 MB each, 2.1 billion operations a product."""


@dataclass(frozen=True)
class Ceilings:
    """The best of several passes each, on as many threads as the bundle runs on.

    Args:
        threads: how many.
        read_gb_s: 10⁹ bytes a second that were read.
        copy_gb_s: the same of a copy, read and written bytes together.
        matmul_gflop_s: 10⁹ operations a second of a float32 matrix product in ONNX Runtime; two for a multiply-add.
        last_cache_mb: what the processor's last cache holds (10⁶ bytes); None: it does not say.
    """

    threads: int
    read_gb_s: float
    copy_gb_s: float
    matmul_gflop_s: float
    last_cache_mb: float | None


def measure_ceilings(
    threads: int, progress: Progress, array_bytes: int | None = None, matrix: int = MATRIX
) -> Ceilings:
    """Measure them; takes a second or two.

    Args:
        threads: to measure with.
        progress: told of the three steps.
        array_bytes: size of the array to read; None: by the processor's cache.
        matrix: rows and columns of the product's factors.
    """
    cache = last_cache_bytes()
    read, copy = _bandwidth(threads, array_bytes)
    progress.step("the machine's ceilings", 2, 3)
    product = _matrix_product(threads, matrix)
    progress.step("the machine's ceilings", 3, 3)
    return Ceilings(threads, read, copy, product, None if cache is None else cache / 1e6)


def last_cache_bytes(path: Path = LAST_CACHE) -> int | None:
    """Size of the processor's last cache, or None where the system does not say."""
    try:
        text = path.read_text(encoding="ascii").strip()
        return int(text[:-1]) * UNITS[text[-1]]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, IndexError):
        return None


class ReadBandwidth:
    """An array that is read again and again on several threads; use it as a context manager.

    Args:
        threads: to read with.
        array_bytes: its size; None: by the processor's cache.
    """

    def __init__(self, threads: int, array_bytes: int | None = None) -> None:
        self.array = np.ones((array_bytes or _array_bytes()) // 8, dtype=np.int64)
        self._parts = np.array_split(self.array, threads)
        self.pool = ThreadPoolExecutor(threads)  # what is done with arrays lets go of the interpreter's lock

    def read(self) -> None:
        """All of it, once."""
        list(self.pool.map(np.max, self._parts))

    def best(self, passes: int) -> float:
        """10⁹ bytes a second of the fastest of so many passes."""
        return self.array.nbytes / min(_seconds(self.read) for _ in range(passes)) / 1e9

    def __enter__(self) -> ReadBandwidth:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()


def _array_bytes() -> int:
    return min(max(LEAST_BYTES, CACHES_OVER * (last_cache_bytes() or 0)), MOST_BYTES)


def _bandwidth(threads: int, array_bytes: int | None) -> tuple[float, float]:
    """10⁹ bytes a second of reading an array, and of copying its one half to the other."""
    with ReadBandwidth(threads, array_bytes) as memory:
        source, half = memory.array, len(memory.array) // 2
        copies = list(zip(np.array_split(source[:half], threads), np.array_split(source[half:], threads), strict=True))

        def copy() -> None:
            list(memory.pool.map(lambda pair: np.copyto(pair[1][: len(pair[0])], pair[0][: len(pair[1])]), copies))

        return source.nbytes / _best_seconds(memory.read) / 1e9, source.nbytes / _best_seconds(copy) / 1e9


def _matrix_product(threads: int, size: int) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(matmul_graph(), options, providers=["CPUExecutionProvider"])
    factors = np.random.default_rng(0).standard_normal((2, size, size), dtype=np.float32)
    feeds = {"a": factors[0], "b": factors[1]}
    return 2 * size**3 / _best_seconds(lambda: session.run(["c"], feeds)) / 1e9


def _best_seconds(work: Callable[[], object]) -> float:
    """A ceiling is what is possible: of several passes the fastest, the others were disturbed."""
    best, passes, began = float("inf"), 0, time.perf_counter()
    while passes < LEAST_PASSES or time.perf_counter() - began < LEAST_SECONDS:
        best, passes = min(best, _seconds(work)), passes + 1
    return best


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
