"""One stage made smaller: its graph read, changed and written, with what was done and what was left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sottovoce.calibration.bundles.external_data import ExternalDataWriter
from sottovoce.calibration.quantization.activation_rounding import is_factor, round_activations
from sottovoce.calibration.quantization.activation_scales import activation_scale, has_massive_values, loses_most
from sottovoce.calibration.quantization.cache_precision import (
    CacheScales,
    cache_tensors,
    narrow_cache,
    shrink_cache,
)
from sottovoce.calibration.quantization.dequantize import store_integers
from sottovoce.calibration.quantization.error_compensation import round_compensated
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.half_precision import narrow_floats
from sottovoce.calibration.quantization.multiply_adds import count_multiply_adds
from sottovoce.calibration.quantization.plan import CACHED_STAGES, CachePrecision, StagePlan
from sottovoce.calibration.quantization.rounding import RoundedWeights, round_blocks, round_channels
from sottovoce.calibration.quantization.sites import TABLE, WeightSite, weight_sites
from sottovoce.calibration.quantization.smoothing import smooth, smoothing_groups
from sottovoce.calibration.ranges.range_file import Ranges
from sottovoce.calibration.ranges.statistics import TensorStatistics
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import GraphSpec, QuantizationSpec, StageName

Floats = npt.NDArray[np.float32]
CACHE_NAMES: Mapping[str, CachePrecision] = {"float16": "fp16", "int8": "int8"}
SMALLEST_INPUTS = 16
"""Products over fewer inputs stay in floating point: their scales would cost as much as they save."""


@dataclass
class StageQuantizer:
    """Makes one stage of a bundle smaller.

    Args:
        bundle: the source, in floating point.
        stage: which graph.
        plan: what it is to be.
        ranges: what was seen on real inputs; None where the plan needs none.
        kept: names of weights that stay in floating point, with the reason.
    """

    bundle: Bundle
    stage: StageName
    plan: StagePlan
    ranges: Ranges | None = None
    kept: Mapping[str, str] = field(default_factory=dict)

    @property
    def changes_nothing(self) -> bool:
        """Whether the stage is what the plan wants it to be."""
        spec = self.bundle.graph(self.stage)
        same_cache = spec.cache is None or self.plan.cache in (None, CACHE_NAMES.get(spec.cache.dtype))
        return same_cache and self.plan.precision in (None, spec.precision)

    def write(self, folder: Path) -> GraphSpec:
        """Write the graph and its weights below `folder`; returns the new contract.

        Raises:
            SottovoceError: ranges are missing, or a weight is not finite or beyond float16.
            OSError: the disk is full or not writable.
        """
        spec = self.bundle.graph(self.stage)
        (folder / spec.file).parent.mkdir(parents=True, exist_ok=True)
        data_name = f"{spec.file}.data"
        with ExternalDataWriter(folder / data_name) as data:
            graph = StageGraph(self.bundle, self.stage, data)
            record = self._change(graph)
            graph.save(folder / spec.file)
        written = replace(graph.spec, data=(data_name,), opset=graph.opset, quantization=record)
        if record is None:
            return written
        sizes = sum((folder / name).stat().st_size for name in (spec.file, data_name))
        counted = count_multiply_adds(folder, written).share if self.plan.precision == "int8" else None
        return replace(written, quantization=replace(record, bytes_after=sizes, multiply_adds_share=counted))

    def _change(self, graph: StageGraph) -> QuantizationSpec | None:
        """Weights and activations first, then the cache; returns what to record of integers, if there are any."""
        record = graph.spec.quantization
        if self.plan.precision == "fp16":
            narrow_floats(graph)
        elif self.plan.precision not in (None, graph.spec.precision):
            record = self._to_integers(graph)
            graph.spec = replace(graph.spec, precision=self.plan.precision)
        if self.plan.cache == "fp16":
            narrow_cache(graph)
        elif self.plan.cache == "int8":
            shrink_cache(graph, self._cache_scales(graph))
        return record

    def _cache_scales(self, graph: StageGraph) -> CacheScales:
        assert self.ranges is not None  # noqa: S101  # the plan needs them, the caller has checked
        cache = graph.spec.cache
        assert cache is not None  # noqa: S101  # only decoders have such a plan
        peaks: dict[str, list[Floats]] = {"key": [], "value": []}
        for tensor in cache_tensors(graph):
            seen = self.ranges.of(self.stage, tensor.update).channel_peaks
            peaks[tensor.role.partition(".")[0]].append(seen.reshape(cache.kv_heads, cache.head_size))
        return CacheScales.covering(peaks["key"], peaks["value"])

    def _to_integers(self, graph: StageGraph) -> QuantizationSpec:
        sites = weight_sites(graph)
        chosen = [site for site in sites if site.name not in self.kept and holds_integers(site)]
        moved = self._smooth(graph, chosen) if self.plan.precision == "int8" else {}
        methods = set()
        for site in chosen:
            rounded, bits, method = self._round(graph, site)
            store_integers(graph, site, rounded, bits)
            methods.add(method)
        rounds = self.plan.precision == "int8" and bool(chosen)
        left = self._round_activations(graph, chosen, moved) if rounds else {}
        total, done = sum(site.size for site in sites), sum(site.size for site in chosen)
        files = (graph.spec.file, *graph.spec.data)
        return QuantizationSpec(
            floats=graph.spec.floats,
            method="gptq" if "gptq" in methods else "nearest",
            block_size=self.plan.block_size,
            bytes_before=sum(self.bundle.manifest.files[name].bytes for name in files),
            bytes_after=0,
            weights_share=done / total if total else 1.0,
            smoothed=len(moved),
            kept={**self.kept, **{site.name: "too small" for site in sites if not holds_integers(site)}, **left},
        )

    def _smooth(self, graph: StageGraph, sites: list[WeightSite]) -> dict[str, Floats]:
        """Only decoders have outliers worth moving (Sun et al. 2024); a group must be rounded as a whole."""
        if self.stage not in CACHED_STAGES:
            return {}
        names = {site.name for site in sites}
        groups = [g for g in smoothing_groups(graph, weight_sites(graph)) if {s.name for s in g.sites} <= names]
        return smooth(graph, groups, self._statistics())

    def _round(self, graph: StageGraph, site: WeightSite) -> tuple[RoundedWeights, int, str]:
        matrix = site.matrix(graph.read(site.name))
        if self.plan.block_size is None or not site.is_product:
            return round_channels(matrix, graph.float_type), 8, "nearest"
        seen = None if self.ranges is None else self.ranges.statistics.get((self.stage, site.activations[0]))
        if seen is None or len(site.activations) > 1:
            return round_blocks(matrix, self.plan.block_size, None, graph.float_type), 4, "nearest"
        rounded, method = round_compensated(
            matrix, self.plan.block_size, seen.rows, seen.mean_squares, graph.float_type
        )
        return rounded, 4, method

    def _round_activations(
        self, graph: StageGraph, sites: list[WeightSite], moved: Mapping[str, Floats]
    ) -> dict[str, str]:
        """Round what meets integer weights, and both factors of products without weights; returns what was left."""
        names = dict.fromkeys(name for site in sites if site.op != TABLE for name in site.activations)
        left = {}
        for site in sites:
            for name in site.activations if site.is_product else ():
                if has_massive_values(self._seen(name), moved.get(name)):
                    left[f"{name} × {site.name}"] = "a few activations are far larger than all others"
                    names.pop(name, None)
        for factors in self._products_of_activations(graph, sites):
            lost = [name for name in factors if loses_most(self._seen(name), activation_scale(self._seen(name)))]
            if lost:
                left[" × ".join(factors)] = f"most values of {lost[0]} are within two steps of zero"
            else:
                names.update(dict.fromkeys(factors))
        for name in names:
            round_activations(graph, name, activation_scale(self._seen(name), moved.get(name)))
        return left

    def _products_of_activations(self, graph: StageGraph, sites: list[WeightSite]) -> list[tuple[str, ...]]:
        """The factors of products that have no weight: attention's.

        A decoder's would be its cache, rounded whole for every token: that costs more than it saves, in any spelling.
        """
        if self.stage in CACHED_STAGES:
            return []
        weighted = {f"{site.name}.dequantized" for site in sites} | set(graph.weights)
        pairs = (
            tuple(name for place, name in enumerate(node.input) if is_factor(node.op_type, place))
            for node in graph.nodes
        )
        return [pair for pair in pairs if len(pair) == 2 and not weighted & set(pair)]

    def _seen(self, name: str) -> TensorStatistics:
        assert self.ranges is not None  # noqa: S101  # the plan needs them, the caller has checked
        return self.ranges.of(self.stage, name)

    def _statistics(self) -> dict[str, TensorStatistics]:
        assert self.ranges is not None  # noqa: S101  # callers ask only where there are ranges
        return {name: seen for (stage, name), seen in self.ranges.statistics.items() if stage == self.stage}


def holds_integers(site: WeightSite) -> bool:
    """Whether a weight is worth a scale: see `SMALLEST_INPUTS`."""
    return site.op == TABLE or site.size // site.shape[site.output_axis] >= SMALLEST_INPUTS
