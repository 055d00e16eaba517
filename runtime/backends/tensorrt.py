"""TensorRT and TensorRT for RTX, on a GPU: one graph's engine, run through pycuda, which nothing else imports.

Both libraries have the same calls. An engine's hash was compared before it comes here (`engines/matching.py`).
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from sottovoce.runtime.backends.cuda_device import CudaDevice
from sottovoce.runtime.backends.device_cache import CacheMemory, DeviceCache
from sottovoce.runtime.backends.engine_profile import (
    NOTHING_HELD,
    EngineProfile,
    EngineRefusedError,
    HeldTensors,
    LoadedEngine,
    OutsideProfile,
)
from sottovoce.runtime.backends.session import Array, CacheBuffers
from sottovoce.runtime.backends.tensorrt_library import engine_tensors, logger_of
from sottovoce.runtime.engines.library import load_library, this_platform
from sottovoce.runtime.engines.machine import GPU_LIBRARIES, Machine, installed_libraries
from sottovoce.runtime.engines.matching import MatchedEngine, checked_bytes
from sottovoce.runtime.engines.targets import Library
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.manifest import GraphSpec

_sharing = threading.Lock()
_shared: list[CudaDevice] = []
_users = 0


class TensorRtSession:
    """One graph's engine on the GPU.

    Args:
        stage: its name, for messages.
        spec: its contract.
        matched: the engine that fits this machine.
        profiler: TensorRT's `IProfiler`, told of every layer's time; no CUDA graph is used then.

    Raises:
        BackendError: the engine cannot be loaded.
    """

    widened = False

    def __init__(self, stage: str, spec: GraphSpec, matched: MatchedEngine, profiler: Any = None) -> None:
        self._stage, self._spec, self._matched = stage, spec, matched
        self._profiles: list[EngineProfile] = []
        self._memory: CacheMemory | None = None
        self._engine: Any = None
        self._runtime: Any = None
        data = checked_bytes(matched)
        self._gpu: CudaDevice | None = borrow_gpu()
        try:
            with self._working("could not load its engine"):
                self._load(data, profiler)
        except BaseException:
            self.close()
            raise

    @property
    def spec(self) -> GraphSpec:
        """The graph's contract."""
        return self._spec

    @property
    def stage(self) -> str:
        """The name of the stage, for messages."""
        return self._stage

    @property
    def max_positions(self) -> int | None:
        """The most positions that a decoder takes in one call."""
        if self._spec.cache is None or not self._profiles:
            return None
        [embeddings] = [tensor.name for tensor in self._spec.inputs if tensor.role == "embeddings"]
        return max(profile.most(embeddings, 1) for profile in self._profiles)

    @property
    def captured(self) -> bool:
        """Whether a step that repeats is now one launch of a CUDA graph."""
        return any(profile.captured for profile in self._profiles)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once; keys are tensor names.

        Raises:
            BackendError: TensorRT or CUDA failed, or a shape is outside the engine's profiles.
        """
        wanted = list(outputs) if outputs is not None else [output.name for output in self._spec.outputs]
        return self._call(feeds, wanted, NOTHING_HELD)

    def create_cache(self, capacity: int) -> DeviceCache:
        """Buffers of zeros for `capacity` positions, on the GPU.

        Raises:
            BackendError: the stage has no cache, or there is no memory for it.
        """
        if self._spec.cache is None:
            raise BackendError(f"stage {self._stage!r} has no cache", file=self._matched.path)
        if self._memory is None:
            raise self._closed()
        return DeviceCache(self._memory, capacity)

    def run_with_cache(self, feeds: Mapping[str, Array], cache: CacheBuffers) -> dict[str, Array]:
        """Run once; past and present are one buffer on the GPU, so only the new positions are written.

        Raises:
            BackendError: as for `run`; what the cache holds behind its length is then undefined.
        """
        wanted = [output.name for output in self._spec.outputs if not output.role.startswith("present_")]
        return self._call(feeds, wanted, cast("DeviceCache", cache).bound())

    def close(self) -> None:
        """Free contexts, engine and memory, also after an error; the session is unusable afterwards."""
        gpu, self._gpu = self._gpu, None
        if gpu is None:
            return
        # Where the GPU is lost, nothing can be given back, and it has nothing of ours any more.
        with contextlib.suppress(BackendError), gpu.working(self._stage, "could not give its memory back"):
            for profile in self._profiles:
                profile.free()
            if self._memory is not None:
                self._memory.free()
        self._profiles, self._memory = [], None
        with contextlib.suppress(BackendError), gpu.working(self._stage, "could not give its engine back"):
            self._engine = self._runtime = None
        give_gpu_back()

    def _call(self, feeds: Mapping[str, Array], wanted: Sequence[str], held: HeldTensors) -> dict[str, Array]:
        with self._working("failed") as lane:
            profile = self._profile_for({name: values.shape for name, values in feeds.items()}, held)
            return profile.run(feeds, wanted, held, lane)

    def _profile_for(self, fed: Mapping[str, tuple[int, ...]], held: HeldTensors) -> EngineProfile:
        """The profile that was tuned for just these shapes (one token), else the first that takes them (prompts)."""
        expected = {tensor.name for tensor in self._engine_tensors if tensor.is_input}
        if expected != {*fed, *held.shapes}:
            differing = sorted(expected ^ {*fed, *held.shapes})
            raise BackendError(
                f"stage {self._stage!r} failed: its inputs and those that it was given differ in {differing}"
            )
        refusals = {profile: profile.outside(fed) or profile.outside(held.shapes) for profile in self._profiles}
        taking = [profile for profile, refusal in refusals.items() if refusal is None]
        if not taking:
            raise self._outside(cast("OutsideProfile", next(iter(refusals.values()))))
        return next((profile for profile in taking if profile.is_best_for(fed)), taking[0])

    def _outside(self, what: OutsideProfile) -> BackendError:
        place = f"dimension {what.axis}" if what.axis >= 0 else "its number of dimensions"
        build = f"sottovoce build BUNDLE --target {self._matched.target}"
        return BackendError(
            f"stage {self._stage!r}: {what.name!r} has {what.found} in {place}; its engine was built for {what.least} "
            f"to {what.most}",
            file=self._matched.path,
            fix=f"build it for more: {build} --max-prompt {what.found}; or ask for less at once"
            if self._stage == "language_model"
            else f"ask for less at once; what this engine takes follows from the bundle's settings ({build})",
        )

    @contextlib.contextmanager
    def _working(self, what: str) -> Iterator[Any]:
        """The GPU is this thread's; what TensorRT's log says is added to its refusals."""
        if self._gpu is None:
            raise self._closed()
        messages = logger_of(self._matched.record.fingerprint.library).messages
        messages.clear()
        with self._gpu.working(self._stage, what) as lane:
            try:
                yield lane
            except EngineRefusedError as refusal:
                raise EngineRefusedError("; ".join([str(refusal), *messages])) from refusal

    def _closed(self) -> BackendError:
        return BackendError(f"stage {self._stage!r} failed: it is closed", fix="open the assistant again")

    def _load(self, data: bytes, profiler: Any) -> None:
        gpu = cast("CudaDevice", self._gpu)
        library = importlib.import_module(self._matched.record.fingerprint.library)
        self._runtime = library.Runtime(logger_of(library.__name__).logger)
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineRefusedError("the library cannot read the engine")
        self._engine_tensors = engine_tensors(library, self._engine)
        self._check_contract()
        updated: dict[str, str] = {}
        if self._spec.cache is not None:
            memory = self._memory = CacheMemory(self._stage, self._spec, self._spec.cache, gpu)
            updated = {memory.outputs[name]: memory.inputs[name] for name in memory.names}
            self._check_updates(updated)
        loaded = LoadedEngine(library, self._engine, self._engine_tensors, updated)
        for index in range(self._engine.num_optimization_profiles):
            self._profiles.append(EngineProfile(loaded, index, gpu, profiler))

    def _check_contract(self) -> None:
        """The engine's tensors are the contract's, by name and type."""
        for is_input, ours in ((True, self._spec.inputs), (False, self._spec.outputs)):
            expected = {(tensor.name, tensor.dtype) for tensor in ours}
            found = {(one.name, one.dtype.name) for one in self._engine_tensors if one.is_input == is_input}
            if expected != found:
                raise BackendError(
                    f"stage {self._stage!r}: the engine's {'inputs' if is_input else 'outputs'} and the manifest's "
                    f"differ in {sorted(expected ^ found)}",
                    file=self._matched.path,
                    fix=f"build the engines again: sottovoce build BUNDLE --target {self._matched.target}",
                )

    def _check_updates(self, updated: Mapping[str, str]) -> None:
        """Where the engine says what is written over which input (TensorRT 10.3 does not), it is the cache's past."""
        tell = getattr(self._engine, "get_aliased_input_tensor", None)
        if tell is None:
            return
        for present, past in updated.items():
            if tell(present) not in (None, past):
                raise EngineRefusedError(f"{present!r} is written over {tell(present)!r}, not over {past!r}")


def borrow_gpu() -> CudaDevice:
    """The GPU that all sessions share; each gives it back once.

    Raises:
        BackendError: pycuda is not installed, or there is no GPU.
    """
    global _users  # noqa: PLW0603  # a process has one GPU context, which all its sessions share
    with _sharing:
        if not _shared:
            try:
                driver = importlib.import_module("pycuda.driver")
            except ImportError as problem:
                message = f"the Python package pycuda cannot be imported: {problem}"
                raise BackendError(message, fix="pip install pycuda, on a machine with the CUDA toolkit") from problem
            _shared.append(CudaDevice(driver))
        _users += 1
        return _shared[0]


def give_gpu_back() -> None:
    """The last one to do so closes it."""
    global _users  # noqa: PLW0603  # as above
    with _sharing:
        _users -= 1
        if _users == 0:
            _shared.pop().close()


def this_machine() -> Machine:
    """What engines must fit here.

    Raises:
        BackendError: no library, no pycuda or no GPU; what to install is said.
    """
    libraries = installed_libraries()
    if not libraries:
        raise BackendError(
            f"no library that runs engines is installed: {' or '.join(GPU_LIBRARIES)}",
            fix="pip install 'sottovoce[gpu]', or 'sottovoce[rtx]' for a GeForce RTX; JetPack brings it to a Jetson",
        )
    gpu = borrow_gpu()
    try:
        return Machine(_versions(libraries), gpu.compute_capability, this_platform())
    finally:
        give_gpu_back()


def _versions(libraries: Sequence[Library]) -> dict[Library, str]:
    """Of those that can be imported."""
    found: dict[Library, str] = {}
    problem: BackendError | None = None
    for name in libraries:
        try:
            found[name] = load_library(name).version
        except BackendError as refusal:
            problem = refusal
    if problem is not None and not found:
        raise problem
    return found
