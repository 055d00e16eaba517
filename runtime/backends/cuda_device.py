"""The GPU of this process: its CUDA context, a stream for the language model and one for speech, and its memory.

`pycuda.driver` is handed in by `tensorrt.py`, which alone imports it. The context is made current around each piece
of work, in whichever thread does it, and every error comes out as `BackendError` with the stage's name.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sottovoce.runtime.backends.session import Array
from sottovoce.runtime.errors import BackendError

LEAST_BYTES = 256
"""Also of tensors without elements: TensorRT wants an address for each."""
LANGUAGE, SPEECH = "language", "speech"
SPEECH_STAGES = ("speech_text", "speech_codes", "codec")


@dataclass
class Lane:
    """A stream, and who may use it: what one thread captures must not hold what another enqueues."""

    stream: Any
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def handle(self) -> int:
        """The stream as TensorRT takes it."""
        return int(self.stream.handle)


class CudaDevice:
    """The first GPU, through its primary context, which TensorRT uses, too.

    Args:
        driver: the module `pycuda.driver`.

    Raises:
        BackendError: there is no GPU, or its driver does not answer.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        try:
            driver.init()
            device = driver.Device(0)
            self.name = str(device.name())
            self.compute_capability = ".".join(str(part) for part in device.compute_capability())
            self._context: Any = device.retain_primary_context()
            self._context.push()
            try:
                self._lanes = {name: Lane(driver.Stream()) for name in (LANGUAGE, SPEECH)}
            finally:
                self._context.pop()
        except driver.Error as problem:
            message = f"no GPU can be used through CUDA: {_plain(problem)}"
            raise BackendError(
                message, fix="check the driver with nvidia-smi, or use --backend onnxruntime"
            ) from problem
        self.lost = False

    def lane(self, stage: str) -> Lane:
        """The stream on which a stage computes."""
        return self._lanes[SPEECH if stage in SPEECH_STAGES else LANGUAGE]

    @contextlib.contextmanager
    def working(self, stage: str, what: str = "failed") -> Iterator[Lane]:
        """Make the context current and the stage's stream this thread's own; name the stage in every error.

        Raises:
            BackendError: anything in CUDA or TensorRT failed.
        """
        lane = self.lane(stage)
        with lane.lock:
            try:
                self._context.push()
            except self.driver.Error as problem:
                raise self._error(problem, stage, what) from problem
            try:
                yield lane
            except BackendError:
                self._settle(lane)
                raise
            except Exception as problem:  # TensorRT's, pycuda's and ctypes' have no common base but this
                self._settle(lane)
                # Who keeps the error must not keep what its calls held of the GPU.
                traceback.clear_frames(problem.__traceback__)
                raise self._error(problem, stage, what) from problem
            except BaseException:
                self._settle(lane)
                raise
            finally:
                self._context.pop()

    def allocate(self, size: int) -> Any:
        """Device memory; the context must be current."""
        try:
            return self.driver.mem_alloc(size)
        except self.driver.MemoryError as problem:
            free, total = (amount / 1e6 for amount in self.driver.mem_get_info())
            message = f"out of GPU memory: {size / 1e6:.1f} MB wanted, {free:.0f} MB free of {total:.0f} MB"
            raise OutOfDeviceMemoryError(message) from problem

    def release(self, memory: Any) -> None:
        """Give memory back; where the GPU is lost, it has nothing of ours any more."""
        with contextlib.suppress(self.driver.Error):
            memory.free()

    def close(self) -> None:
        """Give the streams and the context back."""
        with contextlib.suppress(self.driver.Error):
            self._context.push()
            try:
                for lane in self._lanes.values():
                    lane.stream = None
            finally:
                self._context.pop()
        self._context = None

    def _settle(self, lane: Lane) -> None:
        """What was enqueued before a failure is over before any of its memory is used again."""
        try:
            lane.stream.synchronize()
        except self.driver.Error:
            # An error that stays is the device's, not the call's: nothing works any more in this process.
            self.lost = self._still_failing(lane)

    def _still_failing(self, lane: Lane) -> bool:
        try:
            lane.stream.synchronize()
        except self.driver.Error:
            return True
        return False

    def _error(self, problem: Exception, stage: str, what: str) -> BackendError:
        reason = _plain(problem)
        if self.lost:
            return BackendError(
                f"stage {stage!r} {what}: the GPU was lost ({reason}); the conversation's history is kept",
                fix="start sottovoce again; if it happens often, look at the kernel's log (dmesg), power and heat",
            )
        if isinstance(problem, (OutOfDeviceMemoryError, self.driver.MemoryError)):
            return BackendError(
                f"stage {stage!r} {what}: {reason}",
                fix="close other programs on the GPU, build with a smaller --max-prompt, or quantize the bundle",
            )
        return BackendError(
            f"stage {stage!r} {what} on the GPU {self.name}: {reason}",
            fix="if it happens again, build the engines again; then report it",
        )


class OutOfDeviceMemoryError(Exception):
    """There is no room on the GPU; becomes a `BackendError` with the stage's name."""


class DeviceBuffer:
    """Device memory that is kept from call to call and grows when more is needed."""

    def __init__(self, gpu: CudaDevice) -> None:
        self._gpu = gpu
        self._memory: Any = None
        self._bytes = 0

    @property
    def address(self) -> int:
        """As TensorRT takes it."""
        return int(self._memory)

    def reserve(self, size: int) -> None:
        """Hold `size` bytes; what is in them is lost if they are more than before. The stream must be at rest."""
        if self._memory is not None and size <= self._bytes:
            return
        self.free()
        grown = _grown(size)
        self._memory = self._gpu.allocate(grown)
        self._bytes = grown

    def free(self) -> None:
        """Give the memory back."""
        memory, self._memory, self._bytes = self._memory, None, 0
        if memory is not None:
            self._gpu.release(memory)


class PinnedBuffer:
    """Host memory that the GPU copies from and to by itself, kept and grown in the same way."""

    def __init__(self, gpu: CudaDevice) -> None:
        self._gpu = gpu
        self._bytes: Any = None

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The memory as an array; its contents are anything. The stream must be at rest."""
        size = int(np.prod(shape)) * dtype.itemsize
        if self._bytes is None or size > len(self._bytes):
            self.free()
            self._bytes = self._gpu.driver.pagelocked_empty(_grown(size), np.uint8)
        whole: Array = self._bytes[:size].view(dtype).reshape(shape)
        return whole

    @property
    def address(self) -> int:
        """In host memory."""
        return int(self._bytes.ctypes.data)

    def free(self) -> None:
        """Give the memory back; arrays made of it must not be used any more."""
        memory, self._bytes = self._bytes, None
        if memory is not None:
            self._gpu.release(memory.base)


def _grown(size: int) -> int:
    """The next power of two: slowly growing sizes do not allocate every time."""
    return max(LEAST_BYTES, 1 << (size - 1).bit_length()) if size else LEAST_BYTES


def _plain(problem: Exception) -> str:
    return " ".join(str(problem).split()) or type(problem).__name__
