"""Inference engines behind one small protocol."""

from __future__ import annotations

from collections.abc import Callable

from sottovoce.runtime.backends.session import Session
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.manifest import StageName


def open_session(bundle: Bundle, stage: StageName, backend: str = "auto", threads: int | None = None) -> Session:
    """Load one stage of a bundle into an inference engine.

    Args:
        bundle: a checked bundle.
        stage: which graph.
        backend: a name of `BACKENDS`, or "auto" for the best that is there.
        threads: CPU cores to use; None for all that this process may use.

    Raises:
        BackendError: there is no such backend, or it refused the graph.
    """
    return BACKENDS[check_backend(backend)](bundle, stage, threads)


def check_backend(backend: str) -> str:
    """The name of the backend that `backend` stands for.

    Raises:
        BackendError: there is no such backend.
    """
    name = "onnxruntime" if backend == "auto" else backend
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {backend!r}", fix=f"choose one of: auto, {', '.join(BACKENDS)}")
    return name


def _onnxruntime(bundle: Bundle, stage: StageName, threads: int | None) -> Session:
    from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession

    spec = bundle.graph(stage)
    return OnnxRuntimeSession(stage, spec, bundle.file(spec.file), threads)


BACKENDS: dict[str, Callable[[Bundle, StageName, int | None], Session]] = {"onnxruntime": _onnxruntime}
