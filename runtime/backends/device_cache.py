"""A decoder's KV cache in GPU memory: updated in place, copied to the host for snapshots alone."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sottovoce.runtime.backends.cuda_device import CudaDevice
from sottovoce.runtime.backends.engine_profile import HeldTensors
from sottovoce.runtime.backends.session import Array
from sottovoce.runtime.contracts import tensor_by_role
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.manifest import GraphSpec, KVCacheSpec

Buffers = dict[str, Any]
"""`key.N` and `value.N` → pycuda's allocation."""


class CacheMemory:
    """All cache buffers of one decoder: what a conversation that is gone leaves is used by the next.

    A cache may be dropped in any thread, where the GPU's context is not current: its buffers are only put aside then.

    Args:
        stage: the decoder's name, for messages.
        spec: its contract.
        layout: of its cache.
        gpu: where the buffers lie.
    """

    def __init__(self, stage: str, spec: GraphSpec, layout: KVCacheSpec, gpu: CudaDevice) -> None:
        self.stage, self.layout, self.gpu = stage, layout, gpu
        self.names = tuple(f"{kind}.{layer}" for layer in range(layout.layers) for kind in ("key", "value"))
        self.inputs = {name: tensor_by_role(spec.inputs, f"past_{name}").name for name in self.names}
        self.outputs = {name: tensor_by_role(spec.outputs, f"present_{name}").name for name in self.names}
        self._item_bytes = np.dtype(layout.dtype).itemsize
        self._aside: list[tuple[int, Buffers]] = []
        self._in_use: dict[int, Buffers] = {}

    def head_bytes(self, positions: int) -> int:
        """Bytes of so many positions of one head of one buffer."""
        return positions * self.layout.head_size * self._item_bytes

    def take(self, capacity: int) -> Buffers:
        """Zeroed buffers for `capacity` positions; the context must be current."""
        buffers = self._found_aside(capacity) or self._allocated(capacity)
        self._in_use[id(buffers)] = buffers
        try:
            stream = self.gpu.lane(self.stage).stream
            size = self.layout.kv_heads * self.head_bytes(capacity)
            for memory in buffers.values():
                # What lies behind the length has no weight, but nothing times NaN is NaN.
                self.gpu.driver.memset_d8_async(int(memory), 0, size, stream)
            stream.synchronize()
        except BaseException:
            self.put_aside(capacity, buffers)
            raise
        return buffers

    def check(self, buffers: Buffers) -> None:
        """Refuse buffers that were given back.

        Raises:
            BackendError: the decoder was closed.
        """
        if id(buffers) not in self._in_use:
            raise BackendError(f"stage {self.stage!r} is closed", fix="open the assistant again")

    def put_aside(self, capacity: int, buffers: Buffers) -> None:
        """For a cache that comes later; does nothing on the GPU, so any thread may call it."""
        if self._in_use.pop(id(buffers), None) is not None:
            self._aside.append((capacity, buffers))

    def free(self) -> None:
        """Give all of it back, whoever still holds a cache; the context must be current."""
        kept = [buffers for _, buffers in self._aside] + list(self._in_use.values())
        self._aside.clear()
        self._in_use.clear()
        for buffers in kept:
            self._free(buffers)

    def _found_aside(self, capacity: int) -> Buffers | None:
        """Buffers of that size that nobody uses; those of other sizes are freed."""
        found: Buffers | None = None
        others = []
        while self._aside:
            others.append(self._aside.pop())
        for size, buffers in others:
            if size != capacity:
                self._free(buffers)
            elif found is None:
                found = buffers
            else:
                self._aside.append((size, buffers))
        return found

    def _allocated(self, capacity: int) -> Buffers:
        """All of them or none."""
        buffers: Buffers = {}
        try:
            for name in self.names:
                buffers[name] = self.gpu.allocate(self.layout.kv_heads * self.head_bytes(capacity))
        except BaseException:
            self._free(buffers)
            raise
        return buffers

    def _free(self, buffers: Buffers) -> None:
        for memory in buffers.values():
            self.gpu.release(memory)


class DeviceCache:
    """One conversation's cache, as `CacheBuffers` says.

    Args:
        memory: where its buffers come from.
        capacity: positions to make room for.
    """

    def __init__(self, memory: CacheMemory, capacity: int) -> None:
        self._memory = memory
        with memory.gpu.working(memory.stage, f"could not make a cache of {capacity} positions"):
            self._hold(memory.take(capacity), capacity)

    @property
    def capacity(self) -> int:
        """Positions the buffers can hold now."""
        return self._capacity

    def bound(self) -> HeldTensors:
        """The buffers as an engine takes them.

        Raises:
            BackendError: the decoder was closed.
        """
        self._memory.check(self._buffers)
        return self._held

    def resize(self, capacity: int, keep: int) -> None:
        """Make it room for `capacity` positions, the first `keep` preserved; copied on the GPU.

        Raises:
            BackendError: there is no memory for it; the cache is as it was.
        """
        memory, driver = self._memory, self._memory.gpu.driver
        memory.check(self._buffers)
        with memory.gpu.working(memory.stage, f"could not grow its cache to {capacity} positions") as lane:
            other = memory.take(capacity)
            size = memory.head_bytes(min(keep, capacity))
            if size:
                for name, old in self._heads(self._buffers, self._capacity):
                    new = head_address(other, name, capacity, memory)
                    driver.memcpy_dtod_async(new, old, size, lane.stream)
            lane.stream.synchronize()
            self._put_aside()
            self._hold(other, capacity)

    def read(self, length: int) -> dict[str, Array]:
        """Copies of the first `length` positions of every buffer, in host memory."""
        memory = self._memory
        memory.check(self._buffers)
        found = {name: np.zeros(self._shape(length), memory.layout.dtype) for name in memory.names}
        if length:
            with memory.gpu.working(memory.stage, "could not save its cache"):
                for (name, head), address in self._heads(self._buffers, self._capacity):
                    memory.gpu.driver.memcpy_dtoh(found[name][0, head], address)
        return found

    def write(self, contents: Mapping[str, Array]) -> None:
        """Put back what `read` gave."""
        memory = self._memory
        memory.check(self._buffers)
        with memory.gpu.working(memory.stage, "could not take up a saved cache"):
            for (name, head), address in self._heads(self._buffers, self._capacity):
                values = contents.get(name)
                if values is not None and values.size:
                    memory.gpu.driver.memcpy_htod(address, np.ascontiguousarray(values[0, head]))

    def _hold(self, buffers: Buffers, capacity: int) -> None:
        memory = self._memory
        self._buffers, self._capacity = buffers, capacity
        addresses = {memory.inputs[name]: int(buffers[name]) for name in memory.names}
        shapes = dict.fromkeys(addresses, self._shape(capacity))
        # The same address again, under the name of what comes out: the engine writes the new positions in place.
        addresses |= {memory.outputs[name]: int(buffers[name]) for name in memory.names}
        self._held = HeldTensors(addresses, shapes, (capacity, *addresses.values()))
        self._put_aside = weakref.finalize(self, memory.put_aside, capacity, buffers)
        self._put_aside.atexit = False

    def _heads(self, buffers: Buffers, capacity: int) -> Iterator[tuple[tuple[str, int], int]]:
        """Of every head of every buffer: which it is, and where it begins."""
        for name in self._memory.names:
            for head in range(self._memory.layout.kv_heads):
                yield (name, head), head_address(buffers, (name, head), capacity, self._memory)

    def _shape(self, positions: int) -> tuple[int, int, int, int]:
        layout = self._memory.layout
        return (1, layout.kv_heads, positions, layout.head_size)


def head_address(buffers: Buffers, which: tuple[str, int], capacity: int, memory: CacheMemory) -> int:
    """Address of one head's first position."""
    name, head = which
    return int(buffers[name]) + head * memory.head_bytes(capacity)
