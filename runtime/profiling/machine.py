"""Which machine a report is of: enough to tell two apart, nothing that names its owner."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from sottovoce.runtime.cores import available_cores

CPU_INFO = Path("/proc/cpuinfo")
DEVICE_MODEL = Path("/proc/device-tree/model")
PROCESSOR_KEYS = ("model name", "Hardware", "Processor", "cpu model")


@dataclass(frozen=True)
class Machine:
    """What a bundle runs on.

    Args:
        processor: as the system names it, of a board its model, too.
        architecture: `x86_64`, `aarch64`, …
        system: `Linux`, …
        cores: that this process may use.
        memory_gb: of the machine, 10⁹ bytes; None where the system does not say.
    """

    processor: str
    architecture: str
    system: str
    cores: int
    memory_gb: float | None

    def differences(self, other: Machine) -> list[str]:
        """In what another machine is not this one; of memory, what a kernel keeps for itself does not count."""
        pairs = [
            ("processor", self.processor, other.processor),
            ("architecture", self.architecture, other.architecture),
            ("system", self.system, other.system),
            ("cores", str(self.cores), str(other.cores)),
            ("memory", _rounded(self.memory_gb), _rounded(other.memory_gb)),
        ]
        return [f"{what}: {ours} against {theirs}" for what, ours, theirs in pairs if ours != theirs]


def this_machine() -> Machine:
    """The one this process is on."""
    board = _text(DEVICE_MODEL).strip("\0 \n")
    lines = [line.partition(":") for line in _text(CPU_INFO).splitlines()]
    named = [value.strip() for key, _, value in lines if key.strip() in PROCESSOR_KEYS and value.strip()]
    processor = ", ".join(filter(None, (board, named[0] if named else platform.processor()))) or "unknown"
    return Machine(processor, platform.machine(), platform.system() or sys.platform, available_cores(), _memory_gb())


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 2)
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def _rounded(gigabytes: float | None) -> str:
    return "unknown" if gigabytes is None else f"{gigabytes:.0f} GB"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
