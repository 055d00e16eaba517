"""The two libraries that build engines, found and checked: the one place of the product that imports them to build.

NVIDIA's `tensorrt` (10.3 and later, 11) builds for the GPU that is here; `tensorrt_rtx` builds for any GeForce or RTX
GPU, with none here. What they call things is nearly the same, and what differs is a property here.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sottovoce.runtime.engines.gpu import Gpu, find_gpu
from sottovoce.runtime.engines.targets import EngineTarget, Library
from sottovoce.runtime.errors import BackendError

MINIMUM_VERSION: Mapping[Library, tuple[int, int]] = {"tensorrt": (10, 3), "tensorrt_rtx": (1, 7)}
"""The oldest that graphs were spelled for: 10.3 is JetPack 6's; RTX before 1.7 was not tried."""
TITLE: Mapping[Library, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
INSTALL: Mapping[Library, str] = {
    "tensorrt": "on a Jetson, use JetPack's own TensorRT (make the environment with --system-site-packages); "
    "on a desktop: pip install 'sottovoce[gpu]'; or build ahead of time with --target rtx-8.9",
    "tensorrt_rtx": "pip install 'sottovoce[rtx]'",
}


@dataclass(frozen=True)
class EngineLibrary:
    """An imported library.

    Args:
        name: its module's.
        module: the module; it has no types of its own.
        version: as "10.13.3.9".
    """

    name: Library
    module: Any
    version: str

    @property
    def builds_ahead(self) -> bool:
        """Whether a target GPU is named to the builder, which needs none here."""
        return self.name == "tensorrt_rtx"

    @property
    def keeps_timings(self) -> bool:
        """Whether measured kernel times can be kept for the next build (TensorRT-RTX measures nothing)."""
        return not self.builds_ahead

    @property
    def network_flags(self) -> int:
        """Types are those of the graph: always so in TensorRT 11 and RTX, on demand in 10."""
        flag = getattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)


def load_library(name: Library) -> EngineLibrary:
    """Import the library and check its version.

    Raises:
        BackendError: it is not installed, is a stub that cannot be imported, or is too old; the fix says what to do.
    """
    title = TITLE[name]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name == name:
            raise BackendError(f"{title} (Python module {name!r}) is not installed", fix=INSTALL[name]) from missing
        raise _broken(name, missing) from missing
    except Exception as problem:  # stub wheels raise what they like while they are imported
        raise _broken(name, problem) from problem
    version = getattr(module, "__version__", None)
    if not isinstance(version, str) or not hasattr(module, "Builder"):
        message = f"the Python module {name!r} is there, but is not {title}: it has no version or no builder"
        raise BackendError(message, fix=f"remove it, then: {INSTALL[name]}")
    least = MINIMUM_VERSION[name]
    if _numbers(version) < least:
        message = f"{title} {version} is too old: {'.'.join(map(str, least))} or later is needed"
        raise BackendError(message, fix=INSTALL[name])
    return EngineLibrary(name, module, version)


def target_gpu(target: EngineTarget) -> str:
    """The compute capability that a target's engines run on, as "8.9".

    Raises:
        BackendError: the target builds for the GPU which is here, and there is none.
    """
    if target.compute_capability is not None:
        return target.compute_capability
    gpu: Gpu | None = find_gpu()
    if gpu is None:
        raise BackendError(
            f"target {target.name!r} builds for the GPU of this machine, and no NVIDIA GPU with a driver was found",
            fix="build on the device itself, or ahead of time for another one: --target rtx-8.6, rtx-8.9 or rtx-12.0",
        )
    return gpu.compute_capability


def this_platform() -> str:
    """As "linux-x86_64"; engines are not carried from one to another."""
    return f"{platform.system().lower()}-{platform.machine().lower()}"


def _broken(name: Library, problem: BaseException) -> BackendError:
    why = str(problem).strip().splitlines()
    message = f"the Python module {name!r} is installed, but cannot be imported: {type(problem).__name__}"
    return BackendError(
        f"{message}: {why[0]}" if why else message,
        fix=f"it is a stub without its libraries, or does not fit this system. Remove it, then: {INSTALL[name]}",
    )


def _numbers(version: str) -> tuple[int, ...]:
    parts = []
    for part in version.split(".")[:2]:
        digits = "".join(character for character in part if character.isdigit())
        parts.append(int(digits) if digits else 0)
    return tuple(parts)
