"""Memory that goes back to the system when it is freed, for programs that hold conversations for hours."""

from __future__ import annotations

import ctypes
import sys

M_MMAP_THRESHOLD = -3
OWN_PAGES_BYTES = 256 * 1024


def give_back_freed_memory() -> bool:
    """Let every large block have pages of its own; returns whether the C library knows how (glibc does).

    glibc raises that limit by itself, up to 32 MB, when large blocks are freed. Those of graphs that take any length
    then lie among small ones that stay, and the holes between them grow for as long as lengths are new.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, OWN_PAGES_BYTES))
