"""The calls of `libcuda.so.1` for graphs, with ctypes' arguments and CUDA's error numbers."""

from __future__ import annotations

import threading
from typing import Any

from tensorrt_stand_in.device import Device

THREAD_LOCAL = 1
SUCCESS, INVALID_VALUE, CAPTURE_UNSUPPORTED = 0, 1, 900


class DriverLibrary:
    """What `ctypes.CDLL` would give."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._captured: dict[int, list[Any]] = {}

    def cuStreamBeginCapture_v2(self, stream: Any, mode: Any) -> int:  # the driver's names
        if mode.value != THREAD_LOCAL:
            return CAPTURE_UNSUPPORTED
        queue = self._device.queue(stream.value)
        if queue.captured is not None or queue.work:
            return INVALID_VALUE
        queue.captured, queue.captured_by = [], threading.get_ident()
        return SUCCESS

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        queue = self._device.queue(stream.value)
        work, queue.captured = queue.captured, None
        if work is None:
            return INVALID_VALUE
        if self._device.refuse_capture:
            return CAPTURE_UNSUPPORTED
        graph._obj.value = self._device.new_handle()
        self._captured[graph._obj.value] = work
        return SUCCESS

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> int:
        del flags
        executable._obj.value = self._device.new_handle()
        self._device.graphs[executable._obj.value] = self._captured[graph.value]
        return SUCCESS

    def cuGraphDestroy(self, graph: Any) -> int:
        del self._captured[graph.value]
        return SUCCESS

    def cuGraphExecDestroy(self, executable: Any) -> int:
        del self._device.graphs[executable.value]
        return SUCCESS

    def cuGraphLaunch(self, executable: Any, stream: Any) -> int:
        work = self._device.graphs.get(executable.value)
        if work is None:
            return INVALID_VALUE
        self._device.counts["launches"] += 1
        for piece in work:
            self._device.queue(stream.value).enqueue(piece)
        return SUCCESS
