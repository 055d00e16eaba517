"""Where one value's error comes from: the node that computes it, again in float64, with one input after another mended.

The reference's operator is applied to what the smaller graph has: its own inputs, rounded as they are there. That is
what the engine should have given. Then each input is put right in turn (a weight as it was before rounding, an
activation as it was before its QuantizeLinear, an inherited value as the reference has it): the more that changes the
result, the more this input is to blame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from sottovoce.calibration.divergence.call_values import CallValues
from sottovoce.calibration.divergence.difference import relative_error
from sottovoce.calibration.divergence.graph_pair import GraphPair, Operand
from sottovoce.calibration.divergence.recompute import recompute
from sottovoce.calibration.quantization.cache_precision import update_place

Array = npt.NDArray[Any]
CauseKind = Literal["activation", "weight", "cache", "inherited"]


@dataclass(frozen=True)
class Cause:
    """One input of a node, and how much of the node's error is due to it.

    Args:
        kind: a rounded activation, a weight, a cache in integers, or a value that was wrong before.
        operand: what the smaller graph reads there.
        share: what mending it changes in the result, as a relative error.
    """

    kind: CauseKind
    operand: Operand
    share: float


@dataclass(frozen=True)
class NodeErrors:
    """The errors at one value.

    Args:
        name: of the value.
        expected: the reference's node, by its operator.
        found: the operator that computes the value in the smaller graph; None: nothing does.
        carried: relative error that the inputs, as they are in the smaller graph, explain.
        engine: relative error of the engine's result against the same inputs in float64; None: not recomputed.
        causes: the inputs, worst first.
    """

    name: str
    expected: str
    found: str | None
    carried: float
    engine: float | None
    causes: tuple[Cause, ...]


class CauseFinder:
    """Takes values of one stage apart.

    Args:
        pair: the two graphs.
        values: what they have at the call in question.
    """

    def __init__(self, pair: GraphPair, values: CallValues) -> None:
        self._pair = pair
        self._values = values

    def errors_at(self, name: str) -> NodeErrors | None:
        """Take the node apart that computes `name`; None for a graph's input."""
        node = self._pair.reference.computed_by(name)
        if node is None:
            return None
        maker = self._pair.found.producers.get(name)
        found_op = None if maker is None else maker.op_type
        written_from = update_place(node, name)
        if written_from is not None:
            update = self._operands(node, name)[written_from]
            written = [] if update is None else [Cause("inherited", update, np.inf)]
            return NodeErrors(name, node.op_type, found_op, np.inf, None, tuple(written))
        operands = self._operands(node, name)
        arrays = [self._array(base, operand) for base, operand in zip(node.input, operands, strict=True)]
        result = self._result(node, name, arrays)
        if result is None:
            unknown = tuple(Cause("inherited", operand, 0.0) for operand in operands if operand is not None)
            return NodeErrors(name, node.op_type, found_op, np.inf, None, unknown)
        expected = self._values.reference(name)
        engine = np.inf if maker is None else self._against(expected, result, self._in_reference_units(name))
        causes = self._causes(node, name, operands, arrays)
        return NodeErrors(name, node.op_type, found_op, relative_error(expected, result), engine, causes)

    def _causes(
        self, node: onnx.NodeProto, name: str, operands: Sequence[Operand | None], arrays: Sequence[Array | None]
    ) -> tuple[Cause, ...]:
        expected, whole = self._values.reference(name), self._result(node, name, arrays)
        causes = []
        for place, operand in enumerate(operands):
            if operand is None:
                continue
            for kind, better, worse in self._mended(operand, arrays[place]):
                now = whole if worse is arrays[place] else self._result(node, name, _put(arrays, place, worse))
                then = self._result(node, name, _put(arrays, place, better))
                if now is not None and then is not None:
                    causes.append(Cause(kind, operand, self._against(expected, now, then)))
        return tuple(sorted(causes, key=lambda cause: -cause.share))

    def _mended(self, operand: Operand, array: Array | None) -> list[tuple[CauseKind, Array, Array | None]]:
        """What to put in an input's place, and of what; a rounded activation may have been wrong before, too."""
        if operand.rounded is not None:
            before = self._values.found(operand.rounded)
            return [("activation", before, array), ("inherited", self._inherited(operand), before)]
        if operand.base in self._pair.reference.stored.names:
            return [("weight", self._pair.expected_weight(operand.base), array)]
        kind: CauseKind = "inherited" if operand.dequantize is None else "cache"
        return [(kind, self._inherited(operand), array)]

    def _operands(self, node: onnx.NodeProto, name: str) -> list[Operand | None]:
        """For each input of the reference's node what the smaller graph reads in its place; None: nothing."""
        maker = self._pair.found.producers.get(name)
        read = [] if maker is None else [self._pair.operand(value) for value in maker.input if value]
        by_base = {operand.base: operand for operand in read if operand is not None}
        return [by_base.get(base) or self._namesake(base) for base in node.input]

    def _namesake(self, base: str) -> Operand | None:
        """Where the smaller graph's node does not read it, but the graph has it all the same."""
        if not base or base not in self._pair.found.names:
            return None
        for node in self._pair.found.graph.nodes:
            if node.op_type == "DequantizeLinear" and node.input[0] == base:
                return Operand(node.output[0], base, node)
        return Operand(base, base, self._pair.found.cache_dequantized(base))

    def _array(self, base: str, operand: Operand | None) -> Array | None:
        if not base:
            return None
        if operand is None:
            return self._missing(base)
        if operand.dequantize is not None and operand.base in self._pair.found.stored.names:
            return self._pair.found.stored.dequantized(operand.dequantize)
        values = self._values.found(operand.name)
        if operand.is_read_as_integers and operand.dequantize is not None:
            return np.asarray(values * self._pair.found.stored.read(operand.dequantize.input[1]))
        return values

    def _missing(self, base: str) -> Array:
        """What the smaller graph does not have: computed as the reference does it, from what the smaller graph has."""
        node = self._pair.reference.computed_by(base)
        if node is None or update_place(node, base) is not None:
            return self._values.reference(base)
        arrays = [
            self._array(name, operand) for name, operand in zip(node.input, self._operands(node, base), strict=True)
        ]
        result = recompute(node, base, arrays, self._pair.reference.graph.opset)
        return self._values.reference(base) if result is None else result

    def _inherited(self, operand: Operand) -> Array:
        """The reference's value as the smaller graph would read it, unrounded."""
        values = self._values.reference(operand.base)
        if not np.issubdtype(values.dtype, np.floating):
            return values
        if operand.dequantize is not None and operand.rounded is None and not operand.is_read_as_integers:
            scale = f"{operand.base}.scale"  # of a cache in integers, which holds steps
            return values / self._pair.found.stored.read(scale) if scale in self._pair.found.stored.names else values
        values = self._pair.in_found_units(operand.base, values)
        return values if operand.factor is None else values * operand.factor

    def _result(self, node: onnx.NodeProto, name: str, arrays: Sequence[Array | None]) -> Array | None:
        """The reference's operator on these inputs, in the reference's units."""
        result = recompute(node, name, arrays, self._pair.reference.graph.opset)
        return None if result is None else self._pair.in_reference_units(name, result)

    def _in_reference_units(self, name: str) -> Array:
        return self._pair.in_reference_units(name, self._values.found(name))

    @staticmethod
    def _against(reference: Array, first: Array, second: Array) -> float:
        """Root mean square of the difference of two results, as a share of the reference's."""
        if not first.shape == second.shape == reference.shape:
            return np.inf
        return relative_error(reference, reference + (second.astype(np.float64) - first))


def _put(arrays: Sequence[Array | None], place: int, values: Array | None) -> list[Array | None]:
    return [values if number == place else array for number, array in enumerate(arrays)]
