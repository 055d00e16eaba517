"""A stage's weights in groups that are used together: what is kept in floating point, or not, as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from sottovoce.calibration.quantization.graph import StageGraph
from sottovoce.calibration.quantization.plan import PrecisionPlan
from sottovoce.calibration.quantization.sites import weight_sites
from sottovoce.calibration.quantization.stage_quantizer import holds_integers
from sottovoce.runtime.bundle import Bundle
from sottovoce.runtime.manifest import STAGES, StageName

TEXT_STAGES: tuple[StageName, ...] = ("audio_encoder", "vision_encoder", "language_model")
"""What a reply's text goes through; the others only speak it."""


@dataclass(frozen=True)
class Layer:
    """Weights whose modules have one parent: a decoder's `layers.0.self_attn`, the `head`, a codec's block.

    Args:
        weights: names of the initializers that would become integers, in the order in which they are used.
    """

    stage: StageName
    name: str
    weights: tuple[str, ...]

    @property
    def speaks(self) -> bool:
        """Whether it comes after the text, so that no measure of answers can see it."""
        return self.stage not in TEXT_STAGES


def planned_layers(bundle: Bundle, plan: PrecisionPlan) -> list[Layer]:
    """The layers of all stages that the plan makes integers of, in the order in which they are computed.

    Raises:
        BundleError: a graph cannot be read.
    """
    changed = [stage for stage in STAGES if stage in plan.stages and _is_integer(plan, stage)]
    return [layer for stage in changed for layer in stage_layers(StageGraph(bundle, stage))]


def stage_layers(graph: StageGraph) -> list[Layer]:
    """The layers of one graph."""
    paths = _module_paths(graph)
    groups: dict[str, list[str]] = {}
    for site in weight_sites(graph):
        if holds_integers(site):
            groups.setdefault(layer_name(paths.get(site.name, graph.stage)), []).append(site.name)
    return [Layer(graph.stage, name, tuple(weights)) for name, weights in groups.items()]


def layer_name(path: str) -> str:
    """The parent of the module that a parameter is of: `layers.0.mlp.up_proj.weight` → `layers.0.mlp`.

    A module without a parent is a layer of its own: `head.weight` → `head`.
    """
    parts = path.split(".")
    return ".".join(parts[:-2] or parts[:1])


def _module_paths(graph: StageGraph) -> dict[str, str]:
    """A parameter's path for every weight of a product.

    Tracing turns a Linear's transposed weight into a constant without a name (`val_51`). Such a one gets the path of
    the bias that is added to its product, or, without one, of the last parameter used before it: a norm's.
    """
    paths: dict[str, str] = {}
    last = graph.stage
    for node in graph.nodes:
        for name in node.input:
            if graph.tensor(name) is None or name in paths:
                continue
            paths[name] = name if "." in name else _bias(graph, node.output[0]) or last
        last = next((name for name in node.input if "." in name and graph.tensor(name) is not None), last)
    return paths


def _bias(graph: StageGraph, product: str) -> str | None:
    readers = [node for node, _ in graph.consumers(product)]
    if len(readers) != 1 or readers[0].op_type != "Add":
        return None
    return next((name for name in readers[0].input if "." in name and graph.tensor(name) is not None), None)


def _is_integer(plan: PrecisionPlan, stage: StageName) -> bool:
    precision = plan.stages[stage].precision
    return precision is not None and precision.startswith("int")
