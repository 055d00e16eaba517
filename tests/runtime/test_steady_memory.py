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
