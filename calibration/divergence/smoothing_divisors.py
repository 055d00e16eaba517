"""By what smoothing divided activations, read off the two graphs themselves.

A smoothed stage holds `norm.weight / divisor` and `weight × divisor`: the values between them differ from the
reference's, and rightly so. The divisor follows from the first of these. It is undone before values are compared; if
the weights did not make up for it, the product behind would show it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from sottovoce.calibration.divergence.stored_values import StoredValues
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.sites import WeightSite, weight_sites
from sottovoce.calibration.quantization.smoothing import SmoothingGroup, smoothing_groups

Array = npt.NDArray[Any]
Wide = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SmoothingDivisors:
    """What the smoothed values and weights of a graph are multiplied with, against the reference's.

    Args:
        values: (channels,) divisors by name of value: the reference's value is the found one × divisor, channel by
            channel (its last axis).
        weights: factors by name of weight, to be broadcast: the found weight is the reference's × factor.
    """

    values: dict[str, Wide] = field(default_factory=dict)
    weights: dict[str, Wide] = field(default_factory=dict)


def smoothing_divisors(
    reference: StageGraph, found: StageGraph, reference_values: StoredValues, found_values: StoredValues
) -> SmoothingDivisors:
    """The divisors of all groups that are smoothed in `found`; none where its record says there are none.

    A group counts as smoothed where the weights of its products follow the divisor better than they follow none.
    """
    divisors = SmoothingDivisors()
    if found.spec.quantization is None or found.spec.quantization.smoothed == 0:
        return divisors
    pairs = _WeightPairs(found, reference_values, found_values, divisors.weights)
    for group in smoothing_groups(reference, weight_sites(reference)):
        divisor = _divisor(group, pairs)
        if divisor is None or not _is_made_up_for(divisor, group, pairs):
            continue
        for name in _divided_values(reference, group):
            divisors.values[name] = divisor
        factors = [(name, 1 / divisor) for name in group.divided]
        for site in group.sites:
            by_row = np.broadcast_to(divisor[:, None], (len(divisor), site.shape[site.output_axis]))
            factors.append((site.name, np.asarray(site.from_matrix(by_row))))
        for name, factor in factors:
            divisors.weights[name] = divisors.weights.get(name, np.ones(())) * factor
    return divisors


@dataclass(frozen=True)
class _WeightPairs:
    """A weight of both graphs: the reference's with what is known of its smoothing, the found one dequantized."""

    found_graph: StageGraph
    reference: StoredValues
    found: StoredValues
    factors: dict[str, Wide]

    def read(self, name: str) -> tuple[Wide, Wide] | None:
        if name not in self.found.names:
            return None
        before = self.reference.read(name).astype(np.float64) * self.factors.get(name, np.ones(()))
        readers = [node for node, _ in self.found_graph.consumers(name)]
        if readers and readers[0].op_type == "DequantizeLinear":
            after = self.found.dequantized(readers[0])
        else:
            after = self.found.read(name).astype(np.float64)
        return (before, after) if before.shape == after.shape else None


def _divisor(group: SmoothingGroup, pairs: _WeightPairs) -> Wide | None:
    """Of the weight whose last axis was divided: of a norm's vector exactly, of a matrix by least squares."""
    pair = pairs.read(group.divided[0])
    if pair is None:
        return None
    before, after = (values.reshape(-1, values.shape[-1]) for values in pair)
    products, squares = (before * after).sum(axis=0), np.square(before).sum(axis=0)
    return np.where(products > 0, squares / np.where(products > 0, products, 1.0), 1.0)


def _is_made_up_for(divisor: Wide, group: SmoothingGroup, pairs: _WeightPairs) -> bool:
    votes = [_deviation(divisor, site, pairs) <= _deviation(np.ones_like(divisor), site, pairs) for site in group.sites]
    return 2 * sum(votes) >= len(votes)


def _deviation(divisor: Wide, site: WeightSite, pairs: _WeightPairs) -> float:
    """How far the rows of a product's weight are from the reference's × divisor, but for a common factor."""
    pair = pairs.read(site.name)
    if pair is None:
        return np.inf
    before, after = (np.moveaxis(values, site.output_axis, -1).reshape(len(divisor), -1) for values in pair)
    squares = np.square(before).sum(axis=1) * divisor
    ratios = (before * after).sum(axis=1)[squares > 0] / squares[squares > 0]
    middle = float(np.median(ratios)) if ratios.size else 0.0
    return float(np.median(np.abs(ratios / middle - 1))) if middle else np.inf


def _divided_values(reference: StageGraph, group: SmoothingGroup) -> list[str]:
    """The values from the node that reads the divided weight to the activations."""
    names = [group.activations]
    while (node := reference.producer(names[-1])) is not None and group.divided[0] not in node.input:
        inside = next((name for name in node.input if _reads(reference.producer(name), group)), None)
        names.append(node.input[0] if inside is None else inside)
    return names


def _reads(node: onnx.NodeProto | None, group: SmoothingGroup) -> bool:
    return node is not None and group.divided[0] in node.input
