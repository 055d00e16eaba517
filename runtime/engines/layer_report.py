"""What became of a network's products in the engine, from the builder's own list of the layers that it made.

With detailed verbosity the builder lists each layer with its kind, the types of what it reads, and the graph's nodes
that it does the work of. A product counts as INT8 where the layer that does it reads both factors as INT8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sottovoce.runtime.engines.multiply_adds import CountedNetwork, Product
from sottovoce.runtime.engines.record import LayerReport

LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<inputs>.*)\], Outputs: \[.*?"
    r"(?:, Metadata: (?P<nodes>.*))?$"
)
DATATYPE = re.compile(r"(?:Datatype|Format/Datatype): (?P<type>[^,}\]]+)")
NODE = re.compile(r"ONNX Layer: (?P<node>[^\]\x1e]+)")
FACTORS = 2
MULTIPLYING = re.compile(r"gemm|matmul|matrix|conv|correlation|fc", re.IGNORECASE)
"""Kinds and names of layers that are a product first of all; others may have one fused in."""


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine: the graph's nodes that it stands for, and whether it reads INT8 factors."""

    name: str
    nodes: tuple[str, ...]
    multiplies: bool
    int8: bool


def engine_layers(messages: Iterable[str]) -> list[EngineLayer]:
    """The layers that the builder's log lists; none where it lists them in another way."""
    layers = []
    for message in messages:
        for line in message.split("\n"):  # nodes are parted by U+001E, at which `splitlines` would cut, too
            found = LAYER.match(line)
            if found is None:
                continue
            types = [match["type"].strip() for match in DATATYPE.finditer(found["inputs"])]
            nodes = tuple(match["node"] for match in NODE.finditer(found["nodes"] or ""))
            layers.append(
                EngineLayer(
                    found["name"],
                    nodes,
                    MULTIPLYING.search(f"{found['kind']} {found['name']}") is not None,
                    sum("int8" in kind.lower() for kind in types) >= FACTORS,
                )
            )
    return layers


def layer_report(counted: CountedNetwork, layers: list[EngineLayer]) -> LayerReport:
    """Sum up: the parser's view of each product, and the builder's."""
    products = counted.products
    total = sum(product.multiply_adds for product in products)
    whole = total + counted.attention_multiply_adds
    return LayerReport(
        layers=len(layers),
        int8_products=sum(product.int8 for product in products),
        products=len(products),
        int8_multiply_adds_share=_share(sum(p.multiply_adds for p in products if p.int8), total),
        fused_int8_multiply_adds_share=_fused_share(products, layers, total),
        attention_multiply_adds_share=_share(counted.attention_multiply_adds, whole),
    )


def _fused_share(products: Iterable[Product], layers: list[EngineLayer], total: int) -> float | None:
    if not layers:
        return None
    done_by = _layers_of_nodes(layers)
    int8 = sum(p.multiply_adds for p in products if (layer := done_by.get(p.name)) is not None and layer.int8)
    return _share(int8, total)


def _layers_of_nodes(layers: Iterable[EngineLayer]) -> Mapping[str, EngineLayer]:
    """The layer that does each node's work: of several that name it, the one that multiplies."""
    found: dict[str, EngineLayer] = {}
    for layer in layers:
        for node in layer.nodes:
            if node not in found or (layer.multiplies and not found[node].multiplies):
                found[node] = layer
    return found


def _share(part: int, total: int) -> float | None:
    return round(part / total, 6) if total else None
