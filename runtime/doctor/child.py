"""One question about Python and its libraries, answered with one JSON object: run as a process of its own.

`python -m sottovoce.runtime.doctor.child module tensorrt` → `{"found": true, "version": "10.3.0"}`
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import platform
import sys
from collections.abc import Callable, Mapping
from typing import Any

from sottovoce.runtime.engines.gpu import CUDA_SUCCESS, find_gpu


def module(name: str) -> dict[str, Any]:
    """Whether a module is installed (`found`), can be imported (no `problem`), and its version."""
    try:
        if importlib.util.find_spec(name) is None:
            return {"found": False}
        imported = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        return {"found": missing.name != name.partition(".")[0], "problem": str(missing)}
    except Exception as problem:  # noqa: BLE001  # stub wheels raise what they like while they are imported
        return {"found": True, "problem": f"{type(problem).__name__}: {problem}"}
    version = getattr(imported, "__version__", None) or getattr(imported, "VERSION_TEXT", None)
    return {"found": True, "version": None if version is None else str(version)}


def gpu() -> dict[str, Any]:
    """The first GPU, as the driver describes it, and the newest CUDA that the driver takes."""
    found = find_gpu()
    if found is None:
        return {"found": False}
    return {
        "found": True,
        "name": found.name,
        "compute_capability": found.compute_capability,
        "memory_bytes": found.memory_bytes,
        "cuda": _driver_cuda(),
    }


def onnxruntime() -> dict[str, Any]:
    """ONNX Runtime's version and its providers."""
    answer = module("onnxruntime")
    if "version" not in answer:
        return answer
    imported: Any = importlib.import_module("onnxruntime")
    return {**answer, "providers": list(imported.get_available_providers())}


def kernels() -> dict[str, Any]:
    """Whether our kernels for ONNX Runtime were compiled, and whether this processor runs them."""
    from sottovoce.runtime.kernels.library import compiled_kernels, instructions

    here = (platform.system(), platform.machine())
    return {
        "found": compiled_kernels() is not None,
        "instructions": instructions(),
        "possible": here == ("Linux", "x86_64"),
    }


def audio() -> dict[str, Any]:
    """Microphones and loudspeakers."""
    from sottovoce.runtime.devices.errors import DeviceError
    from sottovoce.runtime.devices.portaudio_library import PORTAUDIO

    try:
        devices = PORTAUDIO.devices(debug=False)
    except DeviceError as problem:
        return {"found": False, "problem": problem.message, "fix": problem.fix}
    except OSError as problem:
        return {"found": True, "problem": str(problem)}
    return {
        "found": True,
        "microphones": _named(devices, "inputs", "is_default_input"),
        "speakers": _named(devices, "outputs", "is_default_output"),
    }


def _named(devices: list[Any], channels: str, default: str) -> list[str]:
    """The devices of one direction, the system's choice first."""
    able = [device for device in devices if getattr(device, channels) > 0]
    return [device.name for device in sorted(able, key=lambda device: not getattr(device, default))]


def _driver_cuda() -> str | None:
    """As "12.6"."""
    version = ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if driver.cuDriverGetVersion(ctypes.byref(version)) != CUDA_SUCCESS:
            return None
    except (OSError, AttributeError):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


QUESTIONS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "module": module,
    "gpu": gpu,
    "onnxruntime": onnxruntime,
    "kernels": kernels,
    "audio": audio,
}

if __name__ == "__main__":
    print(json.dumps(QUESTIONS[sys.argv[1]](*sys.argv[2:])), flush=True)
