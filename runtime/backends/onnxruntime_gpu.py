"""ONNX Runtime on a GPU: the same graphs through its CUDA, TensorRT or TensorRT-RTX provider, the cache on the device.

A second way beside engines of our own: nothing has to be built before, and what a provider does not know, the CPU
computes.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.onnxruntime_options import PROVIDER
from sottovoce.runtime.backends.session import Array
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.manifest import GraphSpec, KVCacheSpec


@dataclass(frozen=True)
class Provider:
    """One of ONNX Runtime's ways to a GPU."""

    name: str
    install: str
    """What to do where it is not available."""
    plugin: str | None = None
    """The Python module that brings it, where ONNX Runtime does not."""
    options: tuple[tuple[str, str], ...] = ()
    device: str = "cuda"
    """Where its buffers lie."""


PROVIDERS: Mapping[str, Provider] = {
    "cuda": Provider(
        "CUDAExecutionProvider", "pip install onnxruntime-gpu in place of onnxruntime, with CUDA and cuDNN"
    ),
    "ort-tensorrt": Provider(
        "TensorrtExecutionProvider",
        "pip install onnxruntime-gpu in place of onnxruntime, with CUDA and TensorRT",
        options=(("trt_fp16_enable", "1"),),
    ),
    "nv-tensorrt-rtx": Provider(
        "NvTensorRTRTXExecutionProvider",
        "pip install onnxruntime-ep-nv-tensorrt-rtx (or …-cu12 for CUDA 12) beside onnxruntime",
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
    ),
}


class OnnxRuntimeGpuSession(OnnxRuntimeSession):
    """One graph in ONNX Runtime on a GPU.

    Args:
        stage: its name, for messages.
        spec: its contract.
        path: the `.onnx` file; its weights lie beside it.
        provider: which way to the GPU.
        threads: cores for what the provider leaves to the CPU.

    Raises:
        BackendError: the provider is not available, or ONNX Runtime cannot load the graph.
    """

    def __init__(self, stage: str, spec: GraphSpec, path: Path, provider: Provider, threads: int | None = None) -> None:
        self._provider = provider
        super().__init__(stage, spec, path, threads)

    @property
    def widened(self) -> bool:
        """GPUs multiply float16 as it is."""
        return False

    def create_cache(  # type: ignore[override]  # who has this session has the device's cache, too
        self, capacity: int
    ) -> OnnxRuntimeGpuCache:
        """Buffers of zeros for `capacity` positions, on the GPU.

        Raises:
            BackendError: the stage has no cache, or there is no memory for it.
        """
        if self._spec.cache is None:
            raise BackendError(f"stage {self._stage!r} has no cache", file=self._path)
        with self._failures(f"could not make a cache of {capacity} positions"):
            return OnnxRuntimeGpuCache(self._spec, self._spec.cache, self._session, capacity, self._provider.device)

    def _run_bound(self, binding: Any) -> None:
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    def _kernels(self) -> None:
        """None: they compute on a processor, and would hide the provider's own of the same names."""

    def _open(self, path: Path, options: Any) -> Any:
        provider = self._provider
        if provider.plugin is not None:
            options.add_provider_for_devices(_plugin_devices(provider, self._stage), dict(provider.options))
            session = onnxruntime.InferenceSession(str(path), options)
        else:
            _check_available(provider, self._stage)
            wanted = [(provider.name, dict(provider.options)), *[PROVIDER] * (provider.name != PROVIDER)]
            session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        # Where a provider's own libraries are missing, ONNX Runtime goes on with the next, and says so in its log only.
        if provider.name not in session.get_providers():
            raise _unavailable(provider, self._stage, f"it did not start; {', '.join(session.get_providers())} did")
        return session


class OnnxRuntimeGpuCache:
    """Cache buffers in GPU memory, bound as past and as present.

    Args:
        spec: the graph's contract.
        layout: of its cache.
        session: the ONNX Runtime session that computes on the buffers.
        capacity: positions to make room for.
        device: ONNX Runtime's name of it.
    """

    def __init__(self, spec: GraphSpec, layout: KVCacheSpec, session: Any, capacity: int, device: str) -> None:
        self._spec, self._layout, self._session, self._device = spec, layout, session, device
        self._capacity = capacity
        self.unsized_results = tuple(one.name for one in spec.outputs if not one.role.startswith("present_"))
        """All results: they come to the host."""
        names = [f"{kind}.{layer}" for layer in range(layout.layers) for kind in ("key", "value")]
        self._buffers = {name: self._on_device(np.zeros(self._shape(capacity), layout.dtype)) for name in names}
        self._bind()

    @property
    def capacity(self) -> int:
        """Positions the buffers can hold now."""
        return self._capacity

    def take_results(self) -> dict[str, Array]:
        """Copies of the last run's results, on the host."""
        outputs = self.binding.get_outputs()[: len(self.unsized_results)]
        return {name: np.array(one.numpy()) for name, one in zip(self.unsized_results, outputs, strict=True)}

    def resize(self, capacity: int, keep: int) -> None:
        """Make it room for `capacity` positions, the first `keep` preserved, through the host, one buffer at a time."""
        del self.binding  # it holds the old buffers
        for name in self._buffers:
            other = np.zeros(self._shape(capacity), self._layout.dtype)
            other[:, :, :keep] = self._buffers[name].numpy()[:, :, :keep]
            self._buffers[name] = self._on_device(other)
        self._capacity = capacity
        self._bind()

    def read(self, length: int) -> dict[str, Array]:
        """Copies of the first `length` positions of every buffer."""
        return {name: values.numpy()[:, :, :length].copy() for name, values in self._buffers.items()}

    def write(self, contents: Mapping[str, Array]) -> None:
        """Put back what `read` gave."""
        for name, values in contents.items():
            whole = self._buffers[name].numpy().copy()
            whole[:, :, : values.shape[2]] = values
            self._buffers[name].update_inplace(whole)

    def _bind(self) -> None:
        """Bind the results first, so that they come first among the outputs; then each buffer twice."""
        self.binding: Any = self._session.io_binding()
        for name in self.unsized_results:
            self.binding.bind_output(name, "cpu")
        inputs = {tensor.role: tensor.name for tensor in self._spec.inputs}
        outputs = {tensor.role: tensor.name for tensor in self._spec.outputs}
        for name, value in self._buffers.items():
            self.binding.bind_ortvalue_input(inputs[f"past_{name}"], value)
            self.binding.bind_ortvalue_output(outputs[f"present_{name}"], value)

    def _on_device(self, values: Array) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_numpy(values, self._device, 0)

    def _shape(self, capacity: int) -> tuple[int, int, int, int]:
        return (1, self._layout.kv_heads, capacity, self._layout.head_size)


def _check_available(provider: Provider, stage: str) -> None:
    available = onnxruntime.get_available_providers()
    if provider.name not in available:
        raise _unavailable(provider, stage, f"this ONNX Runtime {onnxruntime.__version__} has {', '.join(available)}")


def _plugin_devices(provider: Provider, stage: str) -> list[Any]:
    """The devices of a provider that comes as a plug-in."""
    try:
        module = importlib.import_module(str(provider.plugin))
    except ImportError as problem:
        raise _unavailable(provider, stage, f"the Python package {provider.plugin} is not installed") from problem
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        raise _unavailable(provider, stage, f"ONNX Runtime {onnxruntime.__version__} takes no plug-ins, 1.24 does")
    name = _registered(module)
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    if not devices:
        raise _unavailable(provider, stage, "it finds no GPU")
    return devices[:1]


@functools.cache
def _registered(module: Any) -> str:
    """The plug-in's name, once ONNX Runtime knows it: a second time would be an error."""
    name = str(module.get_ep_name())
    onnxruntime.register_execution_provider_library(name, module.get_library_path())
    return name


def _unavailable(provider: Provider, stage: str, found: str) -> BackendError:
    message = f"stage {stage!r}: ONNX Runtime's provider {provider.name} is not available: {found}"
    return BackendError(message, fix=f"{provider.install}; or use --backend onnxruntime")
