"""Cache buffers in host memory that ONNX Runtime updates in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import onnxruntime

from sottovoce.runtime.backends.session import Array, CacheBuffers
from sottovoce.runtime.manifest import GraphSpec, KVCacheSpec


class BoundBuffers(CacheBuffers, Protocol):
    """Cache buffers that ONNX Runtime has been told of."""

    binding: Any
    """Which values are a run's inputs and outputs: these buffers are bound, twice each."""
    unsized_results: tuple[str, ...]
    """The results that the engine allocates in every run: they are bound anew before each."""

    def take_results(self) -> dict[str, Array]:
        """Copies of the last run's results: the next run writes over them."""
        ...


class OnnxRuntimeCache:
    """Cache buffers in host memory, bound as past and as present.

    Args:
        spec: the graph's contract.
        layout: of its cache.
        session: the ONNX Runtime session that computes on the buffers.
        capacity: positions to make room for.
    """

    def __init__(self, spec: GraphSpec, layout: KVCacheSpec, session: Any, capacity: int) -> None:
        self._spec = spec
        self._layout = layout
        self._session = session
        self._capacity = capacity
        self.results = tuple(output.name for output in spec.outputs if not output.role.startswith("present_"))
        self._sized_results = {
            output.name: np.zeros([int(size) for size in output.shape], output.dtype)
            for output in spec.outputs
            if output.name in self.results and output.shape and all(isinstance(size, int) for size in output.shape)
        }
        self.unsized_results = tuple(name for name in self.results if name not in self._sized_results)
        """Those whose size is not known before a run, in the order in which they are bound; the engine allocates."""
        self._buffers = {name: np.zeros(self._shape(capacity), layout.dtype) for name in self._names()}
        self._bind()

    @property
    def capacity(self) -> int:
        """Positions the buffers can hold now."""
        return self._capacity

    def take_results(self) -> dict[str, Array]:
        """Copies of the last run's results: the next run writes over them.

        Asking the binding for its outputs would make an object of each buffer, too, so that is left where it can be.
        """
        found = {name: values.copy() for name, values in self._sized_results.items()}
        if self.unsized_results:
            outputs = self.binding.get_outputs()[: len(self.unsized_results)]
            found.update((name, np.array(one.numpy())) for name, one in zip(self.unsized_results, outputs, strict=True))
        return found

    def resize(self, capacity: int, keep: int) -> None:
        """Make it room for `capacity` positions, the first `keep` preserved, one buffer at a time."""
        del self.binding  # it holds the old buffers
        for name in self._buffers:
            other = np.zeros(self._shape(capacity), self._layout.dtype)
            other[:, :, :keep] = self._buffers[name][:, :, :keep]
            self._buffers[name] = other
        self._capacity = capacity
        self._bind()

    def read(self, length: int) -> dict[str, Array]:
        """Copies of the first `length` positions of every buffer."""
        return {name: values[:, :, :length].copy() for name, values in self._buffers.items()}

    def write(self, contents: Mapping[str, Array]) -> None:
        """Put back what `read` gave."""
        for name, values in contents.items():
            self._buffers[name][:, :, : values.shape[2]] = values

    def _bind(self) -> None:
        """Bind results of unknown size first, so that they come first among the outputs; then each buffer twice."""
        self.binding: Any = self._session.io_binding()
        for name in self.unsized_results:
            self.binding.bind_output(name, "cpu")
        for name, values in self._sized_results.items():
            self.binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(values))
        inputs = {tensor.role: tensor.name for tensor in self._spec.inputs}
        outputs = {tensor.role: tensor.name for tensor in self._spec.outputs}
        for name, values in self._buffers.items():
            # On a CPU the OrtValue shares the array's memory.
            value = onnxruntime.OrtValue.ortvalue_from_numpy(values)
            self.binding.bind_ortvalue_input(inputs[f"past_{name}"], value)
            self.binding.bind_ortvalue_output(outputs[f"present_{name}"], value)

    def _names(self) -> list[str]:
        return [f"{kind}.{layer}" for layer in range(self._layout.layers) for kind in ("key", "value")]

    def _shape(self, capacity: int) -> tuple[int, int, int, int]:
        return (1, self._layout.kv_heads, capacity, self._layout.head_size)
