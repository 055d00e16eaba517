"""Inference engines behind one small protocol."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.engines.machine import installed_libraries, may_run_engines
from sottovoce.runtime.errors import BackendError, BundleError
from sottovoce.runtime.manifest import StageName

CPU, ENGINES = "onnxruntime", "tensorrt"
LOG = logging.getLogger("sottovoce")


def open_session(
    bundle: Bundle,
    stage: StageName,
    backend: str = "auto",
    threads: int | None = None,
    require_engine: bool = False,
) -> Session:
    """Load one stage of a bundle into an inference engine.

    Args:
        bundle: a checked bundle.
        stage: which graph.
        backend: a name of `BACKENDS`, or "auto" for the best that is there.
        threads: CPU cores to use; None for all that this process may use.
        require_engine: refuse what is not a TensorRT engine built for this machine, instead of going on without.

    Raises:
        BackendError: there is no such backend, it refused the graph, or an engine is required and none can be used.
    """
    name = check_backend(backend, bundle, require_engine)
    if name != ENGINES:
        return BACKENDS[name](bundle, stage, threads)
    try:
        return _tensorrt(bundle, stage, threads)
    except (BackendError, BundleError) as why:
        if require_engine:
            message = f"stage {stage!r} has no engine that can be used, and one is required: {why.message}"
            raise BackendError(message, file=why.file, fix=why.fix) from why
        remark_once(f"computed by ONNX Runtime instead of an engine: {why}")
        return _onnxruntime(bundle, stage, threads)


def check_backend(backend: str, bundle: Bundle | None = None, require_engine: bool = False) -> str:
    """The name of the backend that `backend` stands for.

    Args:
        backend: a name of `BACKENDS`, or "auto": engines where the bundle has some and a GPU may run them, and ONNX
            Runtime otherwise; nothing of TensorRT is imported to find out.
        bundle: whose engines.
        require_engine: whether nothing else will do.

    Raises:
        BackendError: there is no such backend, or it is one without engines and they are required.
    """
    if backend not in ("auto", *BACKENDS):
        raise BackendError(f"unknown backend {backend!r}", fix=f"choose one of: auto, {', '.join(BACKENDS)}")
    if require_engine:
        if backend not in ("auto", ENGINES):
            message = f"an engine is required, and the backend {backend!r} has none"
            raise BackendError(message, fix=f"give --backend {ENGINES}, or leave --require-engine away")
        return ENGINES
    if backend == "auto":
        return ENGINES if bundle is not None and may_run_engines() and _has_engines(bundle) else CPU
    return backend


def _has_engines(bundle: Bundle) -> bool:
    from sottovoce.runtime.engines.matching import built_targets

    return bool(built_targets(bundle))


@functools.cache
def remark_once(remark: str) -> None:
    """A line on standard error (unless a program handles the log of "sottovoce"), for all stages together once."""
    LOG.warning("%s", remark)


def module_of(backend: str) -> str:
    """The Python module that computes for a backend."""
    return next(iter(installed_libraries()), CPU) if backend == ENGINES else CPU


def _onnxruntime(bundle: Bundle, stage: StageName, threads: int | None) -> Session:
    from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession

    spec = bundle.graph(stage)
    return OnnxRuntimeSession(stage, spec, bundle.file(spec.file), threads, keep_optimized=True)


def _tensorrt(bundle: Bundle, stage: StageName, _: int | None) -> Session:
    from sottovoce.runtime.engines.matching import check_built, matching_engine

    check_built(bundle)
    from sottovoce.runtime.backends.tensorrt import TensorRtSession, this_machine

    return TensorRtSession(stage, bundle.graph(stage), matching_engine(bundle, stage, this_machine()))


def _onnxruntime_gpu(provider: str, bundle: Bundle, stage: StageName, threads: int | None) -> Session:
    from sottovoce.runtime.backends.onnxruntime_gpu import PROVIDERS, OnnxRuntimeGpuSession

    spec = bundle.graph(stage)
    return OnnxRuntimeGpuSession(stage, spec, bundle.file(spec.file), PROVIDERS[provider], threads)


BACKENDS: dict[str, Callable[[Bundle, StageName, int | None], Session]] = {
    CPU: _onnxruntime,
    ENGINES: _tensorrt,
    "cuda": functools.partial(_onnxruntime_gpu, "cuda"),
    "ort-tensorrt": functools.partial(_onnxruntime_gpu, "ort-tensorrt"),
    "nv-tensorrt-rtx": functools.partial(_onnxruntime_gpu, "nv-tensorrt-rtx"),
}
