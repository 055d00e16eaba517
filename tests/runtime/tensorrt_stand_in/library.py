"""`tensorrt`, as much of it as the backend calls. Engines are small files that name a graph; ONNX Runtime runs it."""

from __future__ import annotations

import ctypes
import enum
import functools
import json
import types
from typing import Any

import numpy as np
import onnxruntime

from tensorrt_stand_in.device import Device, LaunchError

TYPES = {
    "tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int64)": "INT64",
    "tensor(int32)": "INT32", "tensor(int8)": "INT8", "tensor(bool)": "BOOL",
}  # fmt: skip
NUMPY = {"FLOAT": "f4", "HALF": "f2", "INT64": "i8", "INT32": "i4", "INT8": "i1", "BOOL": "?"}
Shape = tuple[int, ...]

DataType = enum.Enum("DataType", list(NUMPY))
TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
TensorLocation = enum.Enum("TensorLocation", ["DEVICE", "HOST"])
ExecutionContextAllocationStrategy = enum.Enum(
    "ExecutionContextAllocationStrategy", ["STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"]
)


class ILogger:
    """The base of loggers."""

    Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


@functools.cache
def graph_session(path: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.add_session_config_entry("session.disable_prepacking", "1")  # as the CPU backend, so that bits are equal
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Engine:
    """`ICudaEngine`."""

    def __init__(self, device: Device, logger: Any, description: dict[str, Any]) -> None:
        self.device, self.logger = device, logger
        self.session = graph_session(description["graph"])
        self.profiles: list[dict[str, list[list[int]]]] = description["profiles"]
        self.aliased: dict[str, str] = description["aliased"]
        self.host_inputs: list[str] = description.get("host_inputs", [])
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self.contexts_by_profile: dict[int, int] = {}
        device.live["engine"] += 1

    def __del__(self) -> None:
        self.device.live["engine"] -= 1

    @property
    def num_io_tensors(self) -> int:
        return len(self.inputs) + len(self.outputs)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType[TYPES[{**self.inputs, **self.outputs}[name].type]]

    def get_tensor_location(self, name: str) -> Any:
        return TensorLocation.HOST if name in self.host_inputs else TensorLocation.DEVICE

    def get_tensor_shape(self, name: str) -> Shape:
        sizes = {**self.inputs, **self.outputs}[name].shape
        return tuple(size if isinstance(size, int) else -1 for size in sizes)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Shape]:
        return [tuple(shape) for shape in self.profiles[profile_index][name]]

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.aliased.get(name)

    def create_execution_context(self, strategy: Any = ExecutionContextAllocationStrategy.STATIC) -> Context | None:
        self.device.check()
        return Context(self, strategy)

    def itemsize(self, name: str) -> int:
        return np.dtype(NUMPY[self.get_tensor_dtype(name).name]).itemsize


class Context:
    """`IExecutionContext`."""

    def __init__(self, engine: Engine, strategy: Any) -> None:
        self._engine, self._device, self._strategy = engine, engine.device, strategy
        self._profile: int | None = None
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._known: dict[tuple[Any, ...], dict[str, Shape]] = {}
        self.profiler: Any = None
        self._device.live["context"] += 1

    def __del__(self) -> None:
        self._device.live["context"] -= 1
        if self._profile is not None:
            self._engine.contexts_by_profile[self._profile] -= 1

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._device.check()
        self._device.queue(stream_handle)
        used = self._engine.contexts_by_profile
        if not 0 <= profile_index < len(self._engine.profiles) or used.get(profile_index):
            return self._refuse(f"profile {profile_index} is used by another context, or is none")
        used[profile_index] = used.get(profile_index, 0) + 1
        self._profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        if self._profile is None or name not in self._engine.inputs:
            return self._refuse(f"no profile was chosen, or {name} is no input")
        fixed = self._engine.get_tensor_shape(name)
        if -1 in fixed:
            least, _, most = self._engine.get_tensor_profile_shape(name, self._profile)
        else:
            least = most = fixed
        fits = len(shape) == len(least) and all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))
        if not fits:
            return self._refuse(f"{name}: {shape} is not between {least} and {most}")
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if memory == 0 or name not in {**self._engine.inputs, **self._engine.outputs}:
            return self._refuse(f"{name} has no address")
        self._addresses[name] = int(memory)
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        if name in self._engine.inputs:
            return self._shapes.get(name, self._engine.get_tensor_shape(name))
        fixed = self._engine.get_tensor_shape(name)
        if -1 not in fixed:
            return fixed
        if set(self._shapes) != set(self._engine.inputs) or not {*self._engine.host_inputs} <= set(self._addresses):
            return fixed
        return self._inferred()[name]

    def is_stream_capturable(self, stream: int) -> bool:
        self._device.queue(stream)
        return self._device.capturable

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._device.check()
        names = {*self._engine.inputs, *self._engine.outputs}
        if set(self._shapes) != set(self._engine.inputs) or set(self._addresses) != names:
            missing = sorted((set(self._engine.inputs) - set(self._shapes)) | (names - set(self._addresses)))
            return self._refuse(f"shapes or addresses are missing: {missing}")
        for output, source in self._engine.aliased.items():
            if self._addresses[output] != self._addresses[source]:
                return self._refuse(f"{output} is written over {source}, and they have different addresses")
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        self._device.queue(stream_handle).enqueue(lambda: self._execute(shapes, addresses))
        return True

    def _execute(self, shapes: dict[str, Shape], addresses: dict[str, int]) -> None:
        self._device.count_execution()
        feeds = {name: self._read(name, shape, addresses[name]) for name, shape in shapes.items()}
        results = self._engine.session.run(list(self._engine.outputs), feeds)
        for name, values in zip(self._engine.outputs, results, strict=True):
            whole = np.ascontiguousarray(values)
            if whole.size:
                self._device.memory(addresses[name], whole.nbytes)[:] = whole.reshape(-1).view(np.uint8)
        if self.profiler is not None:
            self.profiler.report_layer_time("the whole graph", 1.0)

    def _read(self, name: str, shape: Shape, address: int) -> np.ndarray:
        dtype = np.dtype(NUMPY[self._engine.get_tensor_dtype(name).name])
        size = int(np.prod(shape)) * dtype.itemsize
        if name in self._engine.host_inputs:
            if address not in self._device.pinned:
                raise LaunchError(f"{name} is read on the host, and nothing is at {address:#x}")

            return np.frombuffer(ctypes.string_at(address, size), dtype).reshape(shape)
        if not size:
            self._device.memory(address, 1)
            return np.zeros(shape, dtype)
        return self._device.memory(address, size).copy().view(dtype).reshape(shape)

    def _inferred(self) -> dict[str, Shape]:
        """Sizes of the outputs: those of a run on zeros, and on what is read on the host."""
        values = {
            name: self._read(name, self._shapes[name], self._addresses[name]) for name in self._engine.host_inputs
        }
        key = (*sorted(self._shapes.items()), *(value.tobytes() for value in values.values()))
        if key not in self._known:
            feeds = {
                name: np.zeros(shape, NUMPY[self._engine.get_tensor_dtype(name).name])
                for name, shape in self._shapes.items()
            }
            feeds |= values
            results = self._engine.session.run(list(self._engine.outputs), feeds)
            self._known[key] = {
                name: tuple(values.shape) for name, values in zip(self._engine.outputs, results, strict=True)
            }
        return self._known[key]

    def _refuse(self, why: str) -> bool:
        self._engine.logger.log(ILogger.Severity.ERROR, f"IExecutionContext: {why}")
        return False


def make_library(device: Device, name: str, version: str) -> types.ModuleType:
    """The module, for one device."""
    module = types.ModuleType(name)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger
            device.live["runtime"] += 1

        def __del__(self) -> None:
            device.live["runtime"] -= 1

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
            device.check()
            try:
                description = json.loads(serialized_engine)
            except ValueError:
                self._logger.log(ILogger.Severity.ERROR, "magic tag does not match")
                return None
            return Engine(device, self._logger, description)

    module.__version__, module.Builder = version, object
    module.Runtime, module.ILogger, module.DataType = Runtime, ILogger, DataType
    module.TensorIOMode, module.TensorLocation = TensorIOMode, TensorLocation
    module.ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    return module
