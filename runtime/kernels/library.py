"""Where the compiled kernels are, and for which graphs.

They are an option of the installation, not a need: with no C compiler, or on another processor, ONNX Runtime's kernels
of the same names compute the same, slower.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import mmap
from pathlib import Path

from sottovoce.runtime.manifest import GraphSpec

MODULE = "sottovoce.runtime.kernels.compiled.library"
"""Not a module to import, but a library for ONNX Runtime, built and installed as one. It lies in a folder that is no
package, so that nobody who imports all modules there are tries it."""
LEVELS = (None, "AVX2", "AVX-VNNI", "AVX-512")
"""By the library's own numbers."""
DOMAIN = b"com.microsoft"
HEAD_SIZES = range(16, 129, 16)
"""Channels of an attention head that the kernels take."""


def compiled_kernels() -> Path | None:
    """The library, or None where it was not compiled."""
    try:
        found = importlib.util.find_spec(MODULE)
    except ModuleNotFoundError:  # not even the folder
        return None
    return Path(found.origin) if found is not None and found.origin else None


@functools.cache
def instructions() -> str | None:
    """What the kernels compute with on this processor: "AVX-512", "AVX-VNNI", "AVX2", or None if it has none."""
    path = compiled_kernels()
    if path is None:
        return None
    try:
        return LEVELS[ctypes.CDLL(str(path)).sottovoce_kernels_level()]
    except (OSError, AttributeError):  # compiled for another machine, or by another version
        return None


def usable_kernels() -> Path | None:
    """The library, or None where it was not compiled or this processor lacks its instructions."""
    return compiled_kernels() if instructions() else None


def kernels_for(spec: GraphSpec, path: Path) -> Path | None:
    """The library, if it computes all operators of a graph that it has kernels for: those in float32.

    Args:
        spec: the graph's contract.
        path: the graph. One that does not name the operators' domain is left alone: ONNX Runtime fuses operators of its
            own into such a graph, and does not find them beside registered ones, whose version it then asks for.
    """
    cache = spec.cache
    if spec.floats != "fp32" or cache is None or cache.dtype != "float32" or cache.head_size not in HEAD_SIZES:
        return None
    return usable_kernels() if _names_domain(path) else None


def _names_domain(path: Path) -> bool:
    """Whether the domain is among those that a graph imports; its weights lie elsewhere, so it is small."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as graph:
        return graph.find(DOMAIN) >= 0
