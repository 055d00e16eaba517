"""Range, scale or op: what made a value leave its tolerance, decided by recomputing it and what it is made of.

From the value the error is followed upstream, each time into the input that carries most of it, to the place where it
comes in:

- *range*: most of the rounding error there is of values beyond what the scale holds;
- *scale*: next to nothing is clipped, and the step is coarse for most values;
- *op*: with the inputs that it has, the reference's operator gives in float64 what it should, and the engine's result
  is another: the graph says something else there, or a kernel or fusion of the engine is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from sottovoce.calibration.divergence import wording
from sottovoce.calibration.divergence.call_values import CallValues
from sottovoce.calibration.divergence.causes import Cause, CauseFinder, NodeErrors
from sottovoce.calibration.divergence.difference import relative_error
from sottovoce.calibration.divergence.graph_pair import GraphPair, Operand
from sottovoce.calibration.divergence.recompute import recompute
from sottovoce.calibration.divergence.rounding_noise import RoundingNoise, rounding_noise
from sottovoce.calibration.divergence.stage_calls import StageCall
from sottovoce.calibration.divergence.stored_values import other_axes
from sottovoce.calibration.divergence.verdict import Verdict
from sottovoce.calibration.quantization.rounding import INT4_HIGHEST, INT4_LOWEST, INT8_LIMIT

ENGINE_BARS = {"fp32": 1e-3, "fp16": 5e-3}
"""How far an engine's result may be from float64's: sums in another order; float16 has steps of 0.0005."""
INTEGER_ENGINE_BAR = 0.03
"""The same where weights are integers: ONNX Runtime's kernel then rounds the other factor to 8 bits, block by block."""
MOST_NODES = 400
"""An error is followed through no more nodes than this."""
HALF_LARGEST = float(np.finfo(np.float16).max)


class BlameFinder:
    """Follows errors of one stage at one call.

    Args:
        pair: the two graphs.
        calls: all calls of the stage up to the one in question.
    """

    def __init__(self, pair: GraphPair, calls: Sequence[StageCall]) -> None:
        self._pair = pair
        self._call = calls[-1]
        self._values = CallValues(pair, calls)
        self._causes = CauseFinder(pair, self._values)
        spec = pair.found.graph.spec
        self._bar = INTEGER_ENGINE_BAR if spec.has_integer_weights else ENGINE_BARS[spec.floats]

    def find(self, name: str) -> Verdict:
        """What made the value `name` leave its tolerance."""
        place, largest = name, None
        for _ in range(MOST_NODES):
            errors = self._causes.errors_at(place)
            if errors is None:
                break
            worst = errors.causes[0] if errors.causes else None
            if self._is_the_op(errors, worst):
                return self._op(errors)
            roundings = [cause for cause in errors.causes if cause.kind != "inherited"]
            if roundings and (largest is None or roundings[0].share > largest.share):
                largest = roundings[0]
            if worst is None or worst.kind != "inherited":
                break
            place = worst.operand.base
        return wording.unexplained(name) if largest is None else self._rounding(largest)

    def _is_the_op(self, errors: NodeErrors, worst: Cause | None) -> bool:
        if errors.engine is None or errors.engine <= self._bar:
            return False
        return worst is None or errors.engine >= worst.share

    def _op(self, errors: NodeErrors) -> Verdict:
        maker = self._pair.found.producers.get(errors.name)
        half = maker is not None and self._values.found(errors.name).dtype == np.float16
        largest = float(np.abs(self._values.reference(errors.name)).max(initial=0.0))
        if half and largest > HALF_LARGEST:
            return wording.beyond_half(errors.name, largest)
        own = None if maker is None else self._own_result(maker, errors.name)
        return wording.op(errors, self._pair.found.graph.spec, own is not None and own <= self._bar)

    def _own_result(self, maker: onnx.NodeProto, name: str) -> float | None:
        """How far the engine's result is from what the smaller graph's own node gives for its inputs."""
        maker = self._pair.found.attention.get(name, maker)
        arrays = [self._operand_array(value) if value else None for value in maker.input]
        result = recompute(maker, name, arrays, self._pair.found.graph.opset)
        return None if result is None else relative_error(result, self._values.found(name))

    def _operand_array(self, value: str) -> Any:
        operand = self._pair.operand(value)
        is_stored = operand is not None and operand.base in self._pair.found.stored.names
        if operand is not None and operand.dequantize is not None and is_stored:
            return self._pair.found.stored.dequantized(operand.dequantize)
        buffer = self._pair.found.cache_dequantized(value)
        if buffer is not None:
            return self._values.found(value) * self._pair.found.stored.read(buffer.input[1])
        return self._values.found(value)

    def _rounding(self, cause: Cause) -> Verdict:
        operand = cause.operand
        if cause.kind == "activation":
            return wording.activation(operand.base, self._activation_noise(operand), cause.share)
        if cause.kind == "cache":
            return wording.cache(operand.base, self._cache_noise(operand), cause.share)
        if operand.dequantize is None:
            return self._stored_floats(operand.base, cause.share)
        return self._integer_weight(operand, operand.dequantize, cause.share)

    def _activation_noise(self, operand: Operand) -> RoundingNoise:
        assert operand.dequantize is not None and operand.rounded is not None  # noqa: S101, PT018  # it is rounded
        quantize = self._pair.found.producers[operand.dequantize.input[0]]
        before = self._values.found(operand.rounded)
        steps = self._pair.found.stored.steps(quantize, before.shape)
        return rounding_noise(before, steps, (-INT8_LIMIT, INT8_LIMIT), self._values.found(operand.name))

    def _cache_noise(self, operand: Operand) -> RoundingNoise:
        length = self._call.cached + self._call.positions
        steps = self._pair.found.stored.read(f"{operand.base}.scale").astype(np.float64)
        before = self._values.reference(operand.base)[:, :, :length]
        after = self._values.found(operand.name)[:, :, :length].astype(np.float64) * steps
        return rounding_noise(before, steps, (-INT8_LIMIT, INT8_LIMIT), after)

    def _integer_weight(self, operand: Operand, node: onnx.NodeProto, share: float) -> Verdict:
        stored, name = self._pair.found.stored, operand.base
        expected, integers = self._pair.expected_weight(name), stored.read(name)
        if expected.shape != integers.shape:
            return wording.other_weights(name, share)
        four_bits = self._is_four_bits(name)
        limits = (INT4_LOWEST, INT4_HIGHEST) if four_bits else (-INT8_LIMIT, INT8_LIMIT)
        real = stored.dequantized(node)
        noise = rounding_noise(expected, stored.steps(node, integers.shape), limits, real)
        if not noise.fits:
            for axis in other_axes(node, integers.shape, stored.read(node.input[1]).size):
                turned = float(np.square(stored.dequantized(node, axis) - expected).sum())
                if turned * 16 < noise.real_noise:
                    return wording.wrong_axis(name, node, axis, relative_error(expected, real))
        return wording.weight(name, noise, share, self._pair.found.graph.spec)

    def _is_four_bits(self, name: str) -> bool:
        tensor = self._pair.found.graph.tensor(name)
        return tensor is not None and tensor.data_type == onnx.TensorProto.INT4

    def _stored_floats(self, name: str, share: float) -> Verdict:
        """A weight that is no integer, and is not the reference's."""
        if name in self._pair.found.stored.names and self._pair.found.stored.read(name).dtype == np.float16:
            largest = float(np.abs(self._pair.expected_weight(name)).max(initial=0.0))
            return wording.beyond_half(name, largest) if largest > HALF_LARGEST else wording.half_weight(name, share)
        return wording.other_weights(name, share)
