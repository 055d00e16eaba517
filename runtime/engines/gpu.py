"""The NVIDIA GPU of this machine, asked of the driver itself: no CUDA toolkit and no Python package is needed."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

CUDA_SUCCESS = 0
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
"""Of `CUdevice_attribute`."""
NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """A device, as the driver describes it."""

    name: str
    compute_capability: str
    """As "8.7"."""
    memory_bytes: int


def find_gpu() -> Gpu | None:
    """The first device that the driver shows; None without a driver, or without a device."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        return _first_device(driver)
    except (OSError, AttributeError):
        return None


def _first_device(driver: ctypes.CDLL) -> Gpu | None:
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) != CUDA_SUCCESS or driver.cuDeviceGetCount(ctypes.byref(count)) != CUDA_SUCCESS:
        return None
    if count.value < 1 or driver.cuDeviceGet(ctypes.byref(device), 0) != CUDA_SUCCESS:
        return None
    name = ctypes.create_string_buffer(NAME_BYTES)
    major, minor, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    asked = (
        driver.cuDeviceGetName(name, NAME_BYTES, device),
        driver.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device),
        driver.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device),
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device),
    )
    if any(result != CUDA_SUCCESS for result in asked):
        return None
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.value)
