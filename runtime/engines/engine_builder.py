"""One stage's engine: its network, the builder's configuration, and what the builder says of the result."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines.build_log import interruptible, progress_monitor
from sottovoce.runtime.engines.layer_report import engine_layers, layer_report
from sottovoce.runtime.engines.library import TITLE, EngineLibrary
from sottovoce.runtime.engines.multiply_adds import count_multiply_adds
from sottovoce.runtime.engines.network import Network, parse_graph
from sottovoce.runtime.engines.record import EngineSettings, LayerReport, ShapeRange
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.manifest import StageName
from sottovoce.runtime.progress import Progress

OUT_OF_MEMORY = (
    "out of memory",
    "outofmemory",
    "bad_alloc",
    "insufficient memory",
    "memory allocation",
    "error code 2",
)
MAX_TIMINGS_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class EngineRequest:
    """What to build.

    Args:
        bundle: whose graph.
        stage: which graph.
        label: what progress calls it.
        library: that builds.
        compute_capability: of the GPU that the engine is for, as "8.9".
        settings: profiles and limits.
        timings: the file of measured kernel times, read and written where the library keeps them.
    """

    bundle: Bundle
    stage: StageName
    label: str
    library: EngineLibrary
    compute_capability: str
    settings: EngineSettings
    timings: Path


@dataclass(frozen=True)
class BuiltPlan:
    """A serialized engine (a buffer of bytes), and what is known of it."""

    plan: memoryview
    report: LayerReport


def build_engine(request: EngineRequest, progress: Progress) -> BuiltPlan:
    """Build one engine; this takes seconds to many minutes.

    Raises:
        BackendError: the library cannot parse or build the graph, or is out of memory; stage and reason are named.
        KeyboardInterrupt: Ctrl-C; nothing was written.
    """
    try:
        with interruptible() as stop:
            parsed = parse_graph(request.library, request.bundle, request.stage)
            shapes = {name: shape.optimum for name, shape in request.settings.profiles[-1].items()}
            counted = count_multiply_adds(parsed, shapes)
            config = _configure(parsed, request, progress, stop)
            plan = parsed.builder.build_serialized_network(parsed.network, config)
    except MemoryError as problem:
        raise _out_of_memory(request, "Python could not get more") from problem
    if plan is None:
        raise _failed(parsed, request)
    _keep_timings(config, request)
    return BuiltPlan(memoryview(plan), layer_report(counted, engine_layers(parsed.log.layers)))


def _configure(parsed: Network, request: EngineRequest, progress: Progress, stop: threading.Event) -> Any:
    module, settings = request.library.module, request.settings
    config = parsed.builder.create_builder_config()
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    config.progress_monitor = progress_monitor(request.library, request.label, progress, stop)
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if request.library.builds_ahead:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capability(request), 0)
    if request.library.keeps_timings:
        timings = config.create_timing_cache(_read_timings(request.timings))
        config.set_timing_cache(timings, False)
    for shapes in settings.profiles:
        _add_profile(parsed, config, request, shapes)
    return config


def _capability(request: EngineRequest) -> Any:
    module, wanted = request.library.module, f"SM{request.compute_capability.replace('.', '')}"
    if not hasattr(module.ComputeCapability, wanted):
        raise BackendError(
            f"{TITLE[request.library.name]} {request.library.version} does not build for compute capability "
            f"{request.compute_capability}",
            fix="choose another --target, or install a newer version of the library",
        )
    return getattr(module.ComputeCapability, wanted)


def _add_profile(parsed: Network, config: Any, request: EngineRequest, shapes: Mapping[str, ShapeRange]) -> None:
    profile = parsed.builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, shape.minimum, shape.optimum, shape.maximum)
    if config.add_optimization_profile(profile) < 0:
        said = parsed.log.errors[-1] if parsed.log.errors else "it gave no reason"
        raise BackendError(f"stage {request.stage!r}: the library refuses the profile {dict(shapes)}: {said}")


def _failed(parsed: Network, request: EngineRequest) -> BackendError:
    errors = [error for error in parsed.log.errors if error]
    if any(sign in error.lower() for error in errors for sign in OUT_OF_MEMORY):
        return _out_of_memory(request, errors[-1])
    reason = errors[-1].splitlines()[0] if errors else "the builder gave no reason"
    return BackendError(
        f"{TITLE[request.library.name]} {request.library.version} cannot build stage {request.stage!r}: {reason}",
        file=request.bundle.file(request.bundle.graph(request.stage).file),
        fix="export or quantize this stage in another precision, or allow more memory with --workspace-mb",
    )


def _out_of_memory(request: EngineRequest, reason: str) -> BackendError:
    return BackendError(
        f"out of memory while building stage {request.stage!r}: {reason.splitlines()[0]}",
        fix="close other programs, allow the builder less with --workspace-mb N or a smaller --max-prompt N, "
        "or build one stage at a time with --stage",
    )


def _read_timings(path: Path) -> bytes:
    """Kernel times of earlier builds; the library itself refuses those of another version or GPU."""
    if not path.is_file() or path.stat().st_size > MAX_TIMINGS_BYTES:
        return b""
    return path.read_bytes()


def _keep_timings(config: Any, request: EngineRequest) -> None:
    if not request.library.keeps_timings:
        return
    timings = config.get_timing_cache()
    if timings is None:
        return
    request.timings.parent.mkdir(parents=True, exist_ok=True)
    beside = request.timings.with_name(f".{request.timings.name}.{os.getpid()}")
    try:
        beside.write_bytes(memoryview(timings.serialize()))
        os.replace(beside, request.timings)
    finally:
        beside.unlink(missing_ok=True)
