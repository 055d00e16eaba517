"""The CPU cores that this process may really use (a container's share, not the machine's count), and what they can."""

from __future__ import annotations

import functools
import math
import os
import platform
from pathlib import Path

QUOTA_V2 = Path("/sys/fs/cgroup/cpu.max")
QUOTA_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
PERIOD_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
CPU_INFO = Path("/proc/cpuinfo")
ONE_CORE_BYTES = 16 * 1024
"""More than the system writes of one core."""
INSTRUCTION_KEYS = ("model name", "flags", "Features", "CPU part")


def available_cores() -> int:
    """Cores of the process's affinity mask, at most the control group's quota (rounded up), at least one."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        allowed = os.cpu_count() or 1
    quota = _quota()
    return max(1, min(allowed, math.ceil(quota)) if quota else allowed)


@functools.cache
def processor_instructions() -> str:
    """The first core's model and instructions, as far as the system tells: what tells two kinds of processor apart."""
    try:
        with CPU_INFO.open("rb") as file:
            first = file.read(ONE_CORE_BYTES).decode("utf-8", "replace").partition("\n\n")[0]
    except OSError:  # not on macOS and Windows
        first = ""
    told = [line for line in first.splitlines() if line.partition(":")[0].strip() in INSTRUCTION_KEYS]
    return "\n".join([platform.machine(), *(told or [platform.processor()])])


def _quota() -> float | None:
    """Cores' worth of time that the control group grants, or None if it sets no limit."""
    for words in (_words(QUOTA_V2), _words(QUOTA_V1) + _words(PERIOD_V1)):
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]) > 0:
            return int(words[0]) / int(words[1])
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []
