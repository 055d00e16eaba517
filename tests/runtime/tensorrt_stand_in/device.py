"""The GPU: memory that the host cannot read, streams that do nothing until they are waited for, faults on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

FIRST_ADDRESS = 0x7F00_0000_0000
GAP = 1 << 20
"""Between allocations, so that one too many is nobody's."""
NEVER_WRITTEN = 0xFF
"""Bytes of fresh memory: NaN in every float type."""


class DriverError(Exception):
    """`pycuda.driver.Error`."""


class LogicError(DriverError):
    """A wrong call: an address that is nobody's, no current context."""


class LaunchError(DriverError):
    """A kernel failed; after that, nothing works."""


class DeviceMemoryError(DriverError):
    """`pycuda.driver.MemoryError`."""


@dataclass
class Block:
    """One allocation."""

    start: int
    contents: np.ndarray
    freed: bool = False


@dataclass
class Queue:
    """A stream's work that was enqueued and not done."""

    handle: int
    work: list[Callable[[], None]] = field(default_factory=list)
    captured: list[Callable[[], None]] | None = None
    captured_by: int = 0

    def enqueue(self, work: Callable[[], None]) -> None:
        (self.work if self.captured is None else self.captured).append(work)


class Device:
    """All that lives on the GPU."""

    def __init__(self, total_bytes: int = 1 << 30) -> None:
        self.total_bytes = total_bytes
        self.blocks: dict[int, Block] = {}
        self.pinned: dict[int, int] = {}
        self.queues: dict[int, Queue] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.contexts_retained = 0
        self.live: dict[str, int] = {"context": 0, "engine": 0, "runtime": 0}
        self.counts: dict[str, int] = {"htod_bytes": 0, "dtoh_bytes": 0, "executions": 0, "launches": 0, "mallocs": 0}
        self.lost_after: int | None = None
        self.lost = False
        self.refuse_capture = False
        self.capturable = True
        self._current = threading.local()
        self._lock = threading.RLock()  # as a driver's calls, these may come from several threads at once
        self._next = FIRST_ADDRESS
        self._next_handle = 1

    # What was asked of it, and what it says at the end

    @property
    def used_bytes(self) -> int:
        return sum(block.contents.size for block in list(self.blocks.values()))

    def leaks(self) -> list[str]:
        """What is still there; empty when all was given back."""
        found = [f"{block.contents.size} bytes of device memory at {start:#x}" for start, block in self.blocks.items()]
        found += [f"{size} bytes of pinned memory" for size in self.pinned.values()]
        found += [f"{count} {kind}s" for kind, count in self.live.items() if count]
        found += [f"{len(self.queues)} streams"] * bool(self.queues) + [f"{len(self.graphs)} graphs"] * bool(
            self.graphs
        )
        found += ["a context on this thread's stack"] * bool(self.stack) + ["a context"] * bool(self.contexts_retained)
        return found

    # Contexts: one, current in a thread where it was pushed

    @property
    def stack(self) -> list[object]:
        if not hasattr(self._current, "stack"):
            self._current.stack = []
        return self._current.stack

    def check(self) -> None:
        """Every call goes through here."""
        if not self.stack:
            raise LogicError("invalid device context: none is current in this thread")
        if self.lost:
            raise LaunchError("the device was lost")

    def check_not_capturing(self, what: str) -> None:
        here = threading.get_ident()  # captures are of mode "thread local": others may allocate
        if any(queue.captured is not None and queue.captured_by == here for queue in list(self.queues.values())):
            raise LogicError(f"{what} failed: operation not permitted when stream is capturing")

    # Memory

    def allocate(self, size: int) -> Block:
        self.check()
        self.check_not_capturing("cuMemAlloc")
        if size <= 0:
            raise LogicError("cuMemAlloc failed: invalid argument")
        with self._lock:
            if self.used_bytes + size > self.total_bytes:
                raise DeviceMemoryError("cuMemAlloc failed: out of memory")
            block = Block(self._next, np.full(size, NEVER_WRITTEN, np.uint8))
            self._next += -(-size // 256) * 256 + GAP
            self.blocks[block.start] = block
            self.counts["mallocs"] += 1
            return block

    def free(self, block: Block) -> None:
        with self._lock:
            if block.freed:
                raise LogicError("cuMemFree failed: freed twice")
            block.freed = True
            del self.blocks[block.start]
        self.check()  # a lost device gives an error, and its memory is gone all the same

    def memory(self, address: int, size: int) -> np.ndarray:
        """So many bytes at an address, all of one live allocation."""
        with self._lock:
            blocks = list(self.blocks.items())
        for start, block in blocks:
            if start <= address < start + block.contents.size:
                if address + size > start + block.contents.size:
                    raise LaunchError(f"an illegal memory access: {size} bytes at {address:#x} reach too far")
                return block.contents[address - start : address - start + size]
        raise LaunchError(f"an illegal memory access: nothing is allocated at {address:#x}")

    def check_pinned(self, array: np.ndarray) -> None:
        """Copies that go on by themselves need memory that cannot be moved."""
        start = array.ctypes.data
        with self._lock:
            pinned = list(self.pinned.items())
        if not any(low <= start and start + array.nbytes <= low + size for low, size in pinned):
            raise LogicError("an asynchronous copy of memory that is not pinned")
        if not array.flags.c_contiguous:
            raise LogicError("a copy of an array that is not contiguous")

    # Streams

    def new_queue(self) -> Queue:
        self.check()
        queue = Queue(self.new_handle())
        self.queues[queue.handle] = queue
        return queue

    def new_handle(self) -> int:
        with self._lock:
            self._next_handle += 1
            return 0xC0DE_0000 + self._next_handle

    def queue(self, handle: int) -> Queue:
        if handle not in self.queues:
            raise LogicError(f"no stream has the handle {handle:#x}")
        return self.queues[handle]

    def synchronize(self, queue: Queue) -> None:
        """Do what was enqueued."""
        self.check()
        if queue.captured is not None:
            raise LogicError("cuStreamSynchronize failed: operation not permitted when stream is capturing")
        work, queue.work = queue.work, []
        for piece in work:
            try:
                piece()
            except LaunchError:
                self.lost = True
                raise

    def count_execution(self) -> None:
        """Each run of an engine; the device may be lost at one."""
        if self.lost_after is not None and self.counts["executions"] >= self.lost_after:
            raise LaunchError("cuStreamSynchronize failed: unspecified launch failure")
        self.counts["executions"] += 1
