"""ONNX Runtime on a CPU: graphs mapped from disk, caches updated in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import onnxruntime

from sottovoce.runtime.backends.half_precision import multiplies_half_precision
from sottovoce.runtime.backends.onnxruntime_cache import BoundBuffers, OnnxRuntimeCache
from sottovoce.runtime.backends.onnxruntime_options import (
    PROVIDER,
    WEIGHTS_FOLDER,
    WEIGHTS_STAY,
    config_entries,
    session_options,
)
from sottovoce.runtime.backends.optimized_graph import OptimizedGraph, file_identity
from sottovoce.runtime.backends.session import Array, CacheBuffers
from sottovoce.runtime.cores import available_cores
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.kernels.fused_graph import fused_graph
from sottovoce.runtime.kernels.library import kernels_for
from sottovoce.runtime.manifest import GraphSpec


class OnnxRuntimeSession:
    """One graph in ONNX Runtime.

    Args:
        stage: its name, for messages.
        spec: its contract.
        path: the `.onnx` file; its weights lie beside it.
        threads: cores to compute on; None for all that this process may use.
        keep_optimized: beside the graph, for the next time (`optimized_graph.py`).

    Raises:
        BackendError: ONNX Runtime cannot load the graph.
    """

    max_positions = None

    def __init__(
        self, stage: str, spec: GraphSpec, path: Path, threads: int | None = None, *, keep_optimized: bool = False
    ) -> None:
        self._stage = stage
        self._spec = spec
        self._path = path
        self._keep_optimized = keep_optimized
        with self._failures("cannot load the graph"):
            self._session: Any = self._load(threads)
        self._check_names()

    @property
    def spec(self) -> GraphSpec:
        """The graph's contract."""
        return self._spec

    @property
    def stage(self) -> str:
        """The name of the stage, for messages."""
        return self._stage

    @property
    def widened(self) -> bool:
        """Whether float16 weights were widened to float32 when the graph was loaded: no float16 kernels here.

        ONNX Runtime inserts the casts by itself and folds them into the weights.
        """
        with self._failures("failed"):
            return self._spec.floats == "fp16" and not multiplies_half_precision(PROVIDER)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once; keys are tensor names.

        Raises:
            BackendError: ONNX Runtime failed.
        """
        wanted = list(outputs) if outputs is not None else [output.name for output in self._spec.outputs]
        with self._failures("failed"):
            values = self._session.run(wanted, dict(feeds))
        return dict(zip(wanted, values, strict=True))

    def create_cache(self, capacity: int) -> OnnxRuntimeCache:
        """Buffers of zeros for `capacity` positions."""
        if self._spec.cache is None:
            raise BackendError(f"stage {self._stage!r} has no cache", file=self._path)
        return OnnxRuntimeCache(self._spec, self._spec.cache, self._session, capacity)

    def run_with_cache(self, feeds: Mapping[str, Array], cache: CacheBuffers) -> dict[str, Array]:
        """Run once; past and present are one buffer, so only the new positions are written.

        Raises:
            BackendError: ONNX Runtime failed; what the cache holds behind its length is then undefined.
        """
        buffers = cast("BoundBuffers", cache)
        with self._failures("failed"):
            # ONNX Runtime reads these arrays where they lie: they must outlive the run.
            arrays = {name: np.ascontiguousarray(values) for name, values in feeds.items()}
            for name, values in arrays.items():
                buffers.binding.bind_cpu_input(name, values)
            for name in buffers.unsized_results:
                buffers.binding.bind_output(name, "cpu")
            self._run_bound(buffers.binding)
            return buffers.take_results()

    def close(self) -> None:
        """Release the graph and its weights."""
        self._session = None

    def _run_bound(self, binding: Any) -> None:
        self._session.run_with_iobinding(binding)

    def _kernels(self) -> Path | None:
        """The library of our kernels that is to be registered for this graph, if any."""
        return kernels_for(self._spec, self._path)

    def _fused(self, threads: int) -> bytes | None:
        """The graph with its decoder layers fused, or None where there are none."""
        return fused_graph(self._path, threads)

    def _load(self, threads: int | None) -> Any:
        """With kernels of ours, unless they refuse one of the graph's operators that has their name."""
        kernels = self._kernels()
        if kernels is not None:
            self._options(kernels, threads)  # a library that is not one is an error
            for load in (self._load_fused, self._load_with):
                with suppress(Exception):  # ONNX Runtime's have no common base; what else is wrong is so again
                    session = load(kernels, threads)
                    if session is not None:
                        return session
        return self._load_with(None, threads)

    def _load_fused(self, kernels: Path, threads: int | None) -> Any:
        fused = self._fused(threads or available_cores())
        if fused is None:
            return None
        options = self._options(kernels, threads)
        options.add_session_config_entry(WEIGHTS_FOLDER, str(self._path.parent))
        return onnxruntime.InferenceSession(fused, options, providers=[PROVIDER])

    def _load_with(self, kernels: Path | None, threads: int | None) -> Any:
        kept = self._optimized_graph(kernels)
        if kept is not None:
            with suppress(Exception):  # as above; where what was kept is of no use, or the disk is full, go on without
                return self._load_optimized(kept, kernels, threads)
        return self._open(self._path, self._options(kernels, threads))

    def _load_optimized(self, kept: OptimizedGraph, kernels: Path | None, threads: int | None) -> Any:
        """The graph as it was optimized before; if it was not, optimize it, and keep that."""
        options, found = self._options(kernels, threads), kept.find()
        if found is None:
            with kept.keep() as written:
                if written is not None:
                    options.optimized_model_filepath = str(written)
                return self._open(self._path, options)
        if found.stat().st_size == 0:
            return self._open(self._path, options)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return self._open(found, options)
        except Exception:
            kept.forget(found)
            raise

    def _optimized_graph(self, kernels: Path | None) -> OptimizedGraph | None:
        if not self._keep_optimized:
            return None
        settings = [onnxruntime.__version__, *(f"{key}={value}" for key, value in config_entries(self._spec).items())]
        settings += [] if kernels is None else [file_identity(kernels)]
        data = [self._path.parent / PurePosixPath(name).name for name in self._spec.data]
        changes = self._spec.floats == "fp16" or self._spec.precision not in WEIGHTS_STAY
        return OptimizedGraph.of(self._path, data, settings, changes_weights=changes)

    def _options(self, kernels: Path | None, threads: int | None) -> Any:
        options = session_options(self._spec, threads)
        if kernels is not None:
            options.register_custom_ops_library(str(kernels))
        return options

    def _open(self, path: Path, options: Any) -> Any:
        return onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])

    def _check_names(self) -> None:
        """The contract's tensors are the graph's, so that a mismatch shows here and not as a wrong answer."""
        found = (
            sorted(value.name for value in self._session.get_inputs()),
            sorted(value.name for value in self._session.get_outputs()),
        )
        expected = (
            sorted(tensor.name for tensor in self._spec.inputs),
            sorted(tensor.name for tensor in self._spec.outputs),
        )
        for what, ours, theirs in zip(("inputs", "outputs"), expected, found, strict=True):
            if ours != theirs:
                differing = sorted(set(ours) ^ set(theirs))
                raise BackendError(
                    f"stage {self._stage!r}: the graph's {what} and the manifest's differ in {differing}",
                    file=self._path,
                    fix="export the checkpoint again",
                )

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        try:
            yield
        except BackendError:
            raise
        except Exception as problem:  # ONNX Runtime's exceptions have no common base but this
            reason = " ".join(str(problem).split())
            raise BackendError(
                f"stage {self._stage!r} {what} in ONNX Runtime {onnxruntime.__version__}: {reason}",
                file=self._path,
                fix="check that memory is free and that this ONNX Runtime knows the graph's operators "
                f"(opset {self._spec.opset}, dialect {self._spec.dialect!r}); if so, report it",
            ) from problem
