"""Which decoders are spelled how: a dialect for each family of engines, and a dialect for each `--target`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sottovoce.export.graphs.cpu_spelling import CpuSpelling
from sottovoce.export.graphs.decoder_spelling import DecoderSpelling, Heads
from sottovoce.export.graphs.graph_builder import GraphBuilder
from sottovoce.export.graphs.portable_spelling import Opset23Spelling, PortableSpelling
from sottovoce.export.graphs.spelled_out import SpelledOutSpelling
from sottovoce.export.operator_lists.check import require_operators
from sottovoce.export.operator_lists.operator_list import operator_list
from sottovoce.runtime.errors import SottovoceError

SpellingFactory = Callable[[GraphBuilder, Heads], DecoderSpelling]
"""Takes the graph being built and the decoder's heads."""


@dataclass(frozen=True)
class Dialect:
    """A way to spell decoders, and for whom."""

    name: str
    opset: int
    audience: str
    factory: SpellingFactory
    fixed_capacity: bool = False
    """Whether the size of the cache is a number in the graph: TensorRT's in-place cache update must know it."""
    joins_products: bool = False
    """Whether query, key and value of a layer are one product, and then parted: fewer operators to start."""
    operators: str | None = None
    """The published operator list that all graphs of a bundle for this dialect's engines keep to."""

    def spelling(self, graph: GraphBuilder, heads: Heads) -> DecoderSpelling:
        """The operators of this dialect, for one graph."""
        return self.factory(graph, heads)

    def check_operators(self, graph: Path) -> None:
        """Refuse a written graph, of whichever stage, that this dialect's engines would not take.

        Raises:
            SottovoceError: an operator or a type is not in their published list.
        """
        if self.operators is not None:
            require_operators(graph, operator_list(self.operators))


DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("portable", 24, "TensorRT-RTX, TensorRT 10.13, ONNX Runtime 1.24 and later", PortableSpelling, True),
        Dialect("portable-23", 23, "ONNX Runtime 1.23 and later", Opset23Spelling),
        Dialect(
            "cpu",
            23,
            "ONNX Runtime 1.23 and later on CPUs, with its own attention operator",
            CpuSpelling,
            joins_products=True,
        ),
        Dialect("jetpack6", 20, "TensorRT 10.3 on JetPack 6", SpelledOutSpelling, True, operators="tensorrt-10.3"),
    )
}

TARGETS: Mapping[str, str] = {"cpu": "cpu", "tensorrt": "portable", "jetpack6": "jetpack6"}
"""Which dialect each `--target` is spelled in today."""


def dialect_for(target: str) -> Dialect:
    """The dialect of a `--target`.

    Raises:
        SottovoceError: the target is unknown.
    """
    if target not in TARGETS:
        raise SottovoceError(f"unknown target {target!r}", fix=f"choose one of: {', '.join(TARGETS)}")
    return DIALECTS[TARGETS[target]]
