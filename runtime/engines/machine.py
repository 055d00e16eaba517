"""What a machine has that engines must fit: libraries, a GPU, a system. Looking imports none of the libraries."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from sottovoce.runtime.engines.targets import Library

GPU_LIBRARIES: tuple[Library, ...] = get_args(Library)
GPU_DEVICES = ("nvidiactl", "nvidia0", "nvgpu", "nvhost-gpu", "dxg")
"""One of these lies in /dev where there is an NVIDIA GPU: desktop, Jetson (either driver), or a PC's under Windows."""
DEVICES_FOLDER = Path("/dev")


@dataclass(frozen=True)
class Machine:
    """What engines are compared with."""

    libraries: Mapping[Library, str]
    """Each that is installed, and its version."""
    compute_capability: str
    platform: str


def installed_libraries() -> tuple[Library, ...]:
    """The Python modules that run engines and are installed here."""
    return tuple(name for name in GPU_LIBRARIES if _is_installed(name))


def may_run_engines() -> bool:
    """Whether there is a GPU, a library for engines and pycuda; nothing is loaded to find out."""
    has_gpu = any((DEVICES_FOLDER / name).exists() for name in GPU_DEVICES)
    return has_gpu and _is_installed("pycuda") and bool(installed_libraries())


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
