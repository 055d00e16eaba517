"""Recorded calls on one graph again, with inner values of the graph among the results."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sottovoce.calibration.divergence.stage_calls import StageCall
from sottovoce.calibration.ranges.observed_graph import write_observed_graph
from sottovoce.calibration.ranges.statistics import ObservedTensor
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.onnxruntime_cache import OnnxRuntimeCache
from sottovoce.runtime.backends.session import Array
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.contracts import tensor_by_role
from sottovoce.runtime.kv_cache import CAPACITY_STEP, roomy_capacity
from sottovoce.runtime.manifest import StageName


@contextlib.contextmanager
def replaying(bundle: Bundle, stage: StageName, values: Sequence[str] = ()) -> Iterator[StageReplay]:
    """A stage of a bundle, ready for calls; with no `values` it is computed exactly as in a conversation.

    Args:
        bundle: a checked bundle.
        stage: which graph.
        values: names of inner values to give as well. Looking at a value may keep the engine from fusing operators.

    Raises:
        BackendError: the engine refuses the graph.
    """
    spec = bundle.graph(stage)
    with contextlib.ExitStack() as stack:
        path = bundle.file(spec.file)
        if values:
            folder = Path(stack.enter_context(_scratch(bundle)))
            spec = write_observed_graph(bundle, stage, [ObservedTensor(stage, name) for name in values], folder)
            path = folder / spec.file
        session = OnnxRuntimeSession(stage, spec, path)
        stack.callback(session.close)
        yield StageReplay(session)


def _scratch(bundle: Bundle) -> tempfile.TemporaryDirectory[str]:
    """Beside the bundle, where weights can be linked; elsewhere if nothing may be written there."""
    try:
        return tempfile.TemporaryDirectory(prefix=".watched-", dir=bundle.path.absolute().parent)
    except OSError:
        return tempfile.TemporaryDirectory(prefix="sottovoce-watched-")


class StageReplay:
    """Made by `replaying`: runs calls in their order, each sequence in a cache of its own.

    Args:
        session: the loaded graph.
    """

    def __init__(self, session: OnnxRuntimeSession) -> None:
        self._session = session
        self._caches: dict[int, OnnxRuntimeCache] = {}

    def run(self, call: StageCall, *, with_cache: bool = False) -> dict[str, Array]:
        """Results by name: the graph's outputs and the values that were asked for.

        Args:
            call: what to feed; calls of one sequence must come in their order.
            with_cache: give the cache's buffers, too, under their names as outputs (present).
        """
        if call.sequence is None:
            return self._session.run(call.feeds)
        cache = self._cache(call.sequence, call.cached + call.positions, call.cached)
        results = self._session.run_with_cache(call.feeds, cache)
        if with_cache:
            for name, values in cache.read(cache.capacity).items():
                results[tensor_by_role(self._session.spec.outputs, f"present_{name}").name] = values
        return results

    def _cache(self, sequence: int, needed: int, filled: int) -> OnnxRuntimeCache:
        layout = self._session.spec.cache
        assert layout is not None  # noqa: S101  # only decoders' calls have a sequence
        capacity = layout.max_length
        if not layout.fixed_capacity:
            capacity = roomy_capacity(needed, CAPACITY_STEP, layout.max_length)
        if sequence not in self._caches:
            self._caches[sequence] = self._session.create_cache(capacity)
        cache = self._caches[sequence]
        if capacity > cache.capacity:
            cache.resize(capacity, keep=filled)
        return cache
