"""Two graphs of one stage, value by value: which values both have, and in which units the smaller one has them.

Quantization keeps the names of values, so a value is paired with its namesake. Two things change a value's units and
not its meaning: smoothing divides channels, and an int8 cache holds steps, so that attention's result is in steps, too.
These factors are undone before values are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from sottovoce.calibration.bundles.grouped_attention import cache_scale, is_grouped_attention, over_presents
from sottovoce.calibration.divergence.smoothing_divisors import SmoothingDivisors, smoothing_divisors
from sottovoce.calibration.divergence.stored_values import StoredValues
from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import StageName

Array = npt.NDArray[Any]
Wide = npt.NDArray[np.float64]
CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast", "Mul", "Div"})
"""What quantization puts between a value and its readers."""


class GraphSide:
    """One of the two graphs: its nodes by what they compute, and its constants."""

    def __init__(self, bundle: Bundle, stage: StageName) -> None:
        self.bundle = bundle
        self.graph = StageGraph(bundle, stage)
        self.stored = StoredValues(bundle, self.graph)
        self.producers = {name: node for node in self.graph.nodes for name in node.output if name}
        attending = [node for node in self.graph.nodes if is_grouped_attention(node)]
        self.attention = {node.output[0]: over_presents(node) for node in attending}
        """Where one node writes the cache and attends over it: the attention alone, by its result."""
        self.inputs = frozenset(tensor.name for tensor in self.graph.spec.inputs)

    def computed_by(self, name: str) -> onnx.NodeProto | None:
        """The node that computes a value, from what there is when it has run; None for what is given."""
        return self.attention.get(name) or self.producers.get(name)

    def cache_dequantized(self, present: str) -> onnx.NodeProto | None:
        """What a DequantizeLinear would be for a buffer in integers that attention reads as it is; None: it is none."""
        node = self.producers.get(present)
        scale = None if node is None else cache_scale(node, present)
        if scale is None:
            return None
        return onnx.helper.make_node("DequantizeLinear", [present, scale], [present])

    @property
    def names(self) -> frozenset[str]:
        """All values: computed, constant, and given."""
        return frozenset(self.producers) | self.stored.names | self.inputs


@dataclass(frozen=True)
class Operand:
    """What a node of the smaller graph reads, and what it stands for in the reference.

    Args:
        name: of the value that is read.
        base: its name in the reference.
        dequantize: the DequantizeLinear that it comes out of, if it was rounded to integers.
        rounded: the value that goes into the QuantizeLinear before; None for weights and caches.
        factor: what the base's values are multiplied with on the way; None: nothing.
    """

    name: str
    base: str
    dequantize: onnx.NodeProto | None = None
    rounded: str | None = None
    factor: Wide | None = None

    @property
    def is_read_as_integers(self) -> bool:
        """Whether no node stands between: the reader itself multiplies with the scale."""
        return self.dequantize is not None and self.name == self.base


class GraphPair:
    """A stage of the reference and of the bundle made from it.

    Args:
        reference: the bundle in floating point.
        found: the smaller one.
        stage: which graph.
    """

    def __init__(self, reference: Bundle, found: Bundle, stage: StageName) -> None:
        self.stage = stage
        self.reference, self.found = GraphSide(reference, stage), GraphSide(found, stage)
        self._names = self.reference.names
        self.smoothing: SmoothingDivisors = smoothing_divisors(
            self.reference.graph, self.found.graph, self.reference.stored, self.found.stored
        )
        self._units: dict[str, Wide] = {**self.smoothing.values, **self._attention_units()}
        presents = {t.name for t in self.reference.graph.spec.outputs if t.role.startswith("present_")}
        common = [name for name in self.reference.producers if name in self.found.producers and name not in presents]
        self.is_aligned = found.manifest.quantization is not None or self._has_same_nodes()
        outputs = {tensor.name for tensor in self.reference.graph.spec.outputs}
        self.shared: tuple[str, ...] = tuple(name for name in common if self.is_aligned or name in outputs)
        """Values to compare, in the order in which they are computed."""

    def in_reference_units(self, name: str, values: Array) -> Array:
        """The found graph's values of `name` as the reference has them."""
        unit = self._units.get(name)
        return values if unit is None else values.astype(np.float64) * unit

    def in_found_units(self, name: str, values: Array) -> Array:
        """The reverse."""
        unit = self._units.get(name)
        return values if unit is None else values.astype(np.float64) / unit

    def operand(self, name: str) -> Operand | None:
        """What a value of the found graph stands for; None: for nothing that the reference has."""
        place, dequantize, rounded, factor = name, None, None, None
        while place not in self._names:
            node = self.found.producers.get(place)
            if node is None or node.op_type not in CONVERSIONS:
                return None
            if node.op_type == "DequantizeLinear":
                dequantize = node
            elif node.op_type == "QuantizeLinear":
                rounded = node.input[0]
            elif node.op_type in ("Mul", "Div"):
                if node.input[1] not in self.found.stored.names:
                    return None
                constant = self.found.stored.read(node.input[1]).astype(np.float64)
                factor = (1.0 if factor is None else factor) * (constant if node.op_type == "Mul" else 1 / constant)
            place = node.input[0]
        return Operand(name, place, dequantize, rounded, factor)

    def expected_weight(self, name: str) -> Wide:
        """A constant of the reference, as the found graph should have it: smoothed, and not rounded."""
        values = self.reference.stored.read(name).astype(np.float64)
        factor = self.smoothing.weights.get(name)
        return values if factor is None else values * factor

    def _attention_units(self) -> dict[str, Wide]:
        """Of an attention over an int8 cache the result is in steps; a Mul behind it brings it back."""
        units = {}
        for node in self.found.graph.nodes:
            if node.op_type == "Mul" and node.output[0] not in self._names and len(node.input) == 2:
                value, factor = node.input
                maker = self.found.producers.get(value)
                if maker is not None and maker.op_type == "Attention" and factor in self.found.stored.names:
                    units[value] = self.found.stored.read(factor).astype(np.float64)
        return units

    def _has_same_nodes(self) -> bool:
        """Whether two graphs that were exported one by one name the same things alike; Casts come and go."""
        for name, node in self.reference.producers.items():
            other = self.found.producers.get(name)
            if other is None and node.op_type != "Cast":
                return False
            if other is not None and node.op_type != other.op_type and "Cast" not in (node.op_type, other.op_type):
                return False
        return True
