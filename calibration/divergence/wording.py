"""Findings in words: what was found, what was expected, and what to do about it."""

from __future__ import annotations

import onnx
import onnxruntime

from sottovoce.calibration.divergence.causes import NodeErrors
from sottovoce.calibration.divergence.rounding_noise import RoundingNoise
from sottovoce.calibration.divergence.verdict import Blame, Verdict
from sottovoce.calibration.quantization.sites import attribute
from sottovoce.runtime.manifest import GraphSpec

COARSE = 2.0
"""A step that is so many times what the largest value needs is too large; one that is not, is as good as 8 bits get."""
LARGER_TYPE = "or keep this stage in fp16"


def activation(name: str, noise: RoundingNoise, share: float) -> Verdict:
    """An activation's scale does not suit what comes by."""
    blame = _blame(noise)
    if blame == "range":
        advice = (
            "calibrate on data that holds such values, and quantize again with these ranges; or take int8-weights for "
            "this stage, whose activations stay in floating point"
        )
    elif noise.step > COARSE * noise.finest:
        advice = "the ranges are of other data than this: calibrate on data like this, and quantize again"
    else:
        advice = f"a few large values set the step of all: take int8-weights for this stage, {LARGER_TYPE}"
    return _rounded(name, "activation", noise, share, advice)


def cache(name: str, noise: RoundingNoise, share: float) -> Verdict:
    """A cache's scales do not suit its keys or values."""
    advice = "calibrate on data like this, and quantize again; or take kv_cache=fp16"
    return _rounded(name, "cache", noise, share, advice)


def weight(name: str, noise: RoundingNoise, share: float, spec: GraphSpec) -> Verdict:
    """A weight's scales do not suit it."""
    blame, block = _blame(noise), None if spec.quantization is None else spec.quantization.block_size
    if noise.step > COARSE * noise.finest or blame == "range" or not noise.fits:
        advice = "the scales are not those of this weight: quantize again from the bundle given with --against"
    elif block is not None and block > 32:
        advice = f"a step for {block} weights is too coarse: take int4-weights:32 for this stage"
    elif spec.precision == "int4-weights":
        advice = "4 bits are too few for this weight: take int8-weights for this stage"
    else:
        advice = "8 bits are too few for this weight: keep this stage in fp16"
    return _rounded(name, "weight", noise, share, advice)


def wrong_axis(name: str, node: onnx.NodeProto, axis: int, error: float) -> Verdict:
    """The scales of a weight run along another axis than the one they were made for."""
    own = int(attribute(node, "axis", 1))
    reason = (
        f"the weight {name!r} is dequantized along axis {own} and is then {100 * error:.0f} % off; along axis {axis} "
        "its integers and scales give the reference's weight"
    )
    advice = "the graph was changed after quantization: quantize again from the bundle given with --against"
    return Verdict("op", name, reason, advice, {"axis": own, "axis_expected": axis, "weight_error": error})


def op(errors: NodeErrors, spec: GraphSpec, is_what_the_graph_says: bool) -> Verdict:
    """The operator's result is not what its inputs give."""
    numbers = {
        "operator": errors.found,
        "operator_expected": errors.expected,
        "recomputed_error": errors.carried,
        "engine_error": errors.engine,
    }
    reason = (
        f"{errors.expected} of the inputs that it has gives {errors.name!r} to within {100 * errors.carried:.2g} % in "
        f"float64; the engine's result is {100 * (errors.engine or 0.0):.2g} % off"
    )
    if is_what_the_graph_says:
        other = "other inputs or attributes" if errors.found == errors.expected else str(errors.found)
        reason += f", as {spec.file} says, which has {other} there"
        advice = "the graph was changed after quantization: quantize again from the bundle given with --against"
    else:
        advice = (
            f"a kernel or fusion of ONNX Runtime {onnxruntime.__version__} is wrong for this graph: try another "
            "version, and report it with this finding"
        )
    return Verdict("op", errors.name, reason, advice, numbers)


def fusion(name: str, error: float, error_when_watched: float) -> Verdict:
    """A stage's result is right while its inner values are looked at, and wrong when they are not."""
    reason = (
        f"{name!r} is {100 * error:.2g} % off as the engine computes the stage, and {100 * error_when_watched:.2g} % "
        "when each inner value is looked at, which keeps operators from being fused"
    )
    advice = f"a fusion of ONNX Runtime {onnxruntime.__version__} is wrong: try another version, and report it"
    return Verdict("op", name, reason, advice, {"engine_error": error, "recomputed_error": error_when_watched})


def table(name: str, dtype: str, error: float) -> Verdict:
    """Rows of an embedding table are not the reference's."""
    reason = f"rows of {name!r}, stored as {dtype}, are {100 * error:.2g} % off"
    if dtype == "float32":
        advice = "these are other embeddings: quantize again from the bundle given with --against"
        return Verdict("op", name, reason, advice, {"table_error": error})
    advice = "one step for a whole row is too coarse, or was changed: quantize again; or keep the table's stage in fp16"
    return Verdict("scale", name, reason, advice, {"table_error": error})


def beyond_half(name: str, largest: float) -> Verdict:
    """A value that float16 cannot hold."""
    reason = f"the largest value of {name!r} is {largest:.3g}, and float16 ends at 65504"
    return Verdict("range", name, reason, "keep this stage in fp32", {"largest": largest, "holds": 65504.0})


def half_weight(name: str, share: float) -> Verdict:
    """A weight whose steps in float16 are too coarse for the tolerance."""
    reason = f"the weight {name!r} in float16 makes an error of {100 * share:.2g} %: its step is 1/2048 of each value"
    return Verdict("scale", name, reason, "allow more with --tolerance, or keep this stage in fp32", {"share": share})


def other_weights(name: str, share: float) -> Verdict:
    """A weight that is stored in floating point, or in another shape, and is not the reference's."""
    change = f"they change the result by {100 * share:.2g} %"
    reason = f"{name!r} holds other weights than the reference, and no rounded ones: {change}"
    advice = "the graph was changed: quantize again from the bundle given with --against"
    return Verdict("op", name, reason, advice, {"share": share})


def unexplained(name: str) -> Verdict:
    """Nothing that could be recomputed explains the error."""
    reason = f"no rounded input of {name!r}, nor any before it, explains its error, and no operator could be recomputed"
    return Verdict("op", name, reason, "report this with both bundles", {})


def _blame(noise: RoundingNoise) -> Blame:
    return "range" if noise.is_clipping and noise.fits else "scale"


def _rounded(at: str, kind: str, noise: RoundingNoise, share: float, advice: str) -> Verdict:
    blame, what = _blame(noise), f"the {kind} {at!r}"
    if blame == "range":
        reason = (
            f"{100 * noise.clipped / max(noise.count, 1):.2g} % of {what} is clipped: its largest value is "
            f"{noise.largest:.3g}, its scale holds {noise.holds:.3g}"
        )
    elif noise.fits:
        ratio = noise.step / noise.rms if noise.rms else 0.0
        reason = (
            f"the step of {what} is {noise.step:.3g}, {ratio:.2g} × the root mean square of its values; their largest "
            f"needs {noise.finest:.3g}"
        )
    else:
        reason = f"{what} is not what rounding with its step of {noise.step:.3g} gives: integers and scales do not fit"
    return Verdict(blame, at, reason, advice, {"share": share, **noise.as_json()})
