"""Outlier channels of activations moved into the weights that they meet (SmoothQuant, Xiao et al. 2022,
https://arxiv.org/abs/2211.10438).

`norm(x) · W = (norm(x) / s) · (s · W)`: dividing costs nothing where it can be folded into the weight of the norm that
makes the activations, or into the columns of the product that is one factor of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from sottovoce.calibration.quantization.activation_scales import activation_scale
from sottovoce.calibration.quantization.graph import Array, StageGraph
from sottovoce.calibration.quantization.rounding import INT8_LIMIT, round_channels
from sottovoce.calibration.quantization.sites import PRODUCTS, WeightSite
from sottovoce.calibration.ranges.statistics import TensorStatistics

Floats = npt.NDArray[np.float32]

STRENGTHS = (0.3, 0.5, 0.7)
"""How far a channel's size moves into the weights (the paper's alpha); the best is chosen, or none."""
NORMS = ("RMSNormalization", "LayerNormalization", "SimplifiedLayerNormalization")
PASSED = ("Cast",)
LARGEST_FACTOR = 1e3


@dataclass(frozen=True)
class SmoothingGroup:
    """Activations that only products read, and the weights whose last axis can take their divisor.

    Args:
        activations: the value in the graph.
        sites: the products that read it.
        divided: initializers whose last axis runs over the channels: a norm's weight (and bias), or a product's weight.
    """

    activations: str
    sites: tuple[WeightSite, ...]
    divided: tuple[str, ...]


def smoothing_groups(graph: StageGraph, sites: Sequence[WeightSite]) -> list[SmoothingGroup]:
    """All groups of a graph: what a norm makes, and gated products, where products alone read them."""
    groups = []
    for activations in dict.fromkeys(name for site in sites if site.op in PRODUCTS for name in site.activations):
        readers = tuple(site for site in sites if activations in site.activations)
        read = {node.input[1] for node, _ in graph.consumers(activations) if len(node.input) > 1}
        if read != {site.name for site in readers} or any(len(site.activations) > 1 for site in readers):
            continue
        divided = _divisible(graph, activations)
        if divided and all(_read_once(graph, name) for name in divided):
            groups.append(SmoothingGroup(activations, readers, divided))
    return groups


def smooth(
    graph: StageGraph, groups: Sequence[SmoothingGroup], statistics: Mapping[str, TensorStatistics]
) -> dict[str, Floats]:
    """Move what is worth moving; returns (channels,) divisors by activation for the groups that were smoothed."""
    moved: dict[str, Floats] = {}
    for group in groups:
        seen = statistics.get(group.activations)
        if seen is None or not len(seen.rows):
            continue
        divisor = best_divisor(seen, [site.matrix(graph.read(site.name)) for site in group.sites])
        if divisor is None:
            continue
        moved[group.activations] = divisor
        for name in group.divided:
            graph.edit(name, partial(_divided, divisor))
        for site in group.sites:
            graph.edit(site.name, partial(_multiplied, divisor, site))
    return moved


def best_divisor(seen: TensorStatistics, matrices: Sequence[Floats]) -> Floats | None:
    """Of the strengths that are tried, the divisor whose rounded products err least; None: as they are is best.

    Args:
        seen: statistics of the activations, with sampled rows (n, channels).
        matrices: (channels, outputs) of each product that reads them.
    """
    peaks = np.maximum(seen.channel_peaks, np.finfo(np.float32).tiny)
    weights = np.maximum(np.max([np.abs(matrix).max(axis=1) for matrix in matrices], axis=0), 1e-6)
    best, least = None, _product_error(seen, matrices, None)
    for strength in STRENGTHS:
        divisor = (peaks**strength / weights ** (1 - strength)).astype(np.float32)
        divisor /= np.exp(np.log(divisor).mean())  # as large on the whole as before
        divisor = np.clip(divisor, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
        divisor[seen.channel_peaks == 0] = 1.0  # a dead channel says nothing
        error = _product_error(seen, matrices, divisor)
        if error < least:
            best, least = divisor, error
    return best


def _product_error(seen: TensorStatistics, matrices: Sequence[Floats], divisor: Floats | None) -> float:
    rows = seen.rows if divisor is None else seen.rows / divisor
    scale = activation_scale(seen, np.ones(rows.shape[1], np.float32) if divisor is None else divisor)
    rounded = np.clip(np.rint(rows / scale), -INT8_LIMIT, INT8_LIMIT) * scale
    total = 0.0
    for matrix in matrices:
        scaled = matrix if divisor is None else matrix * divisor[:, None]
        difference = rounded @ round_channels(scaled).floats() - seen.rows @ matrix
        total += float(np.square(difference).sum())
    return total


def _divisible(graph: StageGraph, activations: str) -> tuple[str, ...]:
    """The initializers that can take a divisor for these activations; none: it cannot be folded."""
    node = graph.producer(activations)
    while node is not None and node.op_type in PASSED:
        node = graph.producer(node.input[0]) if len(graph.consumers(node.input[0])) == 1 else None
    if node is None:
        return ()
    if node.op_type in NORMS:
        names = tuple(name for name in node.input[1:] if name)
        return names if all(graph.tensor(name) is not None for name in names) else ()
    if node.op_type == "Mul":
        for name in reversed(node.input):
            factor = graph.producer(name)
            if factor is not None and factor.op_type == "MatMul" and graph.tensor(factor.input[1]) is not None:
                return (factor.input[1],) if len(graph.consumers(name)) == 1 else ()
    return ()


def _read_once(graph: StageGraph, name: str) -> bool:
    return len(graph.consumers(name)) == 1


def _divided(divisor: Floats, values: Array) -> Array:
    return np.asarray((values / divisor).astype(values.dtype))


def _multiplied(divisor: Floats, site: WeightSite, values: Array) -> Array:
    scaled = site.matrix(values) * divisor[:, None]
    return np.asarray(site.from_matrix(scaled)).astype(values.dtype)
