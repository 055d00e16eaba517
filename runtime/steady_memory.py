"""Memory of programs that hold conversations for hours: freed, it goes back to the system; kept, it costs no time."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8
OWN_PAGES_BYTES = 256 * 1024
KEPT_BYTES, ASKED_BYTES = 2**31 - 1, 64 * 1024 * 1024


def give_back_freed_memory() -> bool:
    """Let large blocks have pages of their own, and small ones one heap; whether the C library knows how (glibc does).

    Best called before there are threads. glibc raises the size from which blocks have their own pages by itself, up to
    32 MB, when large blocks are freed: those of graphs that take any length then lie among small ones that stay, and
    the holes between them grow for as long as lengths are new. And it gives each thread a heap of its own, so that
    what one has freed is of no use to the others.
    """
    library = _c_library()
    return library is not None and bool(
        library.mallopt(M_MMAP_THRESHOLD, OWN_PAGES_BYTES) and library.mallopt(M_ARENA_MAX, 1)
    )


def keep_freed_memory() -> bool:
    """For a training, which asks for the same large blocks at every step: keep them, and whether that can be had.

    Otherwise glibc gives them back and has new ones cleared by the system: a quarter of a step of the miniature's.
    """
    library = _c_library()
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT_BYTES), (M_TOP_PAD, ASKED_BYTES))
    return library is not None and all(library.mallopt(name, value) for name, value in settings)


def trim_freed_memory() -> bool:
    """Give back the holes between small blocks, too; takes up to a millisecond, so best while nobody waits."""
    library = _c_library()
    return library is not None and bool(library.malloc_trim(0))


def keep_what_is_loaded() -> None:
    """Look at what is there now in no later collection of cycles, in which no thread can do anything.

    Best called when everything is loaded. A whole collection then takes less than a millisecond instead of 12 to 15 (on
    one core of an EPYC), most of what an output buffer lasts.
    """
    gc.collect()
    gc.freeze()


def _c_library() -> Any:
    """The C library, if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
