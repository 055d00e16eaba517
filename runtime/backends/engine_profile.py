"""One optimization profile of an engine: its execution context, its buffers, and the CUDA graph of what repeats.

Each has buffers of its own, so that the addresses of a one-token step stay what they are while prompts of any length
go through the other profile.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sottovoce.runtime.backends.cuda_device import CudaDevice, DeviceBuffer, Lane, PinnedBuffer
from sottovoce.runtime.backends.cuda_graph import CapturedStep, CudaGraphError, capture
from sottovoce.runtime.backends.session import Array

REPEATS_BEFORE_CAPTURE = 2
"""TensorRT readies itself for new shapes in the first call, and much that is called twice is not called again."""
Shape = tuple[int, ...]
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of an engine, as it says itself."""

    name: str
    dtype: np.dtype[Any]
    is_input: bool
    on_host: bool
    """TensorRT reads it on the host, since shapes depend on its value: no graph can hold that."""


@dataclass(frozen=True)
class HeldTensors:
    """Tensors whose memory is not this profile's own: a cache's buffers, as past and as present."""

    addresses: Mapping[str, int]
    shapes: Mapping[str, Shape]
    """Of the inputs among them."""
    version: tuple[int, ...]
    """Differs when the addresses or shapes do."""


@dataclass(frozen=True)
class LoadedEngine:
    """An engine, the library that it is of, and its inputs and outputs."""

    library: Any
    engine: Any
    tensors: tuple[EngineTensor, ...]
    updated: Mapping[str, str]
    """Output → the input that it is written over: a cache's, also where its buffers are the profile's own."""


NOTHING_HELD = HeldTensors({}, {}, ())


@dataclass(frozen=True)
class OutsideProfile:
    """A dimension that the engine was not built for."""

    name: str
    axis: int
    found: int
    least: int
    most: int


class EngineProfile:
    """What one profile of an engine computes with.

    Args:
        loaded: the engine.
        index: of the profile.
        gpu: where it runs.
        profiler: TensorRT's `IProfiler` that is told of every layer's time; no graphs are used then.
    """

    def __init__(self, loaded: LoadedEngine, index: int, gpu: CudaDevice, profiler: Any = None) -> None:
        self._loaded, self._index, self._gpu, self._profiler = loaded, index, gpu, profiler
        tensors = loaded.tensors
        self._inputs = {tensor.name: tensor for tensor in tensors if tensor.is_input}
        self._outputs = {tensor.name: tensor for tensor in tensors if not tensor.is_input}
        self._ranges = {name: _profile_shapes(loaded.engine, name, index) for name in self._inputs}
        self._context: Any = None
        self._device = {tensor.name: DeviceBuffer(gpu) for tensor in tensors}
        self._pinned = {tensor.name: PinnedBuffer(gpu) for tensor in tensors}
        self._fed: dict[str, Array] = {}
        self._results: dict[str, Array] = {}
        self._addresses: dict[str, int] = {}
        self._prepared: object = None
        self._repeats = 0
        self._graph: CapturedStep | None = None
        self._on_host = tuple(tensor.name for tensor in tensors if tensor.on_host)
        self.graphs = profiler is None and not self._on_host
        """Whether what repeats becomes a CUDA graph; False once that was refused."""

    @property
    def captured(self) -> bool:
        """Whether the next call of the same shapes is one launch of a graph."""
        return self._graph is not None

    def most(self, name: str, axis: int) -> int:
        """The greatest size of a dimension of an input."""
        return self._ranges[name][2][axis]

    def is_best_for(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether the engine was tuned for exactly these shapes of inputs."""
        return all(self._ranges[name][1] == shape for name, shape in shapes.items())

    def outside(self, shapes: Mapping[str, Shape]) -> OutsideProfile | None:
        """The first dimension that this profile does not take; None: it takes them all."""
        for name, shape in shapes.items():
            least, _, most = self._ranges[name]
            if len(shape) != len(most):
                return OutsideProfile(name, -1, len(shape), len(most), len(most))
            for axis, size in enumerate(shape):
                if not least[axis] <= size <= most[axis]:
                    return OutsideProfile(name, axis, size, least[axis], most[axis])
        return None

    def run(self, feeds: Mapping[str, Array], wanted: Sequence[str], held: HeldTensors, lane: Lane) -> dict[str, Array]:
        """Copy the feeds in, compute, copy the wanted outputs out. The GPU's context must be current."""
        asked = (
            tuple((name, values.shape) for name, values in feeds.items()),
            tuple(wanted),
            held.version,
            tuple(feeds[name].tobytes() for name in self._on_host),
        )
        if asked != self._prepared:
            self._prepare(feeds, wanted, held, lane)
            self._prepared, self._repeats = asked, 0
        for name, values in feeds.items():
            self._fed[name][...] = values
        self._repeats += 1
        if self._graph is None and self.graphs and self._repeats > REPEATS_BEFORE_CAPTURE:
            self._capture(lane)
        if self._graph is not None:
            self._graph.launch(lane.handle)
        else:
            self._enqueue(lane)
        lane.stream.synchronize()
        return {name: values.copy() for name, values in self._results.items()}

    def free(self) -> None:
        """Give everything back; the GPU's context must be current."""
        self._forget()
        self._context = None
        for memory in self._device.values():
            memory.free()
        for pinned in self._pinned.values():
            pinned.free()

    def _prepare(self, feeds: Mapping[str, Array], wanted: Sequence[str], held: HeldTensors, lane: Lane) -> None:
        """Tell TensorRT the shapes and addresses of what is to come."""
        self._forget()
        context = self._ready_context(lane)
        addresses = dict(held.addresses)
        for name, values in feeds.items():
            tensor = self._inputs[name]
            self._fed[name] = self._pinned[name].array(values.shape, tensor.dtype)
            if tensor.on_host:
                # Sizes of outputs may depend on its value, so it is there before they are asked for.
                self._fed[name][...] = values
                addresses[name] = self._pinned[name].address
                _accepted(context.set_tensor_address(name, addresses[name]), f"the address of {name!r}")
            else:
                self._device[name].reserve(self._fed[name].nbytes)
                addresses[name] = self._device[name].address
            _accepted(context.set_input_shape(name, tuple(values.shape)), f"the shape {values.shape} of {name!r}")
        for name, shape in held.shapes.items():
            _accepted(context.set_input_shape(name, shape), f"the shape {shape} of {name!r}")
        for name, tensor in self._outputs.items():
            shape = tuple(int(size) for size in context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                raise EngineRefusedError(f"the size of {name!r} is not known before a run: {shape}")
            if name in self._loaded.updated and name not in addresses:
                addresses[name] = addresses[self._loaded.updated[name]]
            elif name not in addresses:
                self._device[name].reserve(int(np.prod(shape)) * tensor.dtype.itemsize)
                addresses[name] = self._device[name].address
            if name in wanted:
                self._results[name] = self._pinned[name].array(shape, tensor.dtype)
        for name, address in addresses.items():
            _accepted(context.set_tensor_address(name, address), f"the address of {name!r}")
        self._addresses = addresses

    def _enqueue(self, lane: Lane) -> None:
        driver = self._gpu.driver
        for name, values in self._fed.items():
            if not self._inputs[name].on_host and values.size:
                driver.memcpy_htod_async(self._addresses[name], values, lane.stream)
        if not self._context.execute_async_v3(lane.handle):
            raise EngineRefusedError("the engine did not start")
        for name, values in self._results.items():
            if values.size:
                driver.memcpy_dtoh_async(values, self._addresses[name], lane.stream)

    def _capture(self, lane: Lane) -> None:
        """Make a graph of the call; TensorRT-RTX says when it still compiles kernels, and is asked again then."""
        may_capture = getattr(self._context, "is_stream_capturable", None)
        if may_capture is not None and not may_capture(lane.handle):
            return
        try:
            self._graph = capture(lane.handle, lambda: self._enqueue(lane))
        except CudaGraphError as refusal:
            self.graphs = False
            LOG.info("the step goes on without a CUDA graph: %s", refusal)

    def _ready_context(self, lane: Lane) -> Any:
        """The execution context, made at the first use; its working memory is the profile's, not the greatest."""
        if self._context is None:
            strategy = self._loaded.library.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
            self._context = self._loaded.engine.create_execution_context(strategy)
            if self._context is None:
                raise EngineRefusedError("no execution context could be made")
            if self._profiler is not None:
                self._context.profiler = self._profiler
            chosen = self._context.set_optimization_profile_async(self._index, lane.handle)
            _accepted(chosen, f"optimization profile {self._index}")
            lane.stream.synchronize()
        return self._context

    def _forget(self) -> None:
        """Nothing is prepared any more, and what was captured is of no use."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.free()
        self._prepared, self._repeats = None, 0
        self._fed, self._results, self._addresses = {}, {}, {}


class EngineRefusedError(Exception):
    """TensorRT said no without an exception; becomes a `BackendError` with what its log says."""


def _profile_shapes(engine: Any, name: str, index: int) -> tuple[Shape, Shape, Shape]:
    """The least, best and greatest shape of an input; one that is fixed has no profile."""
    fixed = tuple(int(size) for size in engine.get_tensor_shape(name))
    if min(fixed, default=0) >= 0:
        return fixed, fixed, fixed
    least, best, most = (tuple(int(size) for size in shape) for shape in engine.get_tensor_profile_shape(name, index))
    return least, best, most


def _accepted(answer: bool, what: str) -> None:
    if not answer:
        raise EngineRefusedError(f"the engine does not take {what}")
