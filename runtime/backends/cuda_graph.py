"""A step that repeats, as one CUDA graph: hundreds of launches become one.

pycuda has no calls for graphs, so the driver's own library is called. Copies and kernels that are enqueued while a
stream is captured are written down instead of done, with their addresses: a graph lives as long as those.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

DRIVER_LIBRARY = "libcuda.so.1"
THREAD_LOCAL = 1
"""Mode of a capture: what other threads do, allocating included, does not end it."""


class CudaGraphError(Exception):
    """The driver refused a call; becomes a `BackendError`, or the step goes on without a graph."""


class CapturedStep:
    """A graph that can be launched.

    Args:
        driver: the driver's library.
        executable: its handle of the graph.
    """

    def __init__(self, driver: Any, executable: ctypes.c_void_p) -> None:
        self._driver = driver
        self._executable = executable

    def launch(self, stream: int) -> None:
        """Enqueue all of it.

        Raises:
            CudaGraphError: the driver refused.
        """
        _check(self._driver, "cuGraphLaunch", self._executable, ctypes.c_void_p(stream))

    def free(self) -> None:
        """Give the graph back; nothing can be done where that fails."""
        self._driver.cuGraphExecDestroy(self._executable)


def load_driver() -> Any:
    """The driver's library.

    Raises:
        OSError: it is not here.
    """
    return ctypes.CDLL(DRIVER_LIBRARY)


def capture(stream: int, enqueue: Callable[[], None]) -> CapturedStep:
    """Write down what `enqueue` puts on the stream.

    Raises:
        CudaGraphError: it holds something that cannot be captured; nothing was done, and the stream is as before.
    """
    try:
        driver = load_driver()
    except OSError as problem:
        raise CudaGraphError(str(problem)) from problem
    handle, graph = ctypes.c_void_p(stream), ctypes.c_void_p()
    _check(driver, "cuStreamBeginCapture_v2", handle, ctypes.c_int(THREAD_LOCAL))
    try:
        enqueue()
    except BaseException as problem:
        driver.cuStreamEndCapture(handle, ctypes.byref(graph))
        if graph.value:
            driver.cuGraphDestroy(graph)
        if isinstance(problem, Exception):
            raise CudaGraphError(str(problem)) from problem
        raise
    _check(driver, "cuStreamEndCapture", handle, ctypes.byref(graph))
    executable = ctypes.c_void_p()
    try:
        _check(driver, "cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    finally:
        driver.cuGraphDestroy(graph)
    return CapturedStep(driver, executable)


def _check(driver: Any, name: str, *arguments: Any) -> None:
    code = getattr(driver, name)(*arguments)
    if code:
        raise CudaGraphError(f"{name} failed with CUDA error {code}")
