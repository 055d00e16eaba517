"""A stage's graph with the values that matter for quantization as further outputs, and a session that collects them.

What is watched: all that meets a weight in a product or convolution, both factors of products without a weight
(attention), and the keys and values that go into a cache.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from sottovoce.calibration.bundles.grouped_attention import UPDATES, is_grouped_attention
from sottovoce.calibration.quantization.cache_precision import UPDATE_PLACES
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.sites import CONVOLUTIONS, PRODUCTS, TABLE, weight_sites
from sottovoce.calibration.ranges.statistics import ObservedTensor, StatisticsCollector
from sottovoce.runtime.backends.onnxruntime import OnnxRuntimeSession
from sottovoce.runtime.backends.onnxruntime_cache import OnnxRuntimeCache
from sottovoce.runtime.backends.session import Array, CacheBuffers
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import GraphSpec, StageName, TensorSpec

OBSERVED_ROLE = "observed"
STEPS_A_LOOK = 32
"""Of a decoder's calls with a single position, one in so many is watched: there are hundreds in a reply, much alike."""


def observed_tensors(graph: StageGraph) -> list[ObservedTensor]:
    """The values of a graph to watch, each once, in the order in which they are computed."""
    found: dict[str, ObservedTensor] = {}

    def watch(name: str, channel_axes: tuple[int, ...], keeps_rows: bool = False) -> None:
        keeps_rows = keeps_rows or (name in found and found[name].keeps_rows)
        found[name] = ObservedTensor(graph.stage, name, channel_axes, keeps_rows)

    for site in weight_sites(graph):
        if site.op != TABLE:
            convolved = site.op in CONVOLUTIONS
            for name in site.activations:
                watch(name, (1 - len(site.shape),) if convolved else (-1,), keeps_rows=not convolved)
    weights = set(graph.weights)
    for node in graph.nodes:
        if node.op_type in PRODUCTS and not weights & set(node.input[:2]):
            for name in node.input[:2]:
                watch(name, ())
        if is_grouped_attention(node):
            for place in UPDATES:  # (1, positions, heads · head)
                watch(node.input[place], (-1,))
        elif node.op_type in UPDATE_PLACES:
            entry = node.input[UPDATE_PLACES[node.op_type]]
            if entry not in weights:
                watch(entry, (-3, -1))
    order = {name: place for place, node in enumerate(graph.nodes) for name in node.output}
    return sorted(found.values(), key=lambda tensor: order.get(tensor.name, -1))


def write_observed_graph(
    bundle: Bundle, stage: StageName, watched: Sequence[ObservedTensor], folder: Path
) -> GraphSpec:
    """Write a stage's graph into `folder` with `watched` as further outputs; weights are linked, not copied.

    Returns:
        The contract with these outputs, their roles `observed.0`, `observed.1`, …; tensors that are the graph's inputs
        or outputs already are left out.
    """
    spec = bundle.graph(stage)
    model = onnx.load(str(bundle.file(spec.file)), load_external_data=False)
    known = {value.name for value in (*model.graph.input, *model.graph.output)}
    fresh = [tensor for tensor in watched if tensor.name not in known]
    model.graph.output.extend(onnx.ValueInfoProto(name=tensor.name) for tensor in fresh)
    (folder / spec.file).parent.mkdir(parents=True, exist_ok=True)
    (folder / spec.file).write_bytes(model.SerializeToString())
    for name in spec.data:
        _link(bundle.file(name), folder / name)
    more = tuple(
        TensorSpec(f"{OBSERVED_ROLE}.{place}", tensor.name, "float32", ()) for place, tensor in enumerate(fresh)
    )
    return replace(spec, outputs=spec.outputs + more)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


class ObservedSession(OnnxRuntimeSession):
    """A stage whose watched values go to collectors on the way.

    Args:
        spec: the contract that `write_observed_graph` gave.
        path: of the observed graph.
        watched: what to collect.
    """

    def __init__(
        self, stage: str, spec: GraphSpec, path: Path, watched: Sequence[ObservedTensor], threads: int | None = None
    ) -> None:
        super().__init__(stage, spec, path, threads)
        self.collectors = {tensor.name: StatisticsCollector(tensor) for tensor in watched}
        self._more = [output.name for output in spec.outputs if output.role.startswith(OBSERVED_ROLE)]
        self._single_steps = 0

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once and count what is watched."""
        wanted = list(outputs) if outputs is not None else [output.name for output in self.spec.outputs]
        results = super().run(feeds, list(dict.fromkeys([*wanted, *self._more])))
        self._collect(feeds, results)
        return {name: results[name] for name in wanted}

    def create_cache(self, capacity: int) -> ObservedCache:
        """Buffers that know which results to fetch."""
        assert self.spec.cache is not None  # noqa: S101  # only decoders ask
        return ObservedCache(self.spec, self.spec.cache, self._session, capacity)

    def run_with_cache(self, feeds: Mapping[str, Array], cache: CacheBuffers) -> dict[str, Array]:
        """Run once; calls of several positions are watched always, single ones now and then."""
        assert isinstance(cache, ObservedCache)  # noqa: S101  # made by `create_cache`
        positions = max(values.shape[1] for values in feeds.values() if values.ndim > 1)
        watching = positions > 1 or self._single_steps % STEPS_A_LOOK == 0
        self._single_steps += positions == 1
        cache.fetch_observed(watching)
        results = super().run_with_cache(feeds, cache)
        if watching:
            self._collect(feeds, results)
        return {name: values for name, values in results.items() if name not in self._more}

    def _collect(self, feeds: Mapping[str, Array], results: Mapping[str, Array]) -> None:
        for name, collector in self.collectors.items():
            values: Any = results.get(name, feeds.get(name))
            if values is not None:
                collector.append(values)


class ObservedCache(OnnxRuntimeCache):
    """Cache buffers whose binding fetches watched values, or leaves them out."""

    _fetches = True

    def fetch_observed(self, fetches: bool) -> None:
        """From the next call on."""
        if fetches != self._fetches:
            self._fetches = fetches
            del self.binding
            self._bind()

    def _bind(self) -> None:
        roles = [output for output in self._spec.outputs if not output.role.startswith("present_")]
        self.results = tuple(o.name for o in roles if self._fetches or not o.role.startswith(OBSERVED_ROLE))
        super()._bind()
