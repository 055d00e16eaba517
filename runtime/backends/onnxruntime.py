"""ONNX Runtime on a CPU: graphs mapped from disk, caches updated in place.

Weights in floating point stay in the page cache: prepacking is off, because a packed copy costs seconds to make and
cannot be shared or dropped, and products with one row (decoding) gain nothing from it. Integer weights are packed:
their kernels need it (a 4-bit product of one row takes 0.3 ms packed and 260 ms not, 1536 × 8960 weights, one core of
an EPYC). Memory patterns are off, since one is kept for every sequence length that ever occurs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import onnxruntime

from sottovoce.runtime.backends.half_precision import multiplies_half_precision
from sottovoce.runtime.backends.session import Array, CacheBuffers
from sottovoce.runtime.cores import available_cores
from sottovoce.runtime.errors import BackendError
from sottovoce.runtime.kernels.library import kernels_for
from sottovoce.runtime.manifest import GraphSpec, KVCacheSpec

PROVIDER = "CPUExecutionProvider"
LOG_ERRORS_ONLY = 3
INTEGER_WEIGHTS = {
    # `DequantizeLinear` before a product becomes one kernel, MatMulNBits, that rounds its other factor to 8 bits.
    "session.qdq_matmulnbits_accuracy_level": "4",
    # Where a whole channel has one scale, the kernel still works by blocks: larger ones are faster (138 against 180 ms
    # for 256 rows of the product above).
    "session.qdq_matmulnbits_block_size": "128",
}
NO_SPINNING = {
    # Waiting threads sleep: spinning would take the cores from the other stages.
    "session.intra_op.allow_spinning": "0",
    "session.inter_op.allow_spinning": "0",
}
BRIEF_SPINNING = {
    # A step of a decoder is hundreds of operators of some microseconds: waking a thread for each costs more than they
    # do (131 tokens a second without, 213 with; 100 µs and no limit give the same). It ends with the run, so that the
    # cores are the other stages' in between.
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "20",
    "session.force_spinning_stop": "1",
    "session.inter_op.allow_spinning": "0",
}


def knows_spin_duration(version: str) -> bool:
    """Whether this ONNX Runtime can limit spinning: 1.32 does; 1.23 passes over what it does not know, and would spin
    on and on."""
    return tuple(int(part) for part in version.split(".")[:2]) >= (1, 32)


class OnnxRuntimeSession:
    """One graph in ONNX Runtime.

    Args:
        stage: its name, for messages.
        spec: its contract.
        path: the `.onnx` file; its weights lie beside it.
        threads: cores to compute on; None for all that this process may use.

    Raises:
        BackendError: ONNX Runtime cannot load the graph.
    """

    max_positions = None

    def __init__(self, stage: str, spec: GraphSpec, path: Path, threads: int | None = None) -> None:
        self._stage = stage
        self._spec = spec
        self._path = path
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

    def _load(self, threads: int | None) -> Any:
        """With kernels of ours, unless they refuse one of the graph's operators that has their name."""
        options, kernels = _session_options(self._spec, threads), self._kernels()
        if kernels is None:
            return self._open(self._path, options)
        options.register_custom_ops_library(str(kernels))
        try:
            return self._open(self._path, options)
        except Exception:  # noqa: BLE001  # ONNX Runtime's have no common base; what else is wrong is so again
            return self._open(self._path, _session_options(self._spec, threads))

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


def _session_options(spec: GraphSpec, threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS_ONLY
    options.intra_op_num_threads = threads or available_cores()
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    # Decoders run thousands of times and keep their working memory; the others run now and then and give it back.
    options.enable_cpu_mem_arena = spec.cache is not None
    spins = spec.cache is not None and knows_spin_duration(onnxruntime.__version__)
    for key, value in (BRIEF_SPINNING if spins else NO_SPINNING).items():
        options.add_session_config_entry(key, value)
    if spec.has_integer_weights:
        for key, value in INTEGER_WEIGHTS.items():
            options.add_session_config_entry(key, value)
    else:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options
