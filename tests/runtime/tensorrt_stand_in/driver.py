"""`pycuda.driver`, as much of it as the backend calls, with the same arguments."""

from __future__ import annotations

import types

import numpy as np

from tensorrt_stand_in.device import Block, Device, DeviceMemoryError, DriverError, LaunchError, LogicError


def make_driver(device: Device, compute_capability: tuple[int, int] = (8, 9), gpus: int = 1) -> types.ModuleType:
    """The module, for one device."""
    module = types.ModuleType("pycuda.driver")
    module.Error, module.MemoryError = DriverError, DeviceMemoryError
    module.LogicError, module.LaunchError = LogicError, LaunchError

    def init() -> None:
        if not gpus:
            raise LogicError("cuInit failed: no CUDA-capable device is detected")

    class Context:
        def push(self) -> None:
            device.stack.append(self)

        @staticmethod
        def pop() -> None:
            if not device.stack:
                raise LogicError("cannot pop context from empty stack")
            device.stack.pop()

        def __del__(self) -> None:
            device.contexts_retained -= 1

    class GpuDevice:
        def __init__(self, number: int) -> None:
            if number >= gpus:
                raise LogicError("cuDeviceGet failed: invalid device ordinal")

        def name(self) -> str:
            return "stand-in"

        def compute_capability(self) -> tuple[int, int]:
            return compute_capability

        def retain_primary_context(self) -> Context:
            device.contexts_retained += 1
            return Context()

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            self._queue = device.new_queue()

        @property
        def handle(self) -> int:
            return self._queue.handle

        def synchronize(self) -> None:
            device.synchronize(self._queue)

        def __del__(self) -> None:
            # The real one leaks where its context is not current.
            if hasattr(self, "_queue") and device.stack:
                device.queues.pop(self._queue.handle, None)

    class DeviceAllocation:
        def __init__(self, block: Block) -> None:
            self._block = block

        def __int__(self) -> int:
            return self._block.start

        __index__ = __int__

        def free(self) -> None:
            device.free(self._block)

    class PagelockedHostAllocation:
        def __init__(self, start: int) -> None:
            self._start = start

        def free(self) -> None:
            del device.pinned[self._start]
            device.check()

    def pagelocked_empty(size: int, dtype: type) -> np.ndarray:
        device.check()
        device.check_not_capturing("cuMemHostAlloc")
        values = np.full(size * np.dtype(dtype).itemsize, 0xFF, np.uint8).view(dtype)
        device.pinned[values.ctypes.data] = values.nbytes
        return _Based(values, PagelockedHostAllocation(values.ctypes.data))

    module.init, module.Device, module.Stream, module.Context = init, GpuDevice, Stream, Context
    module.mem_alloc = lambda size: DeviceAllocation(device.allocate(size))
    module.mem_get_info = lambda: (device.total_bytes - device.used_bytes, device.total_bytes)
    module.pagelocked_empty = pagelocked_empty
    _add_copies(module, device)
    return module


class _Based:
    """An array and what it is made of: numpy's own `base` cannot be set from here."""

    def __init__(self, values: np.ndarray, base: object) -> None:
        self._values, self.base = values, base
        self.ctypes = values.ctypes

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: slice) -> np.ndarray:
        return self._values[key]


def _add_copies(module: types.ModuleType, device: Device) -> None:
    def memcpy_htod_async(dest: int, src: np.ndarray, stream: object) -> None:
        device.check()
        device.check_pinned(src)
        address = int(dest)

        def copy() -> None:  # what the host's memory holds when the copy is done, not when it was asked for
            device.memory(address, src.nbytes)[:] = src.reshape(-1).view(np.uint8)
            device.counts["htod_bytes"] += src.nbytes

        device.queue(stream.handle).enqueue(copy)

    def memcpy_dtoh_async(dest: np.ndarray, src: int, stream: object) -> None:
        device.check()
        device.check_pinned(dest)
        address = int(src)

        def copy() -> None:
            dest.reshape(-1).view(np.uint8)[:] = device.memory(address, dest.nbytes)
            device.counts["dtoh_bytes"] += dest.nbytes

        device.queue(stream.handle).enqueue(copy)

    def memcpy_dtod_async(dest: int, src: int, size: int, stream: object) -> None:
        device.check()
        to, source = int(dest), int(src)
        device.queue(stream.handle).enqueue(
            lambda: device.memory(to, size).__setitem__(slice(None), device.memory(source, size).copy())
        )

    def memset_d8_async(dest: int, data: int, size: int, stream: object) -> None:
        device.check()
        to = int(dest)
        device.queue(stream.handle).enqueue(lambda: device.memory(to, size).fill(data))

    def memcpy_htod(dest: int, src: np.ndarray) -> None:
        device.check()
        device.memory(int(dest), src.nbytes)[:] = np.ascontiguousarray(src).reshape(-1).view(np.uint8)

    def memcpy_dtoh(dest: np.ndarray, src: int) -> None:
        device.check()
        if not dest.flags.c_contiguous:
            raise LogicError("a copy into an array that is not contiguous")
        dest.reshape(-1).view(np.uint8)[:] = device.memory(int(src), dest.nbytes)
        device.counts["dtoh_bytes"] += dest.nbytes

    for call in (memcpy_htod_async, memcpy_dtoh_async, memcpy_dtod_async, memset_d8_async, memcpy_htod, memcpy_dtoh):
        setattr(module, call.__name__, call)
