"""Freed memory goes back to the system, whatever sizes came before."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CHURN = """
import sys
import numpy as np
from pathlib import Path
from sottovoce.runtime.steady_memory import give_back_freed_memory
if sys.argv[1] == "steady":
    assert give_back_freed_memory()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
random, kept, before = np.random.default_rng(0), [], resident()
for size in random.integers(1, 16, 200):
    large = [np.ones(int(size) * 100_000, np.float32) for _ in range(4)]
    kept.append(np.ones(2_000, np.float32))  # 8 kB that stay, behind megabytes that go
    del large
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_large_blocks_that_are_freed_leave_no_holes():
    grown = {
        how: float(
            subprocess.run([sys.executable, "-c", CHURN, how], capture_output=True, text=True, check=True).stdout
        )
        for how in ("as it is", "steady")
    }
    assert grown["steady"] < 4
    assert grown["steady"] < 0.5 * grown["as it is"]


AGAIN = """
import resource, sys
import numpy as np
from sottovoce.runtime.steady_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(12_000_000, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults_of_a_step()
print(faults_of_a_step())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_large_blocks_that_come_again_are_kept_for_a_training():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", AGAIN, how], capture_output=True, text=True, check=True).stdout)
        for how in ("as it is", "kept")
    }
    assert faults["kept"] < 10 < faults["as it is"]


TRIM = """
import numpy as np
from pathlib import Path
from sottovoce.runtime.steady_memory import give_back_freed_memory, trim_freed_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
assert give_back_freed_memory()
before = resident()
blocks = [np.ones(8_000, np.float32) for _ in range(1_000)]  # 32 kB each: too small for pages of their own
kept = blocks[::10] + blocks[-1:]
del blocks
freed = resident()
assert trim_freed_memory()
print(freed - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_holes_between_small_blocks_are_given_back():
    printed = subprocess.run([sys.executable, "-c", TRIM], capture_output=True, text=True, check=True).stdout
    freed, trimmed = map(float, printed.split())
    assert freed > 25
    assert trimmed < 8


HEAPS = """
import ctypes, sys, threading
from sottovoce.runtime.steady_memory import give_back_freed_memory
if sys.argv[1] == "one":
    assert give_back_freed_memory()
def work(start=threading.Barrier(4)):
    start.wait()
    for _ in range(200):
        blocks = [bytearray(20_000) for _ in range(50)]
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
library = ctypes.CDLL(None)
library.fdopen.restype = ctypes.c_void_p
printed = ctypes.c_void_p(library.fdopen(1, b"w"))
assert library.malloc_info(0, printed) == 0 and library.fflush(printed) == 0
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_threads_have_one_heap():
    def heaps(how: str) -> int:
        """As glibc counts them: where a mapping lies does not tell a heap from a library that lies there by chance."""
        command = [sys.executable, "-c", HEAPS, how]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.count("<heap ")

    assert heaps("one") == 1
    assert heaps("as it is") > 1


FREEZE = """
import gc, time
from sottovoce.runtime.steady_memory import keep_what_is_loaded
loaded = [[number] for number in range(300_000)]
def collect():
    start = time.perf_counter()
    gc.collect()
    return time.perf_counter() - start
before = collect()
keep_what_is_loaded()
later = [[] for _ in range(1000)]
cycle = []
cycle.append(cycle)
del cycle
assert gc.collect() == 1  # what came later is still looked at
print(min(collect() for _ in range(5)) / before)
"""


def test_what_is_loaded_costs_no_time_later():
    printed = subprocess.run([sys.executable, "-c", FREEZE], capture_output=True, text=True, check=True).stdout
    assert float(printed) < 0.2
